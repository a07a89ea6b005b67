"""A poll of all that has arrived, and how far behind it is."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from livestep.pipeline.types import Offset


def poll_together(consumer: Consumer, records_max: int, timeout_s: float) -> list[Any]:
    """Wait for a first message, and take what has arrived with it.

    Args:
        consumer: librdkafka's.
        records_max: How many to take at most.
        timeout_s: How long to wait for the first.
    """
    first = consumer.poll(timeout_s)
    if first is None:
        return []
    if records_max == 1:
        return [first]
    # consume(n, 0) takes what is there; with a time-out it would wait for n.
    return [first, *consumer.consume(records_max - 1, 0)]


class Polling:
    """Polls for one thread, and counts for another how many events wait.

    Whoever asks a consumer for anything during a rebalance waits until it is over, and within it a
    worker may wait for Redis: so the other thread asks between polls only.

    Args:
        consumer: librdkafka's.
        topic: Its topic.
        positions: Of each assigned partition, kept by the thread that polls.
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
            if not messages:  # an idle worker does little else than poll
                self._lag = self._count()
        return messages

    def lag(self) -> int:
        """Count what waits, from what the broker said with the last fetch; never waits itself."""
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
