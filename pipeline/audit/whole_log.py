"""Reading a topic whole, from its first record to its end, with kafka-python."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.connection import CONNECT_TIMEOUT_S, broker_errors, connect
from livestep.pipeline.kafka.topic_setup import end_offsets

#: How long nothing may come before the end is reached: longer than the time-out of a transaction
#: that a killed worker left open, since the broker holds back all records behind it.
STALL_TIMEOUT_S = 90.0


def read_whole_log(
    bootstrap_servers: str,
    topic: str,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    stall_timeout_s: float = STALL_TIMEOUT_S,
) -> Iterator[Any]:
    """Read all committed records that a topic has when this is called.

    Waits for transactions that are open: what they commit is read, what they abort is not.

    Args:
        bootstrap_servers: host:port[,host:port...].
        topic: Its name.
        on_progress: Called with offsets done and offsets in all, after each fetch.
        stall_timeout_s: How long to wait for what doesn't come.

    Yields:
        record: kafka-python's ConsumerRecord; in order within a partition.

    Raises:
        BrokerError: If no broker answers, or a transaction stays open.
        MissingTopicError: If there is no such topic.
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
        begins = consumer.beginning_offsets(list(ends), timeout_ms=CONNECT_TIMEOUT_S * 1000)
        for partition, begin in begins.items():
            consumer.seek(partition, begin)
        yield from _until_ends(consumer, begins, ends, on_progress, stall_timeout_s)


def _until_ends(
    consumer: Any,
    begins: dict[TopicPartition, int],
    ends: dict[TopicPartition, int],
    on_progress: Callable[[int, int], None] | None,
    stall_timeout_s: float,
) -> Iterator[Any]:
    """Poll until each partition is read to its end; records behind it are left out."""
    total = sum(ends[partition] - begin for partition, begin in begins.items())
    done = 0
    moved_s = time.monotonic()
    while done < total:
        polled = consumer.poll(timeout_ms=500)
        for partition, records in polled.items():
            for record in records:
                if record.offset < ends[partition]:
                    yield record
        # Positions, not records: aborted ones and the marks of transactions have offsets, too.
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
