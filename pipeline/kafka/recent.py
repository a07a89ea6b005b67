"""Reads the last records of a topic, without joining a group or committing offsets."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from livestep.pipeline.columns.log_records import Records, records_of
from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.client_options import replay_options
from livestep.pipeline.kafka.error_codes import END_OF_PARTITION, text_of
from livestep.pipeline.settings import Settings
from livestep.pipeline.types import Offset

#: Maximum offsets to read from the end of each partition, and of all partitions together.
RECENT_OFFSETS = 100
RECENT_OFFSETS_TOTAL = 2_000

#: Seconds after which reading ends with the records so far.
READ_TIMEOUT_S = 10.0


def read_recent(settings: Settings, bounds: Mapping[int, tuple[Offset, Offset]]) -> Records:
    """Read the last committed records of the input topic.

    Args:
        settings: The worker's settings.
        bounds: For each partition, its first offset and the offset after its last.

    Returns:
        records: The records at the last `RECENT_OFFSETS` offsets of each partition, in order.

    Raises:
        BrokerError: If the broker refuses.
    """
    topic = settings.input_topic
    each = max(1, min(RECENT_OFFSETS, RECENT_OFFSETS_TOTAL // max(len(bounds), 1)))
    starts = {
        partition: max(low, high - each) for partition, (low, high) in bounds.items() if high > low
    }
    records: list[Any] = []
    if not starts:
        return records_of(topic, records)
    waiting = set(starts)
    # A slow broker must not block a check.
    deadline_s = time.monotonic() + READ_TIMEOUT_S
    consumer = Consumer(replay_options(settings))
    try:
        consumer.assign([TopicPartition(topic, part, start) for part, start in starts.items()])
        while waiting and time.monotonic() < deadline_s:
            message: Any = consumer.poll(0.5)
            if message is None:
                continue
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == END_OF_PARTITION:
                waiting.discard(message.partition())
            elif not error.retriable():
                raise BrokerError(f"reading topic {topic}: {text_of(error)}")
    except KafkaException as error:
        raise BrokerError(f"reading topic {topic}: {text_of(error.args[0])}") from error
    finally:
        consumer.close()
    return records_of(topic, records)
