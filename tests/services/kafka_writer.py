"""A client with transactions of its own on real Kafka."""

from __future__ import annotations

from collections.abc import Callable

from confluent_kafka import Producer

from tests.support.helpers import wait_until


class KafkaWriter:
    """`Writer` of `log_places` on a real broker.

    Args:
        producer: Transactional, and ready.
        topic: Where to.
        log_end: Asks for the end of one of its partitions, markers counted.
    """

    def __init__(self, producer: Producer, topic: str, log_end: Callable[[int], int]) -> None:
        self._producer, self._topic, self._log_end = producer, topic, log_end
        self._ends: dict[int, int] = {}
        self._is_open = False

    def send(self, *values: bytes, partition: int = 0) -> None:
        if not self._is_open:
            self._producer.begin_transaction()
            self._is_open = True
        for value in values:
            self._producer.produce(self._topic, value, b"k", partition)
        assert self._producer.flush(30) == 0
        self._ends[partition] = self._log_end(partition)

    def end(self, *, is_committed: bool) -> None:
        if is_committed:
            self._producer.commit_transaction(30)
        else:
            self._producer.abort_transaction(30)
        self._is_open = False
        ends, self._ends = self._ends, {}
        for partition, end in ends.items():
            wait_until(
                lambda p=partition, e=end: self._log_end(p) > e,
                60,
                "the transaction's marker",
            )
