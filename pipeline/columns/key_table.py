"""The table from a key to its slot in the pool of states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from livestep.pipeline.columns.byte_column import PythonByteColumn
from livestep.pipeline.columns.keys import checked_names
from livestep.pipeline.native import native
from livestep.pipeline.types import IntArray, PartitionKey

#: Partitions of Kafka are below it.
_PARTITIONS_END = 2**31


class PythonKeyTable:
    """Which slot each key has.

    Args:
        slots: Number of slots, less than 2 ** 32.

    Example:
        >>> table = PythonKeyTable(4)
        >>> partitions, names = np.array([0, 1]), PythonByteColumn([b"a", b"a"])
        >>> table.insert(partitions, names, np.array([1]), np.array([3]))
        >>> table.find(partitions, names).tolist(), table.forget(1).tolist(), len(table)
        ([-1, 3], [3], 0)
    """

    def __init__(self, slots: int) -> None:
        self._slot_of: dict[int, dict[bytes, int]] = {}
        self._key_of: list[PartitionKey | None] = [None] * slots

    def __len__(self) -> int:
        return sum(map(len, self._slot_of.values()))

    def find(self, partitions: IntArray, names: PythonByteColumn) -> IntArray:
        """Return the slots of N keys.

        Args:
            partitions: (N,) int64.
            names: None missing.

        Returns:
            slots: (N,) int64, -1 for a key without one.

        Raises:
            ValueError: If the lengths differ, or a key is invalid.
        """
        slot_of, nothing = self._slot_of, dict[bytes, int]()
        _check_partitions(partitions)
        keys = zip(partitions.tolist(), checked_names(partitions, names), strict=True)
        slots = [slot_of.get(partition, nothing).get(name, -1) for partition, name in keys]
        return np.array(slots, dtype=np.int64)

    def insert(
        self, partitions: IntArray, names: PythonByteColumn, rows: IntArray, slots: IntArray
    ) -> None:
        """Give slots to some of N keys.

        Args:
            partitions: (N,) int64.
            names: None missing.
            rows: (m,) int64.  Keys without a slot.
            slots: (m,) int64.  Slots without a key.

        Raises:
            ValueError: If the lengths differ, a key is invalid or has a slot, or a slot has a key.
        """
        if len(rows) != len(slots):
            raise ValueError(f"{len(slots)} slots for {len(rows)} keys")
        _check_partitions(partitions)
        found = checked_names(partitions, names)
        _check_range("row", rows, len(found))
        _check_range("slot", slots, len(self._key_of))
        slot_of, key_of = self._slot_of, self._key_of
        for row, partition, slot in zip(
            rows.tolist(), partitions[rows].tolist(), slots.tolist(), strict=True
        ):
            if key_of[slot] is not None:
                raise ValueError(f"slot {slot} has a key")
            name = found[row]
            other = slot_of.setdefault(partition, {}).setdefault(name, slot)
            if other != slot:
                raise ValueError(f"a key has slot {other} already")
            key_of[slot] = (partition, name)

    def remove(self, slots: IntArray) -> None:
        """Remove the keys of slots, (m,) int64.

        Raises:
            ValueError: If a slot has no key.
        """
        _check_range("slot", slots, len(self._key_of))
        slot_of, key_of = self._slot_of, self._key_of
        for slot in slots.tolist():
            key = key_of[slot]
            if key is None:
                raise ValueError(f"slot {slot} has no key")
            del slot_of[key[0]][key[1]]
            key_of[slot] = None

    def forget(self, partition: int) -> IntArray:
        """Remove all keys of a partition; return their slots, (m,) int64, ascending."""
        _check_partitions(np.array([partition]))
        slots = sorted(self._slot_of.pop(partition, {}).values())
        for slot in slots:
            self._key_of[slot] = None
        return np.array(slots, dtype=np.int64)


def _check_partitions(partitions: IntArray) -> None:
    """Check that numbers are partitions of Kafka."""
    is_wrong = (partitions < 0) | (partitions >= _PARTITIONS_END)
    if is_wrong.any():
        raise ValueError(f"{partitions[int(np.argmax(is_wrong))]} is not a partition")


def _check_range(what: str, indices: IntArray, end: int) -> None:
    is_wrong = (indices < 0) | (indices >= end)
    if is_wrong.any():
        raise ValueError(f"{what} {indices[int(np.argmax(is_wrong))]} of {end}")


if TYPE_CHECKING or native is None:
    KeyTable = PythonKeyTable
else:
    KeyTable = native.KeyTable
