"""A column of byte strings: the keys or the values of the records of a poll."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from livestep.pipeline.native import native
from livestep.pipeline.types import IntArray


class PythonByteColumn:
    """Byte strings in order; some may be missing (None). It never changes.

    Args:
        values: The strings.

    Example:
        >>> column = PythonByteColumn([b"a", None, b"ccc"])
        >>> column[2], column.lengths().tolist(), column.take(np.array([2, 0])).to_list()
        (b'ccc', [1, -1, 3], [b'ccc', b'a'])
    """

    __slots__ = ("_values",)

    def __init__(self, values: Iterable[bytes | None] = ()) -> None:
        self._values = list(values)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> bytes | None:
        return self._values[index]

    def __iter__(self) -> Iterator[bytes | None]:
        return iter(self._values)

    def take(self, rows: IntArray) -> PythonByteColumn:
        """Return the strings at `rows`, (m,) int64, in that order."""
        values = self._values
        return PythonByteColumn([values[row] for row in rows.tolist()])

    def lengths(self) -> IntArray:
        """Return the length of each string: (n,) int64, -1 for one that is missing."""
        return np.array([-1 if v is None else len(v) for v in self._values], dtype=np.int64)

    def to_list(self) -> list[bytes | None]:
        """Return all strings."""
        return self._values


# Which of the two is decided once for a process: columns of both kinds never meet.
if TYPE_CHECKING or native is None:
    ByteColumn = PythonByteColumn
else:
    ByteColumn = native.ByteColumn
