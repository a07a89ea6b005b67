"""The records of a poll as columns, and one record as an object for the few that need it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from livestep.pipeline.columns.byte_column import ByteColumn
from livestep.pipeline.types import IntArray


class Message(Protocol):
    """One record of a Kafka client: what is used of `confluent_kafka.Message`."""

    def partition(self) -> int:
        """Return the index of the partition."""

    def offset(self) -> int:
        """Return the position in the partition."""

    def key(self) -> bytes | None:
        """Return the key, or None."""

    def value(self) -> bytes | None:
        """Return the value, or None for a tombstone."""

    def timestamp(self) -> tuple[int, int]:
        """Return the kind of timestamp, and milliseconds since the epoch."""

    def headers(self) -> list[tuple[str, Any]] | None:
        """Return the headers in order, or None."""


#: Reads a record's headers. If a header name is not UTF-8, confluent-kafka 2.16 returns a list with
#: a NULL entry and sets an exception, which a plain Python call may miss; reading that list then
#: crashes the process. A call from C always sees the exception, as SystemError.
_read_headers: Callable[[Message], Any] = operator.methodcaller("headers")

#: The headers of a record, or why they can't be read.
HeadersOrError = list[tuple[str, bytes | None]] | str


class LogRecord(NamedTuple):
    """One record of the log.

    Attributes:
        topic: Name of the topic.
        partition: Index of the partition.
        offset: Position in the partition.
        timestamp_ms: Event time, milliseconds since 1970 UTC.
        key: The key, or None.
        value: The value, or None for a tombstone.
        headers: The headers in order, or why they can't be read.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: HeadersOrError


@dataclass(slots=True)
class Records:
    """Records of one topic, each partition's in the order of the log.

    Attributes:
        topic: Name of the topic.
        partitions: (n,) int64.
        offsets: (n,) int64.
        timestamps_ms: (n,) int64.  Event times, milliseconds since 1970 UTC.
        keys: n keys.
        values: n values.
        headers: For each record that has headers, by its index: the headers, or why they can't be
            read.
    """

    topic: str
    partitions: IntArray
    offsets: IntArray
    timestamps_ms: IntArray
    keys: ByteColumn
    values: ByteColumn
    headers: Mapping[int, HeadersOrError] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> LogRecord:
        return LogRecord(
            self.topic,
            int(self.partitions[index]),
            int(self.offsets[index]),
            int(self.timestamps_ms[index]),
            self.keys[index],
            self.values[index],
            self.headers.get(index, []),
        )

    def take(self, rows: IntArray) -> Records:
        """Return the records at `rows`, (m,) int64, in that order."""
        headers: dict[int, HeadersOrError] = {}
        if self.headers:
            found = ((row, self.headers.get(i)) for row, i in enumerate(rows.tolist()))
            headers = {row: one for row, one in found if one is not None}
        return Records(
            self.topic,
            self.partitions[rows],
            self.offsets[rows],
            self.timestamps_ms[rows],
            self.keys.take(rows),
            self.values.take(rows),
            headers,
        )

    def ends(self) -> dict[int, int]:
        """Return for each partition the offset after its last record here."""
        # Records of a partition come in order, so its last one is the largest. A transaction's
        # marker has an offset, too: this is the position to continue from, not a count.
        partitions = self.partitions
        found: dict[int, int] = {}
        for partition in np.unique(partitions).tolist():
            found[partition] = int(self.offsets[partitions == partition].max()) + 1
        return found


def records_of(topic: str, messages: Sequence[Message]) -> Records:
    """Convert messages to columns.

    Args:
        topic: Name of their topic.
        messages: Each partition's in the order of the log.
    """
    headers: dict[int, HeadersOrError] = {}
    for index, message in enumerate(messages):
        try:
            if found := _read_headers(message):
                headers[index] = found
        except (SystemError, UnicodeDecodeError) as error:
            headers[index] = _unreadable(error)
    return Records(
        topic=topic,
        partitions=_numbers(message.partition() for message in messages),
        offsets=_numbers(message.offset() for message in messages),
        timestamps_ms=_numbers(message.timestamp()[1] for message in messages),
        keys=ByteColumn([message.key() for message in messages]),
        values=ByteColumn([message.value() for message in messages]),
        headers=headers,
    )


def _numbers(values: Iterable[int]) -> IntArray:
    return np.fromiter(values, dtype=np.int64)


def _unreadable(error: Exception) -> str:
    """Return why headers can't be read: a name is not UTF-8."""
    cause = error.__cause__ if isinstance(error, SystemError) else error
    if not isinstance(cause, UnicodeDecodeError):
        raise error
    return f"a header name is not valid UTF-8: {cause}"
