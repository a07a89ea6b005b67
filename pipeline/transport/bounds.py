"""Where a partition begins and ends, also while it has no leader."""

from __future__ import annotations

import tenacity
from confluent_kafka import Consumer, KafkaException, TopicPartition

from pipeline.batch import Offset
from pipeline.errors import BrokerError
from pipeline.transport.codes import WITHOUT_LEADER, text_of

#: Seconds between two questions to brokers that do not know the leader.
_PAUSE_S = 0.1


def read_bounds(
    consumer: Consumer, topic: str, partition: int, timeout_s: float
) -> tuple[Offset, Offset]:
    """Ask for the first offset that the log has, and the one after its last.

    A partition that is new, or whose leader has just moved, has none that answers for a moment:
    librdkafka does not ask again, so this does.

    Args:
        consumer: Any.
        topic: Topic.
        partition: Partition.
        timeout_s: For one question, and for a leader.

    Raises:
        BrokerError: If the broker refuses, or there is no leader in time.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_without_leader),
        stop=tenacity.stop_after_delay(timeout_s),
        wait=tenacity.wait_fixed(_PAUSE_S),
        reraise=True,
    )
    place = TopicPartition(topic, partition)
    try:
        low, high = retrying(consumer.get_watermark_offsets, place, timeout=timeout_s)
    except KafkaException as error:
        raise BrokerError(f"ends of partition {partition}: {text_of(error.args[0])}") from error
    return Offset(low), Offset(high)


def _is_without_leader(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in WITHOUT_LEADER
