"""The ends of a partition, whose leader may not be known yet."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from pipeline.errors import BrokerError
from pipeline.transport.bounds import read_bounds


class Broker:
    """Answers as a consumer, after some errors."""

    def __init__(self, *codes: int) -> None:
        self.errors = [KafkaException(KafkaError(code)) for code in codes]

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
        assert (place.topic, place.partition) == ("events", 3)
        if self.errors:
            raise self.errors.pop(0)
        return 5, 7


def test_a_new_partition_is_asked_again_until_it_has_a_leader() -> None:
    broker = Broker(KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
    assert read_bounds(broker, "events", 3, 30.0) == (5, 7)  # type: ignore[arg-type]


def test_a_leader_that_does_not_come_in_time_is_an_error() -> None:
    broker = Broker(KafkaError.NOT_LEADER_FOR_PARTITION)
    with pytest.raises(BrokerError, match="ends of partition 3: "):
        read_bounds(broker, "events", 3, 0.0)  # type: ignore[arg-type]


def test_what_is_refused_is_not_asked_again() -> None:
    broker = Broker(KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(BrokerError, match="lists the rights"):
        read_bounds(broker, "events", 3, 30.0)  # type: ignore[arg-type]
    assert len(broker.errors) == 1
