"""Redis Cluster and Sentinel: a master dies in the middle, its replica takes over, and all is true.

On Redis as users run it: three masters with a replica each, or a master with its replica and three
Sentinels.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from livestep.deploy.local.redis_cluster import SERVICE, RedisCluster, RedisGroup, RedisSentinels
from livestep.deploy.local.redis_server import RedisServer
from livestep.pipeline.environment import RedisCredentials, Secret
from livestep.pipeline.errors import StoreError
from livestep.pipeline.state.store import SAVE_KEYS_MAX, RedisStore
from tests.services.acl import needed
from tests.services.conftest import MakeRunning
from tests.services.running import PATIENT_SESSION_TIMEOUT_MS
from tests.support.helpers import wait_until

#: Small batches, and a pool that holds few of the keys: Redis is asked all the time.
OPTIONS = {
    "batch_events_max": 50,
    "pool_slots": 100,
    "session_timeout_ms": PATIENT_SESSION_TIMEOUT_MS,
}


@pytest.fixture
def cluster(redis_cluster: RedisCluster) -> Iterator[RedisCluster]:
    """The Redis Cluster, empty at the start, and whole again at the end."""
    for server in redis_cluster.masters():
        with client(server) as node:
            node.flushall()
    yield redis_cluster
    for server in redis_cluster.nodes:
        server.start()
    redis_cluster.wait_until_settled()


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[RedisSentinels]:
    """A master, its replica and three Sentinels."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with RedisSentinels(folder) as group:
        yield group


@pytest.mark.parametrize("kind", ["cluster", "sentinels"])
def test_the_truth_holds_when_a_master_is_killed_and_its_replica_takes_over(
    kind: str, pipeline: MakeRunning, request: pytest.FixtureRequest
) -> None:
    # Given a worker in the middle of its work, its states in Redis
    group: RedisGroup = request.getfixturevalue(kind)
    pipe = pipeline()
    worker = pipe.start(redis_url=group.url, **OPTIONS)
    pipe.publish(2_000, keys=400)
    wait_until(lambda: pipe.lag() < 1_500, 90, "some progress")

    # When a master that holds states is killed
    victim = next(server for server in group.masters() if has_states(server))
    victim.kill()
    pipe.publish(2_000, keys=400)

    # Then the worker continues with the replica, and nothing is lost, repeated or wrong
    pipe.wait_until_done()
    worker.stop(60)
    assert worker.exit_code == 0, worker.log_tail()
    assert "retrying in" in worker.log_tail(10_000)
    pipe.assert_truth()


def test_a_failover_that_loses_writes_is_healed_by_replay(
    cluster: RedisCluster, pipeline: MakeRunning
) -> None:
    # Given a worker with states in a cluster, and a master whose replica is away for a while
    pipe = pipeline(partitions=1)
    worker = pipe.start(redis_url=cluster.url, **OPTIONS)
    pipe.publish(500, keys=200)
    pipe.wait_until_done()
    master = next(server for server in cluster.masters() if has_states(server))
    replica = next(server for server in cluster.nodes if is_replica_of(server, master))
    replica.kill()
    pipe.publish(500, keys=200)
    pipe.wait_until_done()

    # When the master dies, and the replica comes back with what it once had
    master.kill()
    replica.start()
    pipe.publish(500, keys=200)

    # Then that is seen, and replayed
    pipe.wait_until_done()
    worker.stop(60)
    assert worker.exit_code == 0, worker.log_tail()
    assert "replay from" in worker.log_tail(10_000)
    pipe.assert_truth()


def test_every_command_of_the_store_works_in_a_cluster(cluster: RedisCluster) -> None:
    # Given partitions in slots of all masters
    store = open_store(cluster.url)
    try:
        store.check()
        for partition in range(16):
            store.begin(partition, expected=None, applied=0, start=0, partitions=16)

        # When states of more keys than fit into one call are saved
        keys = [b"%d" % n for n in range(SAVE_KEYS_MAX + 1)]
        records = [record(n) for n in range(len(keys))]
        for partition in range(16):
            store.save(partition, expected=0, applied=9_999, keys=keys, records=records)

        # Then all of it is there, on every master
        found = store.describe(range(16))
        assert all(about is not None and about.applied == 9_999 for about in found.values())
        assert store.load(3, keys) == (9_999, records)
        assert {key for page in store.scan(3) for key in page} == set(keys)
        assert all(has_states(server) for server in cluster.masters())
    finally:
        store.close()


