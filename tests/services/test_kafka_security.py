"""TLS, SASL/SCRAM and rights: just those that are listed are enough, and none is too many."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import torch

from livestep import GRU, DeadLetterReader, EventPublisher, PredictionReader, load_model, save_model
from livestep.deploy.local.redis_server import RedisServer
from livestep.pipeline.app import run_worker
from livestep.pipeline.audit.audit_report import AuditReport
from livestep.pipeline.audit.output_audit import audit
from livestep.pipeline.errors import BrokerError, ConfigError
from livestep.pipeline.kafka.kafka_log import KafkaLog
from livestep.pipeline.kafka.topic_setup import create_topics, describe_topics, lag
from livestep.pipeline.settings import Settings
from tests.services.running import PATIENT_SESSION_TIMEOUT_MS
from tests.services.secure_kafka import (
    ADMIN,
    MECHANISM,
    Right,
    SecureKafka,
    listed_rights,
    password_of,
)

NAMES = {
    "input": "events",
    "output": "predictions",
    "dead_letter": "events.dead-letter",
    "group": "livestep.predictions",
    "reader_group": "team",
}
SUITS = listed_rights()

#: How long a client looks for a broker that will not let it in.
SHORT_S = 5.0

#: How long one looks that comes in: a refusal of what it does is not waited for.
LONG_S = 30.0


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    """A broker where everybody has the rights that are listed."""
    secure = SecureKafka(tmp_path_factory.mktemp("secure"))
    try:
        secure.broker.start()
        secure.allow(*(right.binding(NAMES) for right in SUITS))
        with pytest.MonkeyPatch.context() as patch:
            enter(patch, secure, ADMIN)
            topics = [NAMES["input"], NAMES["output"], NAMES["dead_letter"]]
            outcomes = create_topics(secure.broker.bootstrap_servers, topics, 2)
            assert not [outcome.problem for outcome in outcomes if outcome.problem]
        yield secure
    finally:
        secure.close()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of this module's own: a test flushes it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        server.start()
        yield server
    finally:
        server.kill()
        server.release()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that keeps states."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(GRU(input_size=1, hidden_size=4, output_size=1), folder)
    return folder


def enter(patch: pytest.MonkeyPatch, kafka: SecureKafka, user: str, **changes: str) -> str:
    """Become a user, by environment alone; returns the brokers' address."""
    for name, value in kafka.environment(user, **changes).items():
        patch.setenv(name, value)
    return kafka.broker.bootstrap_servers


def settings(model: Path, redis_server: RedisServer, **changes: object) -> Settings:
    """Settings of a worker; what is secret comes from the environment."""
    return Settings.from_environment(
        model=str(model),
        input_topic=NAMES["input"],
        output_topic=NAMES["output"],
        redis_url=redis_server.url,
        session_timeout_ms=PATIENT_SESSION_TIMEOUT_MS,
        burst=True,
        **changes,
    )


def publish(patch: pytest.MonkeyPatch, kafka: SecureKafka, count: int = 20) -> None:
    """Publish events as the publisher, and one that can't be used."""
    servers = enter(patch, kafka, "publisher")
    with EventPublisher(servers, NAMES["input"], timeout_s=LONG_S) as publisher:
        for number in range(count):
            publisher.publish(f"key-{number % 5}", {"x": number / count})
        publisher.publish("key-0", {"x": "no number"})


