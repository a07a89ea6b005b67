"""The independent judge over some keys of a whole run; see `pipeline.audit.output_audit`.

A log of the benchmark is too long to be judged whole in the time that there is. So some keys are
judged, each with all its events and answers, and of all keys together the answers are counted.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message

from livestep import LoadedModel
from livestep.pipeline.audit.judge import Judge
from livestep.pipeline.audit.unrolled import unroll_log
from livestep.pipeline.records import FINISH_HEADER, dead_letter_topic
from tests.bench.bench_topics import PARTITIONS
from tests.bench.checker import Counts
from tests.support.rig.kafka_clients import make_reader

#: Most records that one look takes.
LOOK_RECORDS_MAX = 20_000

#: How long nothing may come before the end of a topic.
STALL_TIMEOUT_S = 30.0


class LogRecord(NamedTuple):
    """A record as the judge takes it, by the names of kafka-python's ConsumerRecord."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes
    value: bytes | None
    headers: list[tuple[str, Any]]


class ShapeCounts(NamedTuple):
    """What the judge found.

    Attributes:
        counts: As of the other rows.
        events: Events of the keys that were judged.
        examples: The first faults in words.
    """

    counts: Counts
    events: int
    examples: tuple[str, ...]


def audit_sample(
    bootstrap_servers: str,
    input_topic: str,
    output_topic: str,
    model: LoadedModel,
    *,
    one_key_in: int,
    answer_count: int,
) -> ShapeCounts:
    """Judge some keys, and count the answers to all.

    Args:
        bootstrap_servers: The broker.
        input_topic: What a worker has read to its end.
        output_topic: What it has written.
        model: What it has stepped.
        one_key_in: Of how many keys one is judged.
        answer_count: Events that are to be answered, whatever their keys.

    Raises:
        KafkaException: If the broker reports an error.
        TimeoutError: If a topic can't be read to its end.
    """
    answered = 0

    def count(message: Message) -> None:
        nonlocal answered
        # Of a generated sequence the last record counts.
        if not model.rules.is_generating or FINISH_HEADER in dict(_headers(message)):
            answered += 1

    def read(topic: str, see: Callable[[Message], None] = lambda _: None) -> Iterator[LogRecord]:
        return _read(bootstrap_servers, topic, one_key_in, see)

    judge = Judge(input_topic, PARTITIONS, model)
    for record in read(dead_letter_topic(input_topic)):
        judge.take_dead_letter(record)
    judge.take_events(unroll_log(read(input_topic), model, judge.dead, lambda *_: None))
    for record in read(output_topic, count):
        judge.take_prediction(record)
    report = judge.report()
    counts = Counts(
        wrong=report.different + report.out_of_order,
        missing=max(report.lost, answer_count - answered),
        duplicate=max(report.repeated, answered - answer_count),
        deviation=report.max_difference,
    )
    return ShapeCounts(counts, report.events, tuple(map(str, report.examples)))


def _read(
    bootstrap_servers: str, topic: str, one_key_in: int, see: Callable[[Message], None]
) -> Iterator[LogRecord]:
    """Read a topic to its end; show all messages, yield those of the keys that are judged."""
    consumer = make_reader(bootstrap_servers, topic, PARTITIONS, **{"enable.partition.eof": True})
    try:
        open_partitions = set(range(PARTITIONS))
        while open_partitions:
            first = consumer.poll(STALL_TIMEOUT_S)
            if first is None:
                raise TimeoutError(f"{topic} can't be read to its end: is a transaction open?")
            for message in [first, *consumer.consume(LOOK_RECORDS_MAX, 0)]:
                error = message.error()
                if error is None:
                    see(message)
                    key = message.key() or b""
                    if zlib.crc32(key) % one_key_in == 0:
                        yield _record(message, key)
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                    open_partitions.discard(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()


def _record(message: Message, key: bytes) -> LogRecord:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None
    return LogRecord(
        topic, partition, offset, message.timestamp()[1], key, message.value(),
        _headers(message),
    )  # fmt: skip


def _headers(message: Message) -> list[tuple[str, Any]]:
    headers = message.headers() or []
    assert isinstance(headers, list), "only a message that is to be sent has a dictionary"
    return headers
