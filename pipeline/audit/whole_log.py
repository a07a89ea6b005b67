"""Reads a whole topic, from its first record to its end, with kafka-python."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition

from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.connection import CONNECT_TIMEOUT_S, broker_errors, connect
from livestep.pipeline.kafka.topic_setup import committed_offsets, end_offsets

#: How long to wait for the next record: longer than the time-out of a transaction that a killed
#: worker left open, since the broker holds back all records behind it.
STALL_TIMEOUT_S = 90.0


class LogBounds(NamedTuple):
    """Offsets of one partition.

    Attributes:
        begin: Of the oldest record that the topic still has.
        committed: What the group has committed; None if nothing.
        end: Behind the newest record.
    """

    begin: int
    committed: int | None
    end: int


def log_bounds(bootstrap_servers: str, topic: str, group: str | None) -> dict[int, LogBounds]:
    """Return where each partition begins and ends, and how far a group has read it.

    Args:
        bootstrap_servers: host:port[,host:port...].
        topic: Its name.
        group: Consumer group, such as a worker's; None asks for no commits.

    Raises:
        BrokerError: If no broker answers, or it refuses.
        MissingTopicError: If the topic doesn't exist.
    """
    ends = end_offsets(bootstrap_servers, topic)
    committed = {}
    if group is not None:
        committed = committed_offsets(bootstrap_servers, group, topic, list(ends))
    consumer = connect(KafkaConsumer, bootstrap_servers, enable_auto_commit=False)
    with contextlib.closing(consumer), broker_errors(f"reading the offsets of topic {topic!r}"):
        begins = _begins(consumer, topic, list(ends))
    return {
        partition: LogBounds(begins[partition], committed.get(partition), end)
        for partition, end in ends.items()
    }


def read_whole_log(
    bootstrap_servers: str,
    topic: str,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    stall_timeout_s: float = STALL_TIMEOUT_S,
) -> Iterator[Any]:
    """Read all committed records that a topic has at the time of the call.

    Waits for open transactions: records that they commit are read, aborted ones are not.

    Args:
        bootstrap_servers: host:port[,host:port...].
        topic: Its name.
        on_progress: Called after each fetch with the offsets read and the total.
        stall_timeout_s: How long to wait for the next record.

    Yields:
        record: kafka-python's ConsumerRecord; in order within a partition.

    Raises:
        BrokerError: If no broker answers, or a transaction remains open.
        MissingTopicError: If the topic doesn't exist.
    """
    ends = {
        TopicPartition(topic, partition): end
        for partition, end in end_offsets(bootstrap_servers, topic, is_committed=False).items()
    }
    consumer = connect(
        KafkaConsumer,
        bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_poll_records=10_000,
        max_partition_fetch_bytes=4 * 1024 * 1024,
    )
    with contextlib.closing(consumer), broker_errors(f"reading topic {topic!r}"):
        consumer.assign(list(ends))
        found = _begins(consumer, topic, [place.partition for place in ends])
        begins = {place: found[place.partition] for place in ends}
        for partition, begin in begins.items():
            consumer.seek(partition, begin)
        yield from _until_ends(consumer, begins, ends, on_progress, stall_timeout_s)


def _begins(consumer: Any, topic: str, partitions: list[int]) -> dict[int, int]:
    places = [TopicPartition(topic, partition) for partition in partitions]
    found = consumer.beginning_offsets(places, timeout_ms=CONNECT_TIMEOUT_S * 1000)
    return {place.partition: begin for place, begin in found.items()}


def _until_ends(
    consumer: Any,
    begins: dict[TopicPartition, int],
    ends: dict[TopicPartition, int],
    on_progress: Callable[[int, int], None] | None,
    stall_timeout_s: float,
) -> Iterator[Any]:
    """Poll until each partition is read to its end; later records are left out."""
    total = sum(ends[partition] - begin for partition, begin in begins.items())
    done = 0
    moved_s = time.monotonic()
    while done < total:
        polled = consumer.poll(timeout_ms=500)
        for partition, records in polled.items():
            for record in records:
                if record.offset < ends[partition]:
                    yield record
        # Positions, not records: aborted ones and transaction markers have offsets, too.
        position = sum(
            min(consumer.position(partition), end) - begins[partition]
            for partition, end in ends.items()
        )
        if position > done:
            done, moved_s = position, time.monotonic()
            if on_progress is not None:
                on_progress(done, total)
        elif time.monotonic() - moved_s > stall_timeout_s:
            raise BrokerError(
                f"topic {consumer.assignment().pop().topic!r} could not be read to its end within "
                f"{stall_timeout_s:g} s: a transaction on it is still open"
            )
