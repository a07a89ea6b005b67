"""Reads a range of one partition, independently of the consumer group."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from livestep.pipeline.columns.log_records import Records, records_of
from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.error_codes import END_OF_PARTITION, text_of
from livestep.pipeline.kafka.polling import Notice, open_reader
from livestep.pipeline.types import Offset

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
        explain: Callable[[Notice], None],
    ) -> None:
        self._explain = explain
        self._topic, self._group = topic, options["group.id"]
        self._end = end
        self._is_done = start >= end
        self._consumer = Consumer(options, logger=_log)
        self._reader = open_reader(self._consumer, topic)
        self._reader.add(partition)
        self._consumer.assign([TopicPartition(topic, partition, start)])

    @property
    def is_done(self) -> bool:
        """See `Replay.is_done`."""
        return self._is_done

    def read(self, records_max: int, timeout_s: float) -> Records:
        """See `Replay.read`."""
        if self._is_done:
            return records_of(self._topic, [])
        records, notices = self._reader.poll(records_max, timeout_s)
        for notice in notices:
            if notice.error.code() == END_OF_PARTITION:
                # After the last record, only transaction markers precede the committed offset.
                self._is_done = True
            elif not notice.error.retriable():
                self._explain(notice)
                raise BrokerError(
                    f"replay of topic {self._topic} as group {self._group}: {text_of(notice.error)}"
                )
        if len(records) and records.offsets[-1] + 1 >= self._end:
            self._is_done = True
            records = records.take(np.flatnonzero(records.offsets < self._end))
        return records

    def close(self) -> None:
        """See `Replay.close`."""
        self._reader.close()
        self._consumer.close()
