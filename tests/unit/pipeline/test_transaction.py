"""Sending and committing where a producer fails or is full; the rest is tested on a real broker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from livestep.pipeline.engine.log import AbortedError
from livestep.pipeline.errors import BrokerError
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


class FullAtFirst:
    """A producer whose queue has room again only after it was polled a few times."""

    def __init__(self, options: dict[str, Any], **_: Any) -> None:
        self.sent: list[Any] = []
        self.polls_until_room = 3

    def produce(self, topic: str, value: Any, key: Any, *_: Any) -> None:
        if self.sent and self.polls_until_room:
            raise BufferError
        self.sent.append((topic, key, value))

    def poll(self, _: float) -> None:
        self.polls_until_room -= 1


def sent_through(monkeypatch: pytest.MonkeyPatch, producer: FullAtFirst) -> None:
    monkeypatch.setattr(transaction, "Producer", lambda *_, **__: producer)
    records = [(b"key", b"%d" % number, 0, 0, []) for number in range(3)]
    Transactions({}).send("predictions", records)


def test_a_full_send_queue_is_waited_for_and_no_record_is_lost_or_reordered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    producer = FullAtFirst({})
    sent_through(monkeypatch, producer)
    assert producer.sent == [("predictions", b"key", b"%d" % number) for number in range(3)]


def test_a_send_queue_that_stays_full_is_an_error_that_names_the_topic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    producer = FullAtFirst({})
    producer.polls_until_room = 1_000_000
    with pytest.raises(BrokerError, match="topic predictions could not be sent"):
        sent_through(monkeypatch, producer)
