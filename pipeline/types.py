"""Types that all rooms share: positions in the log, records, arrays. Imports numpy only."""

from __future__ import annotations

from typing import Any, NewType, Protocol

import numpy as np
import numpy.typing as npt

#: A position in one partition's log.
Offset = NewType("Offset", int)

#: A key belongs to its partition: the same bytes in two partitions are two keys.
PartitionKey = tuple[int, bytes]

#: The clock of a partition without records: before every event.
NO_TIME = -1

#: key, value, partition, timestamp in ms (0: now), headers: one record to be sent.
Headers = list[tuple[str, str | bytes | None]]
Outgoing = tuple[bytes | None, bytes | None, int, int, Headers]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
MarkArray = npt.NDArray[np.uint8]


class Record(Protocol):
    """One record of the log; the methods are those of `confluent_kafka.Message`."""

    def topic(self) -> str:
        """Name of the topic."""

    def partition(self) -> int:
        """Index of the partition."""

    def offset(self) -> int:
        """Position in the partition."""

    def key(self) -> bytes | None:
        """Key, or None."""

    def value(self) -> bytes | None:
        """Value, or None for a tombstone."""

    def timestamp(self) -> tuple[int, int]:
        """Kind of timestamp, milliseconds since the epoch."""

    def headers(self) -> list[tuple[str, Any]] | None:
        """Headers in their order, or None."""
