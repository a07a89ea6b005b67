"""What becomes of a commit after one that has failed; the rest is tested on a real broker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from livestep.pipeline.engine.log import AbortedError
from livestep.pipeline.kafka import transaction
from livestep.pipeline.kafka.transaction import Transactions


class FailingOnce:
    """A producer whose first record is not delivered."""

    def __init__(self, options: dict[str, Any], **_: Any) -> None:
        self._on_delivery = options["on_delivery"]
        self._waiting: list[str] = []
        self._fails = True

    def produce(self, topic: str, *_: Any) -> None:
        self._waiting.append(topic)

    def flush(self, _: float) -> int:
        for topic in self._waiting:
            if self._fails:
                error = KafkaError(KafkaError.REQUEST_TIMED_OUT)
                self._on_delivery(error, SimpleNamespace(topic=lambda topic=topic: topic))
            self._fails = False
        self._waiting.clear()
        return 0

    def purge(self) -> None:
        self._waiting.clear()


def test_at_least_once_a_failed_delivery_does_not_fail_a_commit_that_sends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a batch whose prediction was not delivered
    monkeypatch.setattr(transaction, "Producer", FailingOnce)
    transactions = Transactions({})
    committed: list[TopicPartition] = []

    def commit(offsets: list[TopicPartition], **_: Any) -> list[TopicPartition]:
        committed.extend(offsets)
        return offsets

    consumer = SimpleNamespace(commit=commit)
    offset = TopicPartition("events", 0, 5)
    transactions.send("predictions", [(b"key", b"{}", 0, 0, [])])
    with pytest.raises(AbortedError):
        transactions.commit(consumer, [offset])

    # When the next commit has no prediction, then it is done
    transactions.commit(consumer, [offset])
    assert committed == [offset]
