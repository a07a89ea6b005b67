"""Questions to brokers that do not know their leaders yet."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from livestep.pipeline.kafka.patience import ask_again

UNSETTLED = [
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
]


class Broker:
    """Answers, after some errors."""

    def __init__(self, *codes: int) -> None:
        self.errors = [KafkaException(KafkaError(code)) for code in codes]

    def answer(self) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return 7


def test_a_question_is_asked_again_until_there_is_a_leader_or_coordinator() -> None:
    broker = Broker(*UNSETTLED)
    assert ask_again(broker.answer, 30.0) == 7
    assert broker.errors == []


def test_a_leader_that_does_not_come_in_time_is_an_error() -> None:
    with pytest.raises(KafkaException, match="NOT_LEADER_FOR_PARTITION"):
        ask_again(Broker(KafkaError.NOT_LEADER_FOR_PARTITION).answer, 0.0)


def test_what_is_refused_is_not_asked_again() -> None:
    broker = Broker(KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        ask_again(broker.answer, 30.0)
    assert len(broker.errors) == 1
