"""The keys of a batch as columns, and which key each of its events belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from livestep.pipeline.columns.byte_column import ByteColumn, PythonByteColumn
from livestep.pipeline.native import native
from livestep.pipeline.types import IntArray, PartitionKey


@dataclass(frozen=True, slots=True)
class Keys:
    """N keys; equal names in two partitions are two keys.

    Attributes:
        partitions: (N,) int64.
        names: N byte strings, none missing.

    Example:
        >>> keys = Keys.of([(0, b"a"), (3, b"b"), (0, b"c")])
        >>> keys[1], {part: rows.tolist() for part, rows in keys.by_partition().items()}
        ((3, b'b'), {0: [0, 2], 3: [1]})
    """

    partitions: IntArray
    names: ByteColumn

    @classmethod
    def of(cls, keys: Iterable[PartitionKey]) -> Keys:
        """Convert pairs of partition and name; for a few keys, since each is an object."""
        pairs = list(keys)
        partitions = np.array([partition for partition, _ in pairs], dtype=np.int64)
        return cls(partitions, ByteColumn([name for _, name in pairs]))

    def __len__(self) -> int:
        return len(self.partitions)

    def __getitem__(self, row: int) -> PartitionKey:
        name = self.names[row]
        assert name is not None
        return int(self.partitions[row]), name

    def __iter__(self) -> Iterator[PartitionKey]:
        return (self[row] for row in range(len(self)))

    def take(self, rows: IntArray) -> Keys:
        """Return the keys at `rows`, (m,) int64, in that order."""
        return Keys(self.partitions[rows], self.names.take(rows))

    def names_at(self, rows: IntArray) -> list[bytes]:
        """Return the names of the keys at `rows`, (m,) int64, as objects: the store needs these."""
        return cast(list[bytes], self.names.take(rows).to_list())

    def by_partition(self) -> dict[int, IntArray]:
        """Return the rows of each partition's keys, (m,) int64, ascending."""
        order = np.argsort(self.partitions, kind="stable")
        partitions, starts = np.unique(self.partitions[order], return_index=True)
        return dict(zip(partitions.tolist(), np.split(order, starts)[1:], strict=True))


def python_group(partitions: IntArray, names: PythonByteColumn) -> tuple[IntArray, IntArray]:
    """Number the keys of n events in order of their first event.

    Args:
        partitions: (n,) int64.  Partition of each event.
        names: Name of each event's key.

    Returns:
        key_index: (n,) int64.  Number of each event's key.
        first: (N,) int64.  The first event of each key, ascending.

    Raises:
        ValueError: If there are not as many names as partitions, or a name is missing.

    Example:
        >>> key_index, first = python_group(np.array([0, 1, 0]), PythonByteColumn([b"a"] * 3))
        >>> key_index.tolist(), first.tolist()
        ([0, 1, 0], [0, 1])
    """
    found = checked_names(partitions, names)
    numbers: dict[PartitionKey, int] = {}
    key_index = np.fromiter(
        (
            numbers.setdefault(key, len(numbers))
            for key in zip(partitions.tolist(), found, strict=True)
        ),
        dtype=np.int64,
        count=len(found),
    )
    # The first event of key k is where the largest number so far becomes k.
    first = np.flatnonzero(np.diff(np.maximum.accumulate(key_index), prepend=-1))
    return key_index, first


def checked_names(partitions: IntArray, names: PythonByteColumn) -> list[bytes]:
    """Return the names of as many keys as there are partitions; none is missing."""
    if len(partitions) != len(names):
        raise ValueError(f"{len(partitions)} partitions for {len(names)} keys")
    found = names.to_list()
    if None in found:
        raise ValueError(f"key {found.index(None)} is missing")
    return cast(list[bytes], found)


if TYPE_CHECKING or native is None:
    group = python_group
else:
    group = native.group
