"""Polling of everything that has arrived, and the consumer's lag."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from confluent_kafka import Consumer, KafkaError, TopicPartition

from livestep.pipeline.columns.log_records import Records, records_of
from livestep.pipeline.kafka.native_client import native_handle
from livestep.pipeline.native import native
from livestep.pipeline.types import Offset

#: Seconds between two looks for a rebalance while the native reader waits for records.
_LOOK_S = 0.025


class Notice(NamedTuple):
    """What a consumer returns in place of a record: the end of a partition, or an error."""

    partition: int
    offset: int
    error: KafkaError


class Polled(NamedTuple):
    """What one poll has returned."""

    records: Records
    notices: list[Notice]


class Reader(Protocol):
    """Reads the records of one topic from a consumer."""

    def add(self, partition: int) -> None:
        """Prepare for a partition that is about to be assigned."""

    def remove(self, partition: int) -> None:
        """Let go of a partition that was unassigned."""

    def poll(self, records_max: int, timeout_s: float) -> Polled:
        """Wait for a first record or notice, and return it with all others that have arrived."""

    def close(self) -> None:
        """Let go of the consumer; call it before the consumer is closed."""


def open_reader(consumer: Consumer, topic: str) -> Reader:
    """Return the native reader, or the one in Python."""
    handle = native_handle(consumer)
    if handle is None:
        return MessageReader(consumer, topic)
    return QueueReader(consumer, topic, handle)


class MessageReader:
    """`Reader` in Python: an object for each record.

    Args:
        consumer: librdkafka's consumer.
        topic: Its topic.
    """

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic

    def add(self, partition: int) -> None:
        """See `Reader.add`."""

    def remove(self, partition: int) -> None:
        """See `Reader.remove`."""

    def poll(self, records_max: int, timeout_s: float) -> Polled:
        """See `Reader.poll`."""
        first: Any = self._consumer.poll(timeout_s)
        messages = [] if first is None else [first]
        if messages and records_max > 1:
            # consume(n, 0) returns what has arrived; with a timeout it would wait for n messages.
            messages += self._consumer.consume(records_max - 1, 0)
        notices = [_notice(message) for message in messages if message.error() is not None]
        if notices:
            messages = [message for message in messages if message.error() is None]
        return Polled(records_of(self._topic, messages), notices)

    def close(self) -> None:
        """See `Reader.close`."""


class QueueReader:
    """`Reader` on the native queue of the assigned partitions.

    The consumer's own queue holds rebalances and errors of the client, and no record. So reading
    the records never rebalances.

    Args:
        consumer: librdkafka's consumer.
        topic: Its topic.
        handle: Its `native_handle`.
    """

    def __init__(self, consumer: Consumer, topic: str, handle: int) -> None:
        assert native is not None
        self._consumer = consumer
        self._topic = topic
        self._partitions: set[int] = set()
        self._queue = native.PartitionQueue(handle)
        self._is_closed = False

    def add(self, partition: int) -> None:
        """See `Reader.add`."""
        # Closing the consumer may complete a rebalance: nothing is read then.
        if not self._is_closed:
            self._queue.add(self._topic, partition)
            self._partitions.add(partition)

    def remove(self, partition: int) -> None:
        """See `Reader.remove`."""
        # Closing the consumer unassigns its partitions, and then they are no longer here.
        if partition in self._partitions:
            self._partitions.remove(partition)
            self._queue.remove(self._topic, partition)

    def poll(self, records_max: int, timeout_s: float) -> Polled:
        """See `Reader.poll`."""
        until_s = time.monotonic() + timeout_s
        while True:
            remaining_s = max(0.0, until_s - time.monotonic())
            # Without partitions there is only the assignment to wait for.
            notices = self._look(0.0 if self._partitions else remaining_s)
            wait_s = 0.0 if notices or not self._partitions else min(remaining_s, _LOOK_S)
            columns, found = self._queue.poll(records_max, round(wait_s * 1000))
            notices += [
                Notice(partition, offset, KafkaError(code, text))
                for partition, offset, code, text in found
            ]
            records = Records(self._topic, *columns)
            if notices or len(records) or time.monotonic() >= until_s:
                return Polled(records, notices)

    def _look(self, timeout_s: float) -> list[Notice]:
        """Run the callbacks of rebalances, and return the errors of the client."""
        notices = []
        while (message := self._consumer.poll(timeout_s)) is not None:
            partition = message.partition()
            if message.error() is None and partition not in self._partitions:
                # The listener has failed to take it over, so confluent-kafka has assigned it: the
                # log raises that failure, and nothing of the partition is processed.
                timeout_s = 0.0
                continue
            if message.error() is None:
                place = f"{message.partition()}/{message.offset()}"
                raise RuntimeError(f"record {place} has arrived in the consumer's own queue")
            notices.append(_notice(message))
            timeout_s = 0.0
        return notices

    def close(self) -> None:
        """See `Reader.close`; a queue that partitions are forwarded to keeps a consumer open."""
        for partition in sorted(self._partitions):
            self.remove(partition)
        self._queue.close()
        self._is_closed = True


def _notice(message: Any) -> Notice:
    return Notice(message.partition(), message.offset(), message.error())


class Polling:
    """Polls in one thread, and reports the lag to another.

    Any call of a consumer blocks during a rebalance, in which a worker may wait for Redis. So the
    other thread calls the consumer only between polls.

    Args:
        consumer: librdkafka's consumer.
        reader: Reads from it.
        topic: Its topic.
        positions: Position of each assigned partition, updated by the polling thread.
    """

    def __init__(
        self, consumer: Consumer, reader: Reader, topic: str, positions: Mapping[int, Offset]
    ) -> None:
        self._consumer = consumer
        self._reader = reader
        self._topic = topic
        self._positions = positions
        self._is_polling = threading.Lock()
        self._lag = 0

    def poll(self, records_max: int, timeout_s: float) -> Polled:
        """See `Reader.poll`."""
        with self._is_polling:
            polled = self._reader.poll(records_max, timeout_s)
            # An idle worker polls nearly all the time, and blocks `lag`.
            if not len(polled.records):
                self._lag = self._count()
        return polled

    def lag(self) -> int:
        """Return the number of waiting offsets, as of the last fetch; never blocks."""
        if self._is_polling.acquire(blocking=False):
            try:
                self._lag = self._count()
            finally:
                self._is_polling.release()
        return self._lag

    def _count(self) -> int:
        total = 0
        for partition, position in dict(self._positions).items():
            _, high = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), cached=True
            )
            total += max(0, high - position)
        return total
