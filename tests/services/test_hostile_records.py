"""The table of hostile records on real Kafka and Redis, and records that only Kafka can carry."""

from __future__ import annotations

import time
from typing import Any

import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer

from livestep import DeadLetterReader
from tests.hostile.hostile_records import GOOD, KINDS, PREDICTED, TAKEN, VALUE_BYTES_MAX, records_of
from tests.services.conftest import MakeRunning
from tests.services.running import Running


def produce(running: Running, records: list[tuple[Any, Any, Any, int]], **options: Any) -> None:
    """Publish keys, values, headers and times to partition 0, and wait until all are there."""
    producer = Producer(
        {
            "bootstrap.servers": running.services.bootstrap_servers,
            "enable.idempotence": True,  # or a retry would change the order
            "message.max.bytes": 2 << 20,
            **options,
        }
    )
    failed: list[Any] = []

    def report(error: Any, message: Any) -> None:
        if error is not None:
            failed.append(error)

    if "transactional.id" in options:
        producer.init_transactions(30)
        producer.begin_transaction()
    for key, value, headers, time_ms in records:
        producer.produce(running.input_topic, value, key, 0, report, None, time_ms, list(headers))
        producer.poll(0)
    assert producer.flush(60) == 0 and not failed, failed
    if "transactional.id" in options:
        producer.abort_transaction(30)
    producer.close()


def reasons(running: Running, count: int) -> dict[int, str]:
    """Read the reason of each dead letter, by the offset of its record."""
    servers = running.services.bootstrap_servers
    with DeadLetterReader(servers, running.input_topic, from_beginning=True) as reader:
        letters = reader.read(timeout_s=60, max_count=count)
    return {letter.source.offset: letter.reason for letter in letters}


@pytest.mark.parametrize("name", KINDS)
def test_each_record_has_its_outcome_and_the_audit_is_clean(
    name: str, pipeline: MakeRunning
) -> None:
    # Given each record of the table that Kafka takes, between good ones
    kind = KINDS[name]
    running = pipeline(net=kind.net(), partitions=1, **kind.options)
    rows = [row for row, _ in records_of(kind) if not row.is_for_memory_only]
    now_ms = int(time.time() * 1000)
    produce(
        running, [(row.key, row.value, row.headers, row.timestamp_ms or now_ms) for row in rows]
    )

    # When a worker steps them
    running.burst(value_bytes_max=VALUE_BYTES_MAX)

    # Then the dead letters are those of the table, and no neighbour is harmed
    wanted = {
        offset: row.outcome
        for offset, row in enumerate(rows)
        if row.outcome not in (PREDICTED, TAKEN)
    }
    report = running.audit()
    assert report.is_clean, report
    assert report.dead_letters == len(wanted)
    assert reasons(running, len(wanted)) == wanted


class _RawName(str):
    """A header's name whose bytes in the log are not UTF-8."""

    def encode(self, *_: Any, **__: Any) -> bytes:
        return b"tr\xffce"


def test_a_header_whose_name_is_not_utf_8_is_a_dead_letter(pipeline: MakeRunning) -> None:
    # Given such a record between good ones
    running = pipeline(partitions=1)
    running.publish_raw([(b"k", GOOD)])
    sender = KafkaProducer(bootstrap_servers=running.services.bootstrap_servers)
    headers = [(_RawName("x"), b"1"), ("good", b"2")]
    sender.send(running.input_topic, GOOD, key=b"k", headers=headers).get(30)
    sender.close()
    running.publish_raw([(b"k", GOOD)])

    # When a worker steps them, then it alone is put aside, and its key continues
    running.burst()
    assert reasons(running, 1) == {1: "bad-header"}
    assert [one.timestep for one in running.predictions()] == [0, 1]


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_batches_are_read_and_their_bad_records_are_dead_letters(
    compression: str, pipeline: MakeRunning
) -> None:
    running = pipeline(partitions=1)
    records = [(b"k", GOOD if i % 10 else b"{", [], 0) for i in range(100)]
    produce(running, records, **{"compression.type": compression, "linger.ms": 50})
    running.burst()
    report = running.audit()
    assert report.is_clean and (report.predictions, report.dead_letters) == (90, 10), report


def test_records_of_an_aborted_transaction_are_nobodys(pipeline: MakeRunning) -> None:
    # Given good and bad records whose producer has taken them back, between good ones
    running = pipeline(partitions=1)
    running.publish_raw([(b"k", GOOD)])
    taken_back = [(b"k", GOOD, [], 0), (b"k", b"{", [], 0), (b"k", None, [], 0)]
    produce(running, taken_back, **{"transactional.id": running.input_topic})
    running.publish_raw([(b"k", GOOD)])

    # When a worker steps what is left, then nothing of them is seen
    running.burst()
    report = running.audit()
    assert report.is_clean and (report.predictions, report.dead_letters) == (2, 0), report