def predict(
    patch: pytest.MonkeyPatch,
    kafka: SecureKafka,
    model: Path,
    redis_server: RedisServer,
    **changes: str,
) -> None:
    """Predict as the worker, after Redis has lost all: each partition is replayed."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    enter(patch, kafka, "worker")
    run_worker(settings(model, redis_server, **changes))


def operate(patch: pytest.MonkeyPatch, kafka: SecureKafka) -> None:
    """Create a topic, look at topics and lag as the operator."""
    servers = enter(patch, kafka, "operator")
    assert set(lag(servers, NAMES["group"], NAMES["input"])) == {0, 1}
    (outcome,) = create_topics(servers, [NAMES["input"] + ".more"], 1)
    if outcome.problem is not None:
        raise ConfigError(f"topic {outcome.name}: {outcome.problem}")
    assert NAMES["input"] in describe_topics(servers)


def audit_as_auditor(patch: pytest.MonkeyPatch, kafka: SecureKafka, model: Path) -> AuditReport:
    """Compare all predictions as the auditor."""
    servers = enter(patch, kafka, "auditor")
    topics = (NAMES["input"], NAMES["output"])
    return audit(servers, *topics, load_model(model), group=NAMES["group"])


def test_the_listed_rights_are_enough_also_for_a_replay_and_after_a_crash(
    kafka, redis_server, model, monkeypatch, tmp_path
):
    # Given a worker that is killed with a transaction open
    publish(monkeypatch, kafka)
    enter(monkeypatch, kafka, "worker")
    program = ["tests.services.crashing_worker", "before-commit:1", "worker", "--burst"]
    flags = ["--model", model, "--redis-url", redis_server.url, "--session-timeout-ms", 2000]
    topics = ["--input-topic", NAMES["input"], "--output-topic", NAMES["output"]]
    command = [sys.executable, "-m", *program, *flags, *topics]
    crashed = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert crashed.returncode < 0, crashed.stderr

    # When others continue, and Redis loses all
    predict(monkeypatch, kafka, model, redis_server)
    publish(monkeypatch, kafka)
    predict(monkeypatch, kafka, model, redis_server)

    # Then a reader has all predictions and dead letters, alone and in a group
    servers = enter(monkeypatch, kafka, "reader")
    with PredictionReader(servers, NAMES["output"], from_beginning=True) as reader:
        assert len(reader.read(timeout_s=60, max_count=40)) == 40
    with DeadLetterReader(servers, NAMES["input"], from_beginning=True) as letters:
        assert len(letters.read(timeout_s=60, max_count=2)) == 2
    with PredictionReader(
        servers, NAMES["output"], from_beginning=True, group=NAMES["reader_group"]
    ) as member:
        assert len(member.read(timeout_s=60, max_count=40)) == 40

    # And they are the truth
    report = audit_as_auditor(monkeypatch, kafka, model)
    assert report.is_clean and report.predictions == 40, report
    operate(monkeypatch, kafka)


ACTIONS = {
    "publisher": lambda patch, kafka, model, redis_server: publish(patch, kafka),
    "worker": predict,
    "auditor": lambda patch, kafka, model, redis_server: audit_as_auditor(patch, kafka, model),
    "operator": lambda patch, kafka, model, redis_server: operate(patch, kafka),
}


def read_all(patch: pytest.MonkeyPatch, kafka: SecureKafka, right: Right) -> None:
    """Read as the reader what the right is about."""
    servers = enter(patch, kafka, "reader")
    if right.name == "{dead_letter}":
        DeadLetterReader(servers, NAMES["input"], timeout_s=LONG_S).close()
        return
    group = NAMES["reader_group"] if right.kind == "group" else None
    with PredictionReader(
        servers, NAMES["output"], group=group, timeout_s=LONG_S, from_beginning=True
    ) as reader:
        reader.read(timeout_s=1)


@pytest.mark.parametrize("right", SUITS, ids=lambda one: f"{one.user}-{one.operation}-{one.name}")
def test_without_any_one_of_them_something_is_refused_by_name(
    right, kafka, redis_server, model, monkeypatch
):
    # Given work to do
    if right.user == "worker":
        publish(monkeypatch, kafka)
    binding = right.binding(NAMES)
    kafka.forbid(binding)
    try:
        # When somebody lacks the one right
        with pytest.raises((BrokerError, ConfigError)) as caught:
            if right.user == "reader":
                read_all(monkeypatch, kafka, right)
            else:
                ACTIONS[right.user](monkeypatch, kafka, model, redis_server)
    finally:
        kafka.allow(binding)
    # Then it's said which resource, and where the rights are listed
    assert right.name.rstrip("*").format(**NAMES).rstrip(".") in str(caught.value)
    assert "deploy/security/README.md" in str(caught.value)
    assert caught.value.exit_code in (3, 4)


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_a_worker_that_may_see_a_topic_but_not_write_to_it_leaves(
    guarantee, kafka, redis_server, model, monkeypatch
):
    # Given a right to look instead of one to write
    publish(monkeypatch, kafka)
    write = next(one for one in SUITS if (one.user, one.name) == ("worker", "{output}"))
    look = dataclasses.replace(write, operation="DESCRIBE")
    kafka.allow(look.binding(NAMES))
    kafka.forbid(write.binding(NAMES))
    try:
        # When it predicts, then it doesn't try for ever
        with pytest.raises(BrokerError, match="authorization failed.*deploy/security"):
            predict(monkeypatch, kafka, model, redis_server, guarantee=guarantee)
    finally:
        kafka.allow(write.binding(NAMES))
        kafka.forbid(look.binding(NAMES))


REFUSED = {
    "a wrong password": ({"sasl_password": "wrong"}, "SASL authentication"),
    "an authority that did not sign": (
        {"ssl_ca_location": "other-ca.pem"},
        "(?i)certificate verify failed",
    ),
    "a mechanism that the broker lacks": (
        {"sasl_mechanism": "PLAIN"},
        "SASL.*(mechanism|Mechanism)",
    ),
    "no TLS": ({"security_protocol": "PLAINTEXT"}, "with PLAINTEXT .*SECURITY_PROTOCOL"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_client_without_access_gets_the_reason(case, kafka, redis_server, model, monkeypatch):
    changes, text = REFUSED[case]
    if "ssl_ca_location" in changes:
        changes = {"ssl_ca_location": str(kafka.folder / changes["ssl_ca_location"])}
    servers = enter(monkeypatch, kafka, "worker", **changes)
    with pytest.raises(BrokerError, match=text) as refused:
        EventPublisher(servers, NAMES["input"], timeout_s=SHORT_S)
    assert password_of("worker") not in str(refused.value)
    with pytest.raises(BrokerError, match=text) as refused:
        KafkaLog(settings(model, redis_server), "worker")
    assert password_of("worker") not in str(refused.value)
    assert refused.value.exit_code == 4


def test_kafka_pythons_own_arguments_overrule_the_variables(kafka, monkeypatch):
    servers = enter(monkeypatch, kafka, "publisher", sasl_password="wrong")
    options = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": MECHANISM,
        "sasl_plain_username": "publisher",
        "sasl_plain_password": password_of("publisher"),
        "ssl_cafile": str(kafka.authority_file),
    }
    with EventPublisher(servers, NAMES["input"], timeout_s=LONG_S, **options) as publisher:
        assert publisher.publish_many([("key-0", {"x": 0.5})]) == 1
    with pytest.raises(BrokerError, match="SASL authentication"):
        EventPublisher(servers, NAMES["input"], timeout_s=SHORT_S)
    right = {"sasl_plain_password": password_of("publisher")}
    EventPublisher(servers, NAMES["input"], timeout_s=LONG_S, **right).close()


def test_the_commands_take_the_password_from_a_file(kafka, tmp_path):
    # Given a password in a file, and nowhere else
    secret = tmp_path / "password"
    secret.write_text(password_of("publisher") + "\n")
    secret.chmod(0o600)
    variables = {**os.environ, **kafka.environment("publisher")}
    del variables["LIVESTEP_KAFKA_SASL_PASSWORD"]
    variables["LIVESTEP_KAFKA_SASL_PASSWORD_FILE"] = str(secret)
    times = (1_700_000_000_000, 1_700_000_000_000_000, 1_700_000_000_000)
    lines = "".join(json.dumps({"key": "k", "time": time}) + "\n" for time in times)

    def livestep(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "livestep.pipeline.cli", *arguments]
        return subprocess.run(command, input=lines, env=variables, capture_output=True, text=True)

    # When the user does what it may, and what it may not
    options = ["--format=jsonl", "--topic=events", "--key=key"]
    published = livestep("publish", "-", *options)
    left_out = livestep("publish", "-", *options, "--timestamp=time", "--on-error=skip")
    refused = livestep("predictions", "--topic=predictions", "--from-beginning", "--max=1")

    # Then it's one line and an exit code
    assert (published.returncode, refused.returncode) == (0, 4), published.stderr
    (line,) = [one for one in refused.stderr.splitlines() if one.startswith("error")]
    assert "'predictions'" in line and "not authorized" in line
    assert "Traceback" not in refused.stderr
    # And a publisher that may not read the topic's settings finds out what Kafka refuses
    assert left_out.returncode == 1
    assert "may not read the settings of topic 'events' (DESCRIBE_CONFIGS)" in left_out.stderr
    assert "left out: line 2 (key 'k'): Kafka refused it: Broker: Invalid t" in left_out.stderr
    assert "published 2 events to topic 'events'" in left_out.stderr
    for output in (published, refused, left_out):
        assert password_of("publisher") not in output.stdout + output.stderr


def test_no_log_and_no_process_list_shows_a_password(
    kafka, redis_server, model, monkeypatch, tmp_path
):
    # Given a worker whose passwords, of Kafka and of Redis, are in files; all that can log, logs
    publish(monkeypatch, kafka)
    secrets = {"SASL": password_of("worker"), "REDIS": "marker-of-redis-93ab"}
    with redis.Redis.from_url(redis_server.url) as client:
        client.acl_setuser(
            "worker", True, passwords=["+" + secrets["REDIS"]], keys=["*"], categories=["+@all"]
        )
    for name, secret in secrets.items():
        (tmp_path / name).write_text(secret)
    variables = {
        **os.environ,
        **kafka.environment("worker", debug="all", log_level="7"),
        "LIVESTEP_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "SASL"),
        "LIVESTEP_REDIS_USERNAME": "worker",
        "LIVESTEP_REDIS_PASSWORD_FILE": str(tmp_path / "REDIS"),
    }
    del variables["LIVESTEP_KAFKA_SASL_PASSWORD"]
    program = "import logging; logging.basicConfig(level=logging.DEBUG); " + (
        "from livestep.pipeline.cli import main; main()"
    )
    options = ["--model", str(model), "--redis-url", redis_server.url, "--burst", "--verbose"]
    topics = ["--input-topic", NAMES["input"], "--output-topic", NAMES["output"]]
    command = [sys.executable, "-c", program, "worker", *options, *topics]

    # When it predicts, and when Redis doesn't know it any more
    outputs = []
    for exit_code in (0, 5):
        output = tmp_path / f"log-{exit_code}"
        with output.open("wb") as log:
            process = subprocess.Popen(
                command, env=variables, stdout=log, stderr=log, cwd=Path(__file__).parents[2]
            )
            try:
                listed = Path(f"/proc/{process.pid}/cmdline").read_bytes()
                assert process.wait(120) == exit_code, output.read_text(errors="replace")[-3_000:]
            finally:
                process.kill()
        outputs.append(listed + output.read_bytes())
        with redis.Redis.from_url(redis_server.url) as client:
            client.acl_setuser("worker", True, reset_passwords=True, passwords=["+another"])

    # Then a lot was logged, and neither password
    assert b"SASL" in outputs[0] and len(outputs[0]) > 10_000
    for secret in secrets.values():
        assert all(secret.encode() not in one for one in outputs)
