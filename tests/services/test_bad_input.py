"""Bad records become dead letters with a reason; bad settings and services one clear error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from deploy.services import LocalServices
from models import GRU, Category, Number, save_model
from pipeline import DeadLetterReader
from pipeline.errors import (
    BrokerError,
    ConfigError,
    HistoryMissingError,
    OffsetsResetError,
    OtherModelError,
    PartitionsChangedError,
    StoreError,
)
from tests.services.conftest import MakeRunning
from tests.services.running import Running

GOOD = b'{"x": [1, 2, 3]}'

#: What is wrong with a record: key, value, the reason it is given.
BAD: dict[str, tuple[bytes | None, bytes | None, str]] = {
    "an empty value": (b"k", b"", "empty-value"),
    "no key": (None, GOOD, "no-key"),
    "an empty key": (b"", GOOD, "no-key"),
    "a key too long": (b"k" * 1_001, GOOD, "key-too-long"),
    "a value too long": (b"k", b'{"x": [1, 2, 3]' + b" " * 999_900 + b"}", "value-too-long"),
    "no JSON": (b"k", b"x=1", "not-json"),
    "half a JSON": (b"k", b'{"x": [1, 2', "not-json"),
    "no UTF-8": (b"k", b'{"x\xff": 1}', "not-json"),
    "a list": (b"k", b"[1, 2, 3]", "not-an-object"),
    "a number": (b"k", b"7", "not-an-object"),
    "a missing feature": (b"k", b"{}", "missing-feature"),
    "an unknown feature": (b"k", b'{"x": [1, 2, 3], "y": 1}', "unknown-feature"),
    "too few numbers": (b"k", b'{"x": [1, 2]}', "wrong-length"),
    "too many numbers": (b"k", b'{"x": [1, 2, 3, 4]}', "wrong-length"),
    "a text for a number": (b"k", b'{"x": [1, "2", 3]}', "wrong-kind"),
    "a truth value for a number": (b"k", b'{"x": [1, true, 3]}', "wrong-kind"),
    "NaN": (b"k", b'{"x": [1, NaN, 3]}', "not-json"),
    "a mark that is no truth value": (b"k", b'{"x": [1, 2, 3], "end": 1}', "bad-mark"),
    "steps of nothing": (b"k", b'{"x": [1, 2, 3], "steps_max": 2}', "bad-steps-max"),
    # These come last, since they are found when the whole batch is looked at, and is stepped.
    "beyond float32": (b"k", b'{"x": [1, 1e39, 3]}', "not-finite"),
    "an end of nothing": (b"nobody", b'{"end": true}', "end-without-beginning"),
}


def dead_letters(running: Running) -> list[Any]:
    """Read all dead letters."""
    servers = running.services.bootstrap_servers
    with DeadLetterReader(servers, running.input_topic, from_beginning=True) as reader:
        return reader.read(timeout_s=20, max_count=len(BAD))


def test_each_kind_of_bad_record_is_a_dead_letter_among_undisturbed_neighbours(
    pipeline: MakeRunning,
) -> None:
    # Given good events with bad ones between them, of the same key
    running = pipeline(partitions=1)
    for key, value, _ in BAD.values():
        running.publish_raw([(b"k", GOOD), (key, value), (b"other", GOOD)])

    # When they are stepped in one batch
    running.burst(value_bytes_max=999_000)

    # Then each bad one is a dead letter with its reason, its bytes and its place
    letters = dead_letters(running)
    assert [letter.reason for letter in letters] == [reason for _, _, reason in BAD.values()]
    assert [letter.value for letter in letters] == [value for _, value, _ in BAD.values()]
    assert [letter.source.offset for letter in letters] == [1 + 3 * i for i in range(len(BAD))]
    assert all(letter.detail for letter in letters)

    # And the good ones are stepped as if the bad ones had not been there
    report = running.audit()
    assert report.is_clean, report
    assert report.dead_letters == len(BAD)
    assert report.predictions == 2 * len(BAD)


def test_an_unknown_category_and_a_category_as_a_number_of_the_wrong_kind_are_dead_letters(
    pipeline: MakeRunning,
) -> None:
    # Given a model with a category
    running = pipeline(
        net=GRU(input_size=3, hidden_size=4, output_size=1),
        inputs=[Category("weather", ("sunny", "1")), Number("t")],
        outputs=[Number("y")],
        partitions=1,
    )

    # When events name known ones (an integer counts as its text) and unknown ones
    running.publish_raw(
        [
            (b"k", b'{"weather": "sunny", "t": 1}'),
            (b"k", b'{"weather": 1, "t": 1.5}'),
            (b"k", b'{"weather": "snow", "t": 1}'),
            (b"k", b'{"weather": null, "t": 1}'),
        ]
    )
    running.burst()

    # Then the unknown ones are dead letters, the known ones predicted
    reader = DeadLetterReader(
        running.services.bootstrap_servers, running.input_topic, from_beginning=True
    )
    with reader:
        reasons = [letter.reason for letter in reader.read(timeout_s=20, max_count=2)]
    assert reasons[0] == "unknown-category"
    report = running.audit()
    assert report.is_clean and report.predictions == 2, report


def test_raw_bytes_of_the_wrong_length_are_dead_letters(pipeline: MakeRunning) -> None:
    running = pipeline(codec="float32", partitions=1)
    running.publish_raw([(b"k", b"\0" * 12), (b"k", b"\0" * 13), (b"k", b"\0" * 16)])
    running.burst()
    reader = DeadLetterReader(
        running.services.bootstrap_servers, running.input_topic, from_beginning=True
    )
    with reader:
        letters = reader.read(timeout_s=20, max_count=2)
    assert [letter.reason for letter in letters] == ["not-float32", "wrong-length"]
    assert running.audit().is_clean


def test_an_unreachable_broker_is_named(pipeline: MakeRunning) -> None:
    with pytest.raises(BrokerError, match=r"no Kafka broker answers at 127\.0\.0\.1:1 "):
        pipeline().burst(bootstrap_servers="127.0.0.1:1")


def test_an_unreachable_redis_is_named(pipeline: MakeRunning) -> None:
    with pytest.raises(StoreError, match=r"Redis at 127\.0\.0\.1:1: "):
        pipeline().burst(redis_url="redis://127.0.0.1:1/0", redis_wait_s=0.1)


def test_a_wrong_redis_password_is_an_error_that_does_not_tell_it(
    pipeline: MakeRunning, services: LocalServices
) -> None:
    url = services.redis_url.replace("redis://", "redis://nobody:secret@")
    with pytest.raises(StoreError) as error:
        pipeline().burst(redis_url=url)
    assert "secret" not in str(error.value)


def test_a_redis_that_evicts_is_refused(pipeline: MakeRunning, redis_client: redis.Redis) -> None:
    running = pipeline()
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(StoreError, match="allkeys-lru.*noeviction"):
            running.burst()
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")


def test_a_missing_topic_is_named_with_the_command_that_makes_it(pipeline: MakeRunning) -> None:
    with pytest.raises(ConfigError, match="topic nowhere is missing: livestep topics create"):
        pipeline().burst(output_topic="nowhere")


def test_an_unknown_or_reserved_kafka_option_is_named(pipeline: MakeRunning) -> None:
    with pytest.raises(ConfigError, match="no.such.option"):
        pipeline().burst(environment={"LIVESTEP_KAFKA_NO_SUCH_OPTION": "1"})
    with pytest.raises(ConfigError, match="isolation.level is the worker's own"):
        pipeline().burst(environment={"LIVESTEP_KAFKA_ISOLATION_LEVEL": "read_uncommitted"})


def test_more_partitions_than_when_the_states_were_written_are_refused(
    pipeline: MakeRunning, services: LocalServices
) -> None:
    # Given states written under four partitions
    running = pipeline()
    running.publish(100)
    running.burst()

    # When the topic grows to eight
    admin = AdminClient({"bootstrap.servers": services.bootstrap_servers})
    admin.create_partitions([NewPartitions(running.input_topic, 8)])[running.input_topic].result(10)

    # Then the worker says what that means and how to get out
    with pytest.raises(PartitionsChangedError, match="8 partitions.*had 4.*new topic"):
        running.burst()


def test_another_model_is_refused_until_the_operator_says_how_it_takes_over(
    pipeline: MakeRunning, tmp_path: Path
) -> None:
    # Given predictions of one model, and another model in its place
    running = pipeline()
    running.publish(400, keys=5)
    running.burst()
    save_model(GRU(input_size=3, hidden_size=8, output_size=2), tmp_path / "other")

    # When nothing says how, then it is refused and both ways are named
    with pytest.raises(OtherModelError, match=r"--on-new-model zeros.*--on-new-model warm"):
        running.burst(model=str(tmp_path / "other"))

    # When it is to be warm, then its first predictions have the whole history behind them
    running.publish(100, keys=5)
    running.burst(model=str(tmp_path / "other"), on_new_model="warm")
    warm = [p for p in running.predictions() if p.model != running.model.fingerprint]
    assert len(warm) == 100
    assert min(p.timestep for p in warm) > 40

    # When the first model comes back with zeros, then its keys begin anew
    running.publish(100, keys=5)
    running.burst(on_new_model="zeros")
    again = running.predictions()[-100:]
    assert {p.model for p in again} == {running.model.fingerprint}
    assert min(p.timestep for p in again) == 0

    # And a Redis that loses everything is healed from there, not from the log's start
    redis.Redis.from_url(running.services.redis_url).flushall()
    running.publish(50, keys=5)
    running.burst()
    assert max(p.timestep for p in running.predictions()) < 450
    last = running.predictions()[-50:]
    assert {p.timestep for p in last} & set(range(10, 60))


def test_history_that_is_no_longer_in_the_log_is_refused_or_accepted(
    pipeline: MakeRunning, redis_client: redis.Redis
) -> None:
    # Given a partition whose first events have been deleted, and a Redis that has lost its states
    running = pipeline(partitions=1)
    running.publish(100, keys=3)
    running.burst()
    admin = AdminClient({"bootstrap.servers": running.services.bootstrap_servers})
    kept = TopicPartition(running.input_topic, 0, 60)
    for future in admin.delete_records([kept]).values():
        future.result(10)
    redis_client.flushall()

    # When a worker starts, then it says from which offset on the history is missing
    with pytest.raises(HistoryMissingError, match="offsets 0 to 59 .*--accept-missing-history"):
        running.burst()

    # When that is accepted, then states begin with what is left
    running.publish(30, keys=3)
    running.burst(accept_missing_history=True)
    last = running.predictions()[-30:]
    assert sum(p.timestep for p in last) < 30 * 40
    assert min(p.timestep for p in last) > 3


def test_offsets_set_back_by_hand_under_the_states_are_refused(pipeline: MakeRunning) -> None:
    # Given a group that has gone, and states that have not
    running = pipeline()
    running.publish(100)
    running.burst()
    admin = AdminClient({"bootstrap.servers": running.services.bootstrap_servers})
    admin.delete_consumer_groups([running.group])[running.group].result(10)

    # When a worker starts, then it would step events twice: it refuses and says what can be done
    with pytest.raises(OffsetsResetError, match="stepped twice.*Set the group's offset back"):
        running.burst()


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"bootstrap_servers": "127.0.0.1:1"}, 4, "no Kafka broker answers"),
        ({"redis_url": "redis://127.0.0.1:1", "redis_wait_s": 0.1}, 5, "Redis at 127.0.0.1:1"),
        ({"model": "/nowhere"}, 6, "/nowhere"),
        ({"pool_slots": 7}, 3, "--pool-slots"),
        ({"guarantee": "maybe"}, 2, "maybe"),
    ],
)
def test_the_command_ends_with_one_line_and_its_own_exit_code(
    pipeline: MakeRunning, changes: dict[str, Any], code: int, text: str
) -> None:
    running = pipeline()
    worker = running.start(**changes)
    assert worker.wait(90) == code, worker.log_tail()
    assert text in worker.log_tail(3)
    assert "Traceback" not in worker.log_tail(1_000)


def test_check_says_what_is_wrong_and_exits_0_or_1(
    pipeline: MakeRunning, services: LocalServices
) -> None:
    running = pipeline()

    def check(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli", "check", *flags]
        command += ["--model", str(running.folder / "model")]
        command += ["--input-topic", running.input_topic]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=Path(__file__).parents[2],
            env={"PATH": "/usr/bin:/bin", **services.environment},
        )

    good = check("--output-topic", running.output_topic)
    assert good.returncode == 0, good.stdout + good.stderr
    assert good.stdout.count("ok    ") == 4

    bad = check("--output-topic", "nowhere", "--redis-url", "redis://127.0.0.1:1")
    assert bad.returncode == 1
    assert "topic nowhere is missing" in bad.stdout
    assert "Redis at 127.0.0.1:1" in bad.stdout
