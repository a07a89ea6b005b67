"""Reads a range of one partition, independently of the consumer group."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.error_codes import END_OF_PARTITION, text_of
from livestep.pipeline.kafka.polling import poll_together
from livestep.pipeline.types import Offset, Record

_log = logging.getLogger("livestep.transport")


class KafkaReplay:
    """`Replay` with a separate consumer, outside the group.

    Args:
        options: librdkafka options.
        topic: Topic.
        partition: Partition.
        start: First offset to read.
        end: Offset to stop before.
        explain: Raises a more specific error for an error of reading, if it can.
    """

    def __init__(
        self,
        options: dict[str, Any],
        topic: str,
        partition: int,
        start: Offset,
        end: Offset,
        *,
        explain: Callable[[KafkaError, Any], None],
    ) -> None:
        self._explain = explain
        self._topic, self._group = topic, options["group.id"]
        self._end = end
        self._is_done = start >= end
        self._consumer = Consumer(options, logger=_log)
        self._consumer.assign([TopicPartition(topic, partition, start)])

    @property
    def is_done(self) -> bool:
        """See `Replay.is_done`."""
        return self._is_done

    def read(self, records_max: int, timeout_s: float) -> list[Record]:
        """See `Replay.read`."""
        if self._is_done:
            return []
        records: list[Record] = []
        for message in poll_together(self._consumer, records_max, timeout_s):
            error = message.error()
            if error is not None and error.code() == END_OF_PARTITION:
                # After the last record, only transaction markers precede the committed offset.
                self._is_done = True
            elif error is not None and not error.retriable():
                self._explain(error, message)
                raise BrokerError(
                    f"replay of topic {self._topic} as group {self._group}: {text_of(error)}"
                )
            elif error is None and message.offset() < self._end:
                records.append(message)
            if error is None and message.offset() + 1 >= self._end:
                self._is_done = True
        return records

    def close(self) -> None:
        """See `Replay.close`."""
        self._consumer.close()
