"""The store in memory: what the two Lua scripts do, on a dictionary."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.batch import Offset
from pipeline.pool import HEADER_BYTES
from pipeline.store import (
    CLOCK_KEY,
    SAVE_KEYS_MAX,
    SaveRefusedError,
    StoredPartition,
    ends_of,
)


@dataclass(slots=True)
class _Hash:
    """One partition's hash; the layout is at the head of `store_save.lua`."""

    about: StoredPartition
    records: dict[bytes, bytes] = field(default_factory=dict)
    saving: tuple[Offset, Offset, int] | None = None


class MemoryStore:
    """`Store` in a dictionary, for one topic under one model; it outlives the engines on it.

    Args:
        save_keys_max: States written at once; a larger save goes in several calls of `write`.
    """

    def __init__(self, save_keys_max: int = SAVE_KEYS_MAX) -> None:
        self._hashes: dict[int, _Hash] = {}
        self._save_keys_max = save_keys_max
        self._lock = threading.Lock()

    def describe(self, partitions: Sequence[int]) -> dict[int, StoredPartition | None]:
        """See `Store.describe`."""
        with self._lock:
            found: dict[int, StoredPartition | None] = dict.fromkeys(partitions)
            for partition in self._hashes.keys() & found.keys():
                one = self._hashes[partition]
                found[partition] = replace(one.about, has_states=bool(one.records))
            return found

    def begin(
        self,
        partition: int,
        *,
        expected: Offset | None,
        applied: Offset,
        start: Offset,
        partitions: int,
    ) -> None:
        """See `Store.begin`."""
        with self._lock:
            if self._is_expected(partition, expected, applied):
                about = StoredPartition(applied, start, partitions, has_states=False)
                self._hashes[partition] = _Hash(about)

    def load(
        self, partition: int, keys: Sequence[bytes]
    ) -> tuple[Offset | None, list[bytes | None]]:
        """See `Store.load`."""
        with self._lock:
            one = self._hashes.get(partition)
            if one is None:
                return None, [None] * len(keys)
            return one.about.applied, [one.records.get(key) for key in keys]

    def times(self, partition: int) -> Iterator[tuple[int, int, bytes]]:
        """See `Store.times`."""
        with self._lock:
            one = self._hashes.get(partition)
            found = dict(one.records) if one else {}
        for key, record in found.items():
            if key != CLOCK_KEY:
                yield (*ends_of(record), key)

    def save(
        self,
        partition: int,
        *,
        expected: Offset,
        applied: Offset,
        keys: Sequence[bytes],
        records: Sequence[bytes],
        clock: bytes | None = None,
    ) -> None:
        """See `Store.save`; `applied` moves with the last of its writes."""
        step = self._save_keys_max
        if clock is not None:
            keys, records = [*keys, CLOCK_KEY], [*records, clock]
            step = len(keys)
        for chunk, at in enumerate(range(0, max(len(keys), 1), step)):
            some = dict(zip(keys[at : at + step], records[at : at + step], strict=True))
            is_last = at + step >= len(keys)
            self.write(partition, expected, applied, some, chunk=chunk, is_last=is_last)

    def write(
        self,
        partition: int,
        expected: Offset,
        applied: Offset,
        records: Mapping[bytes, bytes],
        *,
        chunk: int = 0,
        is_last: bool,
    ) -> None:
        """Do what one call of `store_save.lua` does; a crash may come between two."""
        with self._lock:
            if not self._is_expected(partition, expected, applied):
                return
            one = self._hashes[partition]
            save = (expected, applied)
            if chunk and one.saving == (*save, chunk + 1):
                return
            if chunk and one.saving != (*save, chunk):
                raise SaveRefusedError(partition, one.about.applied)
            for key, record in records.items():
                if key not in one.records or _offset(one.records[key]) < _offset(record):
                    if _timesteps(record) >= 0:
                        one.records[key] = record
                    else:
                        one.records.pop(key, None)
            one.saving = None if is_last else (*save, chunk + 1)
            if is_last:
                one.about = replace(one.about, applied=applied)

    def copy(self) -> MemoryStore:
        """Copy what is held now, as a replica would."""
        other = MemoryStore(self._save_keys_max)
        other.restore(self)
        return other

    def restore(self, other: MemoryStore) -> None:
        """Hold what another holds, as a Redis that fails over to a replica that was behind."""
        hashes = {
            partition: _Hash(one.about, dict(one.records), one.saving)
            for partition, one in other._hashes.items()
        }
        with self._lock:
            self._hashes = hashes

    def flush(self) -> None:
        """Lose everything."""
        self.restore(MemoryStore())

    def give_up_waiting(self) -> None:
        """See `Store.give_up_waiting`: no call ever waits."""

    def close(self) -> None:
        """See `Store.close`: what is held stays, for the next engine."""

    def _is_expected(self, partition: int, expected: Offset | None, applied: Offset) -> bool:
        """Compare `applied` with what the caller has seen last; False if it has moved already."""
        one = self._hashes.get(partition)
        seen = one.about.applied if one else None
        if seen not in (expected, applied):
            raise SaveRefusedError(partition, seen)
        return seen == expected


def _offset(record: bytes) -> int:
    return int.from_bytes(record[: HEADER_BYTES // 2], "little", signed=True)


def _timesteps(record: bytes) -> int:
    return int.from_bytes(record[HEADER_BYTES // 2 : HEADER_BYTES], "little", signed=True)
