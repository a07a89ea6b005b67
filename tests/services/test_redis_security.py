"""Redis with TLS, with users and with rights: what works, and what is refused at once and named."""

from __future__ import annotations

import os
import ssl
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import trustme

from livestep.deploy.local.redis_cluster import two_ports
from livestep.deploy.local.redis_server import RedisServer
from livestep.models.sequences.rules import SequenceRules
from livestep.pipeline.environment import RedisCredentials, Secret
from livestep.pipeline.errors import ConfigError, StoreError
from livestep.pipeline.state.redis_address import read_address
from livestep.pipeline.state.redis_connection import RedisConnection, make_client
from livestep.pipeline.state.store import CLOCK_KEY, SAVE_KEYS_MAX, RedisStore
from tests.chaos.proxy import Proxy
from tests.services.acl import ACL_FILE, explained, needed
from tests.services.conftest import MakeRunning

USER, PASSWORD = "livestep", "s3cret/of:the@worker"

#: Longer than a test may take: what is waited for fails.
WAIT_S = 280.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis whose users are those of the ACL file; the worker's has a password."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), options={"include": str(ACL_FILE)})
    try:
        server.start()
        with admin_of(server) as admin:
            admin.execute_command("ACL SETUSER", USER, f">{PASSWORD}")
        yield server
    finally:
        server.kill()
        server.release()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the certificates."""
    return trustme.CA()


@pytest.fixture
def tls(server: RedisServer, authority: trustme.CA) -> Iterator[Proxy]:
    """The same Redis behind TLS, as `127.0.0.1`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Proxy("127.0.0.1", server.port, server_ssl=context) as proxy:
        yield proxy


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """The authority's certificate."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def test_a_worker_runs_over_tls_with_the_listed_rights_only(
    server: RedisServer, tls: Proxy, ca_file: Path, tmp_path: Path, pipeline: MakeRunning
) -> None:
    # Given a model with sequences that a session gap ends: it needs each command there is
    running = pipeline(rules=SequenceRules(shape="many-to-one", session_gap_ms=50))
    password_file = tmp_path / "password"
    password_file.write_text(f"{PASSWORD}\n")
    url = f"rediss://{tls.address}?ssl_ca_certs={ca_file}"
    environment = {
        "LIVESTEP_REDIS_USERNAME": USER,
        "LIVESTEP_REDIS_PASSWORD_FILE": str(password_file),
    }
    options = {"redis_url": url, "batch_events_max": 50, "pool_slots": 100}

    def burst() -> None:
        running.burst(environment=environment, **options)

    # When it runs, continues, and Redis forgets all, states and scripts, before it continues again
    running.publish(400, keys=100)
    burst()
    running.publish(400, keys=100)
    burst()
    with admin_of(server) as admin:
        assert admin.dbsize() > 0
        admin.flushall()
        admin.script_flush()
    running.publish(400, keys=100)
    burst()

    # Then nothing was refused, and each answer is the truth
    running.assert_sequences()
    with admin_of(server) as admin:
        assert admin.acl_log() == []


def test_the_listed_rights_are_enough_and_each_one_is_needed(server: RedisServer) -> None:
    # Given the rights of the file, each of which is explained there
    commands = [word for word in needed() if word.startswith("+")]
    assert commands == explained()

    # When a store uses all of its commands with all of them, then it is served
    use_every_command(server, [])

    # When one of them is taken away, then Redis refuses at once, and the error names it
    for command in commands:
        with pytest.raises(StoreError, match=f"(?i)no permissions.*{command[1:]}") as caught:
            use_every_command(server, [command.replace("+", "-")])
        assert "redis-acl.conf" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_keys_of_others_are_out_of_reach(server: RedisServer) -> None:
    # Given the worker's user, and a key of somebody else
    with admin_of(server) as admin:
        admin.hset("billing", "applied", 1)
    with redis.Redis(port=server.port, username=USER, password=PASSWORD) as worker:
        # When it reads that, or anything but what it needs, then it is refused
        for command in ("HGETALL billing", "HMGET billing applied", "GET livestep:x", "FLUSHALL"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                worker.execute_command(*command.split())
        with pytest.raises(redis.exceptions.ResponseError):
            worker.eval("return redis.call('HGET', KEYS[1], 'applied')", 1, "billing")


@pytest.mark.parametrize(
    ("username", "password"), [(USER, "wr0ng"), ("nobody", PASSWORD), ("", "wr0ng")]
)
def test_a_wrong_password_is_refused_at_once_and_shown_nowhere(
    server: RedisServer,
    username: str,
    password: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given a password that is wrong
    caplog.set_level("DEBUG")
    credentials = RedisCredentials(username=username, password=Secret(password))
    connection = RedisConnection(address(server), WAIT_S, credentials)

    # When it is used, then it is refused without a wait
    with pytest.raises(StoreError) as caught:
        connection.check()
    connection.close()
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    chain = [repr(error) + str(error) for error in causes(caught.value)]
    shown = "".join([*chain, caplog.text, repr(credentials), repr(connection.address)])
    assert password not in shown
    assert "retrying in" not in caplog.text


def test_a_missing_password_of_redis_fails_at_once(
    server: RedisServer,
) -> None:
    with admin_of(server) as admin:
        admin.execute_command("ACL SETUSER", "default", "resetpass", ">admin")
        try:
            connection = RedisConnection(address(server), WAIT_S)
            with pytest.raises(StoreError, match="(?i)authentication required"):
                connection.check()
            connection.close()
        finally:
            admin.execute_command("ACL SETUSER", "default", "nopass")


def test_a_worker_with_a_wrong_password_leaves_with_one_line_that_does_not_tell_it(
    server: RedisServer, pipeline: MakeRunning
) -> None:
    # Given a worker whose password comes by its environment
    running = pipeline()
    os.environ["LIVESTEP_REDIS_PASSWORD"] = "wr0ng-one"
    try:
        worker = running.start(redis_url=address(server))
        command_line = Path(f"/proc/{worker.pid}/cmdline").read_bytes()
    finally:
        del os.environ["LIVESTEP_REDIS_PASSWORD"]

    # When it starts, then it leaves with the exit code of Redis
    assert worker.wait(120) == 5, worker.log_tail()
    log = worker.log_tail(1_000)
    assert "Traceback" not in log
    assert b"wr0ng-one" not in command_line + log.encode()


def test_a_certificate_that_nobody_trusts_is_refused_at_once(tls: Proxy, tmp_path: Path) -> None:
    # Given an authority that did not sign it, or none
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    good = RedisCredentials(username=USER, password=Secret(PASSWORD))
    for url, message in [
        (f"rediss://{tls.address}?ssl_ca_certs={other}", "CERTIFICATE_VERIFY_FAILED.*ssl_ca_certs"),
        (f"rediss://{tls.address}", "CERTIFICATE_VERIFY_FAILED.*ssl_ca_certs"),
        (f"rediss+cluster://{tls.address}", "CERTIFICATE_VERIFY_FAILED.*ssl_ca_certs"),
        (f"rediss+sentinel://{tls.address}/main", "CERTIFICATE_VERIFY_FAILED.*ssl_ca_certs"),
    ]:
        # When it is used, then it is refused without a wait, in one line
        connection = RedisConnection(url, WAIT_S, good)
        with pytest.raises(StoreError, match=message) as caught:
            connection.check()
        connection.close()
        assert "\n" not in str(caught.value)


def test_tls_on_one_side_only_is_reported(server: RedisServer, tls: Proxy) -> None:
    # Given a Redis without TLS, which takes our greeting for noise, and one with it
    for url, message in [
        (f"rediss://127.0.0.1:{server.port}?socket_connect_timeout=1", "TLS handshake"),
        (f"redis://{tls.address}", "if the server uses TLS, use rediss://"),
    ]:
        # When it is spoken to in the other way, then the error tells what to look at
        connection = RedisConnection(url, 0.0)
        with pytest.raises(StoreError, match=message):
            connection.check()
        connection.close()


def test_a_client_certificate_is_shown(
    server: RedisServer, authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    # Given a Redis that asks clients for a certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    ours = authority.issue_cert("worker@example.org")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    ours.private_key_pem.write_to_path(key)
    ours.cert_chain_pems[0].write_to_path(certificate)
    with Proxy("127.0.0.1", server.port, server_ssl=context) as proxy:
        # When we show one, then we are served
        url = f"rediss://{proxy.address}?ssl_ca_certs={ca_file}&ssl_certfile={certificate}"
        connection = RedisConnection(f"{url}&ssl_keyfile={key}", WAIT_S)
        connection.check()
        connection.close()

        # When we show none, then we are not
        connection = RedisConnection(f"rediss://{proxy.address}?ssl_ca_certs={ca_file}", 0.0)
        with pytest.raises(StoreError):
            connection.check()
        connection.close()


def test_a_cluster_and_sentinels_are_spoken_to_by_tls(ca_file: Path, tls: Proxy) -> None:
    # Given Sentinels' URL with TLS, then they and the master are spoken to by TLS
    url = f"rediss+sentinel://{tls.address}/main?ssl_ca_certs={ca_file}"
    client = make_client(read_address(url))
    pools = [
        client.connection_pool,
        *(s.connection_pool for s in client.connection_pool.sentinel_manager.sentinels),
    ]
    assert len(pools) == 2
    for pool in pools:
        assert issubclass(pool.connection_class, redis.SSLConnection)
        assert pool.connection_kwargs["ssl_ca_certs"] == str(ca_file)


def test_a_cluster_is_spoken_to_by_tls(
    authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    # Given a cluster of one node that tells its clients to come by TLS
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    folder = tmp_path / "redis"
    folder.mkdir()
    port, bus_port = two_ports()
    with Proxy("127.0.0.1", port.number, server_ssl=context) as proxy:
        options = {
            "cluster-enabled": "yes",
            "cluster-announce-ip": "127.0.0.1",
            "cluster-announce-port": str(proxy.port),
        }
        server = RedisServer(folder, port=port, options=options)
        try:
            server.start()
            with admin_of(server) as node:
                node.execute_command("CLUSTER ADDSLOTS", *range(16_384))

            # When a store uses it, then it is served
            url = f"rediss+cluster://{proxy.address}?ssl_ca_certs={ca_file}"
            store = RedisStore(url, topic_id="t", fingerprint="f", group="g", wait_s=60)
            store.begin(0, expected=None, applied=0, start=0, partitions=1)
            store.check()
            store.close()
        finally:
            server.kill()
            server.release()
            bus_port.release()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("rediss://h?ssl_ca_certs=/no/such/file", "/no/such/file: No such file"),
        ("redis://h?ssl_ca_certs=/no/such/file", "rediss://"),
        ("redis://h?ssl_pasword=hunter2", "unknown option 'ssl_pasword'"),
        ("redis://h:1,h:2", "several hosts"),
        ("redis+cluster://h/3", "only database 0"),
        ("redis+sentinel://h", "master's name is missing"),
        ("redis+sentinel://h/main/x", "is not a database number"),
        ("redis+sentry://h", "unknown scheme"),
        ("redis://", "the host is missing"),
        ("redis://h:port/0", "is invalid: write redis"),
        ("http://h", "unknown scheme"),
    ],
)
def test_a_url_that_can_not_be_read_is_an_error_of_the_settings(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        RedisConnection(url, 0.0)
    assert "hunter2" not in str(caught.value)


def test_a_key_file_that_is_encrypted_is_refused_and_nothing_is_asked_for(tmp_path: Path) -> None:
    # Given a certificate whose key can't be read without a password
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    trustme.CA().cert_pem.write_to_path(certificate)
    key.write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIE\n-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    with pytest.raises(ConfigError, match=r"key\.pem"):
        read_address(f"rediss://h?ssl_certfile={certificate}&ssl_keyfile={key}")


def use_every_command(server: RedisServer, changes: list[str]) -> None:
    """Use all commands of the store as a user with the listed rights, some of them changed."""
    user = f"user-{uuid.uuid4().hex}"
    with admin_of(server) as admin:
        admin.execute_command("ACL SETUSER", user, "on", ">word", *needed(), *changes)
        admin.script_flush()
        store = RedisStore(
            address(server),
            topic_id=user,
            fingerprint="f",
            group="g",
            wait_s=WAIT_S,
            credentials=RedisCredentials(username=user, password=Secret("word")),
        )
        keys = [b"%d" % n for n in range(SAVE_KEYS_MAX + 1)]
        try:
            store.check()
            store.begin(0, expected=None, applied=0, start=0, partitions=1)
            store.save(0, expected=0, applied=10, keys=keys, records=[record(5)] * len(keys))
            store.save(0, expected=10, applied=20, keys=[b"1"], records=[record(15, -1)])
            store.load(0, [b"1", CLOCK_KEY])
            assert len({key for page in store.scan(0) for key in page}) == SAVE_KEYS_MAX
            store.describe([0])
        finally:
            store.close()
            admin.execute_command("ACL DELUSER", user)


def record(offset: int, timesteps: int = 1) -> bytes:
    """As the store takes it: an offset, a number of timesteps, anything."""
    return offset.to_bytes(8, "little") + timesteps.to_bytes(8, "little", signed=True) + b"state"


def address(server: RedisServer) -> str:
    """Without a database, which would need a right of its own."""
    return f"redis://127.0.0.1:{server.port}"


def admin_of(server: RedisServer) -> redis.Redis:
    """A client that may do all."""
    return redis.Redis(port=server.port, socket_timeout=10)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
