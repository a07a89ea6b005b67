"""Records to send, as columns; and columns of short texts for their headers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from livestep.pipeline.columns.byte_column import ByteColumn
from livestep.pipeline.native import native
from livestep.pipeline.types import IntArray, Outgoing

#: Names of headers with their values: one for each record, None if it lacks that header; or one for
#: all records.
HeaderColumns = list[tuple[str, ByteColumn | bytes]]


@dataclass(frozen=True, slots=True)
class OutgoingColumns:
    """n records for one topic.

    Attributes:
        keys: n keys.
        values: n values.
        partitions: (n,) int64.
        timestamps_ms: (n,) int64.
        headers: In the order in which each record has them.
    """

    keys: ByteColumn
    values: ByteColumn
    partitions: IntArray
    timestamps_ms: IntArray
    headers: HeaderColumns

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Outgoing]:
        count = len(self)
        names = [name for name, _ in self.headers]
        columns = [
            [values] * count if isinstance(values, bytes) else values.to_list()
            for _, values in self.headers
        ]
        is_whole = not any(None in column for column in columns)
        rows = zip(*columns, strict=True) if columns else iter([()] * count)
        for key, value, partition, time_ms, texts in zip(
            self.keys.to_list(),
            self.values.to_list(),
            self.partitions.tolist(),
            self.timestamps_ms.tolist(),
            rows,
            strict=True,
        ):
            headers = list(zip(names, texts, strict=True))
            if not is_whole:
                headers = [header for header in headers if header[1] is not None]
            yield key, value, partition, time_ms, headers


def python_decimal_column(numbers: IntArray) -> ByteColumn:
    """Write each number as decimal text.

    Args:
        numbers: (n,) int64.

    Example:
        >>> import numpy as np
        >>> decimal_column(np.array([7, -10])).to_list()
        [b'7', b'-10']
    """
    return ByteColumn([b"%d" % number for number in numbers.tolist()])


def python_source_column(topic: bytes, partitions: IntArray, offsets: IntArray) -> ByteColumn:
    """Write the source of each event, as `Source.to_bytes` does.

    Args:
        topic: The topic.
        partitions: (n,) int64.
        offsets: (n,) int64.

    Example:
        >>> import numpy as np
        >>> source_column(b"events", np.array([3]), np.array([1041])).to_list()
        [b'events/3/1041']
    """
    return ByteColumn(
        [
            b"%b/%d/%d" % (topic, partition, offset)
            for partition, offset in zip(partitions.tolist(), offsets.tolist(), strict=True)
        ]
    )


if TYPE_CHECKING or native is None:
    decimal_column, source_column = python_decimal_column, python_source_column
else:
    decimal_column, source_column = native.decimal_column, native.source_column
