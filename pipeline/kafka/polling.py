"""Polling of everything that has arrived, and the consumer's lag."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from livestep.pipeline.types import Offset


def poll_together(consumer: Consumer, records_max: int, timeout_s: float) -> list[Any]:
    """Wait for a first message, and return it with all others that have arrived.

    Args:
        consumer: librdkafka's consumer.
        records_max: Maximum number of messages to return.
        timeout_s: How long to wait for the first.
    """
    first = consumer.poll(timeout_s)
    if first is None:
        return []
    if records_max == 1:
        return [first]
    # consume(n, 0) returns what has arrived; with a timeout it would wait for n messages.
    return [first, *consumer.consume(records_max - 1, 0)]


class Polling:
    """Polls in one thread, and reports the lag to another.

    Any call of a consumer blocks during a rebalance, in which a worker may wait for Redis. So the
    other thread calls the consumer only between polls.

    Args:
        consumer: librdkafka's consumer.
        topic: Its topic.
        positions: Position of each assigned partition, updated by the polling thread.
    """

    def __init__(self, consumer: Consumer, topic: str, positions: Mapping[int, Offset]) -> None:
        self._consumer = consumer
        self._topic = topic
        self._positions = positions
        self._is_polling = threading.Lock()
        self._lag = 0

    def poll(self, records_max: int, timeout_s: float) -> list[Any]:
        """See `poll_together`."""
        with self._is_polling:
            messages = poll_together(self._consumer, records_max, timeout_s)
            if not messages:  # an idle worker polls nearly all the time, and blocks `lag`
                self._lag = self._count()
        return messages

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