def test_a_slot_that_moves_to_another_node_is_followed(cluster: RedisCluster) -> None:
    # Given a partition's states on one master of a cluster, in a slot that is on its way to another
    store = open_store(cluster.url)
    store.begin(0, expected=None, applied=0, start=0, partitions=1)
    store.save(0, expected=0, applied=10, keys=[b"a"], records=[record(5)])
    source = next(server for server in cluster.masters() if has_states(server))
    target = next(server for server in cluster.masters() if server is not source)
    with client(source) as there, client(target) as here:
        (name,) = there.keys()
        slot = there.execute_command("CLUSTER KEYSLOT", name)
        source_id = there.execute_command("CLUSTER MYID")
        target_id = here.execute_command("CLUSTER MYID")
        here.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source_id)
        there.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target_id)

        # When its key has moved already (ASK), and when the slot has, too (MOVED)
        there.migrate("127.0.0.1", target.port, name, 0, 5_000)
        assert store.load(0, [b"a"]) == (10, [record(5)])
        store.save(0, expected=10, applied=20, keys=[b"a"], records=[record(15)])
        for node in (here, there):
            node.execute_command("CLUSTER SETSLOT", slot, "NODE", target_id)

    # Then the store goes there, with all kinds of commands
    store.save(0, expected=20, applied=30, keys=[b"a"], records=[record(25)])
    about = store.describe([0])[0]
    assert about is not None and about.applied == 30
    assert store.load(0, [b"a"]) == (30, [record(25)])
    store.close()


def test_a_cluster_in_which_one_master_evicts_is_refused(cluster: RedisCluster) -> None:
    # Given a master that may throw states away
    evicting = cluster.masters()[-1]
    with client(evicting) as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        store = open_store(cluster.url)
        try:
            # When the store checks, then it names that one
            where = f"{evicting.port} has maxmemory-policy allkeys-lru"
            with pytest.raises(StoreError, match=where):
                store.check()
        finally:
            store.close()
            admin.config_set("maxmemory-policy", "noeviction")


def test_the_rights_of_a_worker_in_a_cluster_are_enough_and_each_is_needed(
    cluster: RedisCluster,
) -> None:
    # Given a user with the listed commands on every node
    rule, more = needed(), needed("cluster")

    def give(rights: list[str]) -> None:
        for server in cluster.nodes:
            with client(server) as admin:
                admin.execute_command("ACL SETUSER", "user", "reset", "on", ">word", *rights)

    def begin(partition: int) -> None:
        store = open_store(cluster.url, RedisCredentials(username="user", password=Secret("word")))
        try:
            store.check()
            store.begin(partition, expected=None, applied=0, start=0, partitions=9)
        finally:
            store.close()

    # When all are given, then the store works, and without one of the cluster's it is refused
    give(rule + more)
    begin(0)
    assert len(more) == 2
    for right in more:
        give([*rule, *more, right.replace("+", "-").partition("|")[0]])
        with pytest.raises(StoreError, match=f"(?i){right[1:].partition('|')[0]}"):
            begin(1)


