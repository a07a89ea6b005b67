"""Copy a topic to one with another number of partitions: each key goes to its partition there."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from livestep.pipeline.clients.publisher import EventPublisher
from livestep.pipeline.errors import BrokerError, ConfigError
from livestep.pipeline.kafka.connection import CONNECT_TIMEOUT_S, broker_errors, connect
from livestep.pipeline.kafka.topic_setup import end_offsets

#: Records and bytes that the reader of one partition fetches at once.
READ_RECORDS_MAX, READ_BYTES_MAX = 500, 1 << 20

#: Timeout of one poll, and how many empty polls in a row end the copy.
READ_TIMEOUT_S, READ_TRIES = 1.0, 60

#: Records between two reports of progress.
PROGRESS_RECORDS = 1_000


@dataclass(frozen=True, slots=True)
class CopyReport:
    """The result of a copy.

    Attributes:
        records: Number of copied records.
        without_key: Number of records without a key, which no worker can use: they are not copied.
    """

    records: int
    without_key: int


class _RecordPublisher(EventPublisher):
    """Publishes records unchanged."""

    def publish_record(self, record: Any) -> None:
        """Send key, value, timestamp and headers; the key determines the partition."""
        self._settle(wait_for_room=True)
        self._send(record.key, record.value, record.timestamp, list(record.headers))


def copy_topic(
    bootstrap_servers: str,
    source: str,
    target: str,
    *,
    on_progress: Callable[[int], None] = lambda count: None,
    timeout_s: float = CONNECT_TIMEOUT_S,
    **client_options: Any,
) -> CopyReport:
    """Copy all events of a topic to another one, in order for each key.

    Use it after the number of partitions has changed: keys are then separated from their states, so
    the history is published again and a new group starts on it. Records of one partition keep their
    order. Records of several partitions are merged by time, so a key that has moved between
    partitions keeps its order, too. Events published to the source during the copy are not copied.

    Args:
        bootstrap_servers: host:port[,host:port...].
        source: Topic to read.
        target: Topic to write; must exist and be empty.
        on_progress: Called with the number of records copied so far, from time to time.
        timeout_s: Time limit for finding a broker, in seconds.
        client_options: Options of kafka-python's clients.

    Returns:
        report: See `CopyReport`.

    Raises:
        ConfigError: If a topic is missing, or the target has records or is the source.
        BrokerError: If no broker responds, or a record is not delivered.
    """
    if source == target:
        raise ConfigError(f"a topic can't be copied to itself: {source!r}")
    connection = {"timeout_s": timeout_s, **client_options}
    # Any offset counts: the markers of an aborted copy can't be told from records here.
    written = sum(end_offsets(bootstrap_servers, target, is_committed=False, **connection).values())
    if written:
        raise ConfigError(
            f"topic {target!r} is not empty: copying to it could repeat events. Create a new topic"
        )
    ends = end_offsets(bootstrap_servers, source, **connection)
    records = without_key = 0
    with contextlib.ExitStack() as stack:
        publisher = stack.enter_context(_RecordPublisher(bootstrap_servers, target, **connection))
        readers = []
        for partition, end in ends.items():
            place = TopicPartition(source, partition)
            reader = _read(bootstrap_servers, place, end, connection)
            readers.append(stack.enter_context(contextlib.closing(reader)))
        for record in heapq.merge(*readers, key=lambda one: one.timestamp):
            if record.key is None:
                without_key += 1
                continue
            publisher.publish_record(record)
            records += 1
            if records % PROGRESS_RECORDS == 0:
                on_progress(records)
    on_progress(records)
    return CopyReport(records, without_key)


def _read(
    bootstrap_servers: str, place: TopicPartition, end: int, connection: dict[str, Any]
) -> Generator[Any, None, None]:
    """Read one partition up to an offset, with its own consumer that reads ahead little."""
    consumer = connect(
        KafkaConsumer,
        bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_poll_records=READ_RECORDS_MAX,
        max_partition_fetch_bytes=READ_BYTES_MAX,
        fetch_max_bytes=READ_BYTES_MAX,
        **connection,
    )
    with contextlib.closing(consumer), broker_errors(f"reading topic {place.topic!r}"):
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        position, tries = consumer.position(place), 0
        while position < end:
            for record in consumer.poll(timeout_ms=READ_TIMEOUT_S * 1000).get(place, []):
                if record.offset < end:
                    yield record
            # Compare positions, not records: transaction markers have offsets, too.
            before, position = position, consumer.position(place)
            tries = 0 if position > before else tries + 1
            if tries > READ_TRIES:
                raise BrokerError(f"topic {place.topic!r}: {place} can't be read up to {end}")
