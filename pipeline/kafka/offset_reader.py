"""Offsets that the brokers know: committed ones, and the first and last of a partition."""

from __future__ import annotations

from collections.abc import Collection

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaException, TopicPartition

from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.error_codes import text_of
from livestep.pipeline.kafka.patience import ask_again
from livestep.pipeline.process.deadline import Deadline
from livestep.pipeline.types import Offset

#: Seconds for one request to the broker. For committed offsets the session timeout is added: within
#: it, the broker aborts the open transaction of a dead worker.
REQUEST_TIMEOUT_S = 20.0


class OffsetReader:
    """Reads offsets of one topic with a consumer, and retries while the brokers are unsettled.

    Args:
        consumer: librdkafka's consumer.
        topic: The topic.
        deadline: Deadline of a stop, which limits requests to the broker.
    """

    def __init__(self, consumer: Consumer, topic: str, deadline: Deadline) -> None:
        self._consumer = consumer
        self._topic = topic
        self._deadline = deadline

    def committed(
        self, partitions: Collection[int], group: str, session_s: float
    ) -> dict[int, tuple[Offset | None, str]]:
        """See `Log.committed`; with read_committed, the broker waits for open transactions.

        Args:
            partitions: Indices.
            group: Name of the consumer's group, for errors.
            session_s: Session timeout, also that of a transaction.

        Raises:
            BrokerError: If the brokers refuse, or don't answer in time.
        """
        wanted = [TopicPartition(self._topic, partition) for partition in partitions]
        timeout_s = session_s + REQUEST_TIMEOUT_S
        work_s = self._deadline.work_s
        try:
            found = ask_again(
                lambda: self._consumer.committed(wanted, timeout=work_s(timeout_s)),
                REQUEST_TIMEOUT_S,
                self._deadline.has_begun,
            )
        except KafkaException as error:
            raise BrokerError(
                f"committed offsets of group {group}: {text_of(error.args[0])}"
            ) from error
        answer: dict[int, tuple[Offset | None, str]] = {}
        for one in found:
            if one.error is not None:
                where = f"committed offset of partition {one.partition}"
                raise BrokerError(f"{where} of group {group}: {text_of(one.error)}")
            offset = None if one.offset == OFFSET_INVALID else Offset(one.offset)
            answer[one.partition] = (offset, one.metadata or "")
        return answer

    def bounds(self, partition: int) -> tuple[Offset, Offset]:
        """See `Log.bounds`.

        Raises:
            BrokerError: If the brokers refuse, or don't answer in time.
        """
        place = TopicPartition(self._topic, partition)
        ends, work_s = self._consumer.get_watermark_offsets, self._deadline.work_s
        try:
            low, high = ask_again(
                lambda: ends(place, timeout=work_s(REQUEST_TIMEOUT_S)),
                REQUEST_TIMEOUT_S,
                self._deadline.has_begun,
            )
        except KafkaException as error:
            text = text_of(error.args[0])
            raise BrokerError(f"offsets of partition {partition}: {text}") from error
        return Offset(low), Offset(high)
