"""`livestep check` examines the input topic: the partitions of its keys, and its events."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from livestep.pipeline.commands.check import check
from livestep.pipeline.kafka.partitioners import (
    Partitioner,
    crc32_partition,
    fnv1a_partition,
    murmur2_partition,
)
from livestep.pipeline.kafka.recent import RECENT_OFFSETS
from tests.services.conftest import MakeRunning
from tests.services.running import PARTITIONS, Running

KEYS = [f"machine-{number}" for number in range(40)]
GOOD, BAD = json.dumps({"x": [0.1, 0.2]}), json.dumps({"load": 0.1})


@dataclass(frozen=True)
class Checked:
    """The output of the command, by the name of each line, and its exit code."""

    exit_code: int
    verdicts: dict[str, str]
    texts: dict[str, str]


def checked(running: Running) -> Checked:
    settings = running.settings()
    names = ("model", "input_topic", "output_topic", "bootstrap_servers", "redis_url")
    arguments = [word for name in names for word in ("--" + name.replace("_", "-"), settings[name])]
    result = CliRunner().invoke(check, arguments)
    verdicts, texts = {}, {}
    for line in result.stdout.splitlines():
        name, _, text = line[8:].partition(": ")
        verdicts[name], texts[name] = line[:8].strip(), text
    return Checked(result.exit_code, verdicts, texts)


def produce(
    running: Running,
    records: Iterable[tuple[str, str]],
    partitioner: str = "murmur2_random",
    transaction: str | None = None,
) -> None:
    """Write records; a transaction ends as `transaction` says: "commit" or "abort"."""
    options = {
        "bootstrap.servers": running.services.bootstrap_servers,
        "partitioner": partitioner,
    }
    if transaction is not None:
        options["transactional.id"] = f"{running.input_topic}.{transaction}"
    producer = Producer(options)
    if transaction is not None:
        producer.init_transactions(30)
        producer.begin_transaction()
    for key, value in records:
        producer.produce(running.input_topic, value, key)
    assert producer.flush(30) == 0
    if transaction is not None:
        end = producer.commit_transaction if transaction == "commit" else producer.abort_transaction
        end(30)


@pytest.fixture
def running(pipeline: MakeRunning) -> Running:
    from livestep import GRU

    return pipeline(net=GRU(2, 3, 1))


def test_an_empty_topic_is_fine(running: Running) -> None:
    found = checked(running)
    assert found.exit_code == 0, found.texts
    assert found.texts["keys"] == found.texts["events"] == "no recent records"


@pytest.mark.parametrize(
    ("option", "ours", "is_default_elsewhere"),
    [
        ("murmur2_random", murmur2_partition, False),
        ("consistent_random", crc32_partition, True),
        ("fnv1a_random", fnv1a_partition, True),
    ],
)
def test_one_partitioner_of_librdkafka_is_recognized(
    running: Running, option: str, ours: Partitioner, is_default_elsewhere: bool
) -> None:
    produce(running, [(key, GOOD) for key in KEYS], option)
    misplaced = sum(
        ours(key.encode(), PARTITIONS) != murmur2_partition(key.encode(), PARTITIONS)
        for key in KEYS
    )
    found = checked(running)
    assert found.exit_code == 0
    assert found.verdicts["events"] == "ok"
    assert found.verdicts["keys"] == ("warning" if is_default_elsewhere else "ok")
    if is_default_elsewhere:
        assert f"{misplaced} of 40 keys" in found.texts["keys"]
        assert "All keys match" in found.texts["keys"]


def test_clients_with_two_partitioners_are_wrong(running: Running) -> None:
    produce(running, [(key, GOOD) for key in KEYS])
    produce(running, [(key, GOOD) for key in KEYS[:10]], "consistent_random")
    moved = [
        key
        for key in KEYS[:10]
        if crc32_partition(key.encode(), PARTITIONS) != murmur2_partition(key.encode(), PARTITIONS)
    ]
    found = checked(running)
    assert found.exit_code == 1
    assert found.verdicts["keys"] == "wrong"
    text = found.texts["keys"]
    assert text.startswith(f"{len(moved)} of 40 keys ({len(moved)} of 50 recent records)")
    assert f"{len(moved)} keys are in several partitions" in text
    assert "CRC32, librdkafka's default: set partitioner=murmur2_random" in text
    assert any(f"{key!r} is in partition" in text for key in moved)


def test_a_topic_whose_records_are_mostly_invalid_events_is_wrong(running: Running) -> None:
    produce(running, [(key, GOOD) for key in KEYS[:5]] + [(key, BAD) for key in KEYS])
    found = checked(running)
    assert found.exit_code == 1
    assert found.verdicts["events"] == "wrong"
    text = found.texts["events"]
    assert text.startswith("40 of 45 recent records would be dead letters: unknown-feature 40; ")
    assert f"{running.input_topic}/" in text
    assert "has no feature 'load'" in text


def test_a_few_bad_records_are_a_warning_with_their_reasons(running: Running) -> None:
    produce(running, [(key, GOOD) for key in KEYS] + [("machine-1", "{"), ("machine-2", BAD)])
    found = checked(running)
    assert found.exit_code == 0
    assert found.verdicts["events"] == "warning"
    assert "2 of 42 recent records would be dead letters" in found.texts["events"]
    assert "not-json 1" in found.texts["events"]


def test_only_the_last_records_count_and_none_of_an_aborted_transaction(running: Running) -> None:
    # Given bad records, good ones after them, and bad ones that were never committed
    key = KEYS[0]
    produce(running, [(key, BAD)] * (2 * RECENT_OFFSETS))
    produce(running, [(key, GOOD)] * RECENT_OFFSETS, transaction="commit")
    produce(running, [(key, BAD)] * 10, transaction="abort")

    # Then the good ones are read, except that aborted records and markers take up some offsets
    found = checked(running)
    assert found.exit_code == 0
    good = RECENT_OFFSETS - 10 - 2
    assert found.texts["events"] == f"all {good} recent records are events of the model"


def test_a_log_without_its_first_records_is_a_warning_before_a_first_run_only(
    running: Running,
) -> None:
    # Given a topic with retention, whose first 6 records of partition 1 are gone
    settings = {"retention.ms": "86400000"}
    resource = ConfigResource(ConfigResource.Type.TOPIC, running.input_topic)
    for name, value in settings.items():
        resource.add_incremental_config(
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        )
    admin = AdminClient({"bootstrap.servers": running.services.bootstrap_servers})
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result(30)
    produce(running, [("m-1", GOOD)] * 10)
    assert checked(running).texts["beginning"] == "the log has all that a first run reads"
    for deleted in admin.delete_records([TopicPartition(running.input_topic, 1, 6)]).values():
        deleted.result(30)

    # Then there is a warning for a group without commits, with the retention and the remedy
    found = checked(running)
    assert (found.exit_code, found.verdicts["beginning"]) == (0, "warning")
    text = found.texts["beginning"]
    assert "partition 1 begins at offset 6" in text
    assert "retention.ms=86400000" in text
    assert "--config retention.ms=-1" in text

    # When the group has run, then there is no warning
    running.burst()
    found = checked(running)
    assert (found.verdicts["beginning"], found.texts["beginning"]) == ("ok", "the group continues")


def test_a_compacted_input_topic_is_a_warning(running: Running) -> None:
    resource = ConfigResource(ConfigResource.Type.TOPIC, running.input_topic)
    resource.add_incremental_config(
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
    )
    admin = AdminClient({"bootstrap.servers": running.services.bootstrap_servers})
    for altered in admin.incremental_alter_configs([resource]).values():
        altered.result(30)
    found = checked(running)
    assert (found.exit_code, found.verdicts["topics"]) == (0, "warning")
    text = found.texts["topics"]
    assert f"{running.input_topic} ({PARTITIONS} partitions)" in text
    assert f"topic {running.input_topic} is compacted (cleanup.policy=compact)" in text


def test_checks_that_need_a_missing_model_or_broker_are_skipped(running: Running) -> None:
    produce(running, [(key, BAD) for key in KEYS])
    (running.folder / "model" / "model.json").unlink()
    found = checked(running)
    assert found.exit_code == 1
    assert found.verdicts["model"] == "wrong"
    assert found.verdicts["keys"] == "ok"
    assert (found.verdicts["events"], found.texts["events"]) == ("skipped", "needs model")