def test_one_server_and_a_cluster_are_not_taken_for_each_other(
    cluster: RedisCluster, redis_url: str
) -> None:
    # Given the URL of each, written as if it were the other
    as_one = cluster.url.replace("+cluster", "").partition(",")[0]
    as_cluster = redis_url.replace("redis:", "redis+cluster:")

    # When a store uses it, then it says which form is right, and does not wait
    wrong = open_store(as_one)
    with pytest.raises(StoreError, match=r"use redis\+cluster://"):
        for partition in range(16):
            wrong.begin(partition, expected=None, applied=0, start=0, partitions=9)
    wrong.close()
    wrong = open_store(as_cluster)
    with pytest.raises(StoreError, match="use redis://"):
        wrong.check()
    wrong.close()


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("CONFIG SET min-replicas-to-write 1", "CONFIG SET min-replicas-to-write 0"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("CONFIG SET replica-serve-stale-data no", "REPLICAOF NO ONE"),
    ],
    ids=["full", "too few replicas", "a replica for now", "a replica without its master"],
)
def test_the_worker_waits_for_a_redis_that_rejects_writes(
    begin: str, end: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a Redis that refuses our script, or what is in it
    server = RedisServer(tmp_path)
    store = open_store(server.url)
    try:
        server.start()
        with client(server) as admin, ThreadPoolExecutor(1) as thread:
            store.begin(0, expected=None, applied=0, start=0, partitions=1)
            admin.execute_command(*begin.split())
            if "stale" in begin:
                admin.execute_command("REPLICAOF", "127.0.0.1", 1)

            # When something is saved
            states: dict[str, Any] = {"keys": [b"a"], "records": [record(5)]}
            saved = thread.submit(store.save, 0, expected=0, applied=7, **states)
            wait_until(lambda: "retrying in" in caplog.text or saved.done(), 90, "a refusal")
            is_done_early = saved.done()
            admin.execute_command(*end.split())

            # Then it waits until Redis takes it
            saved.result(60)
        assert not is_done_early
        assert store.load(0, [b"a"]) == (7, [record(5)])
    finally:
        store.close()
        server.kill()
        server.release()


def test_sentinels_with_users_of_their_own_are_asked_with_their_password(
    sentinels: RedisSentinels,
) -> None:
    # Given Sentinels that answer a user with two commands only
    for sentinel in sentinels.sentinels:
        with client(sentinel) as admin:
            admin.execute_command(
                "ACL SETUSER", "asker", "on", ">word", "-@all", *needed("sentinel")
            )
            admin.execute_command("ACL SETUSER", "default", "resetpass", "-@all", "off")

    # When they are asked with its password, then they tell the master
    right = RedisCredentials(sentinel_username="asker", sentinel_password=Secret("word"))
    store = open_store(sentinels.url, right)
    store.check()
    store.close()

    # When they don't know the master, or the password is wrong or missing, then the store raises
    store = open_store(sentinels.url.replace(SERVICE, "another"), right, wait_s=0)
    with pytest.raises(StoreError, match="No master found for 'another'"):
        store.check()
    store.close()
    wrong = RedisCredentials(sentinel_username="asker", sentinel_password=Secret("w0rd"))
    for credentials, message in [(wrong, "invalid username-password pair"), (None, "(?i)auth")]:
        store = open_store(sentinels.url, credentials)
        with pytest.raises(StoreError, match=message) as caught:
            store.check()
        assert "w0rd" not in str(caught.value)
        store.close()


def open_store(
    url: str, credentials: RedisCredentials | None = None, *, wait_s: float = 280
) -> RedisStore:
    """A store that would wait longer than a test may take."""
    names = {"topic_id": "t", "fingerprint": "f", "group": "g"}
    return RedisStore(url, **names, wait_s=wait_s, credentials=credentials)


def record(offset: int) -> bytes:
    """As the store takes it: an offset, a number of timesteps, anything."""
    return offset.to_bytes(8, "little") + (1).to_bytes(8, "little") + b"state"


def client(server: object) -> redis.Redis:
    """A client of one node, as it is."""
    return redis.Redis.from_url(server.url, socket_timeout=10)  # type: ignore[attr-defined]


def has_states(server: RedisServer) -> bool:
    """Whether a server holds anything."""
    with client(server) as node:
        return node.dbsize() > 0


def is_replica_of(server: RedisServer, master: RedisServer) -> bool:
    """Whether a server follows another."""
    with client(server) as node:
        return bool(node.info("replication").get("master_port") == master.port)
