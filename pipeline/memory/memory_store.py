"""The store in memory: what the two Lua scripts do, on dictionaries."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

from livestep.pipeline.state.state_records import HEADER_BYTES, read_header
from livestep.pipeline.state.store import CLOCK_KEY, SAVE_KEYS_MAX, SaveRefusedError
from livestep.pipeline.state.stored_partition import (
    FIELDS,
    DamagedPartition,
    StoredPartition,
    read_fields,
    read_number,
)
from livestep.pipeline.types import Offset

#: One partition's hash; the layout is at the head of `store_save.lua`.
_Hash = dict[bytes, bytes]


class MemoryStore:
    """`Store` in a dictionary, for one topic under one model; it outlives the engines on it.

    Args:
        save_keys_max: States written at once; a larger save goes in several calls of `write`.
    """

    def __init__(self, save_keys_max: int = SAVE_KEYS_MAX) -> None:
        self._hashes: dict[int, _Hash] = {}
        self._save_keys_max = save_keys_max
        self._lock = threading.Lock()

    def describe(
        self, partitions: Sequence[int]
    ) -> dict[int, StoredPartition | DamagedPartition | None]:
        """See `Store.describe`."""
        with self._lock:
            hashes = {partition: self._hashes.get(partition, {}) for partition in partitions}
            return {
                partition: read_fields([one.get(name.encode()) for name in FIELDS], len(one))
                for partition, one in hashes.items()
            }

    def begin(
        self,
        partition: int,
        *,
        expected: Offset | bytes | None,
        applied: Offset,
        start: Offset,
        partitions: int,
    ) -> None:
        """See `Store.begin`."""
        with self._lock:
            if self._is_expected(partition, expected, applied):
                values = (applied, start, partitions)
                self._hashes[partition] = {
                    name.encode(): b"%d" % value
                    for name, value in zip(FIELDS, values, strict=False)
                }

    def load(
        self, partition: int, keys: Sequence[bytes]
    ) -> tuple[Offset | None, list[bytes | None]]:
        """See `Store.load`."""
        with self._lock:
            one = self._hashes.get(partition, {})
            return read_number(one.get(b"applied")), [one.get(b"k" + key) for key in keys]

    def scan(self, partition: int) -> Iterator[dict[bytes, bytes]]:
        """See `Store.scan`."""
        with self._lock:
            one = dict(self._hashes.get(partition, {}))
        clock = b"k" + CLOCK_KEY
        yield {name[1:]: one[name] for name in one if name[:1] == b"k" and name != clock}

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
            # The next number is a chunk whose answer was lost, or another worker's.
            chain = [b"%d/%d/%d" % (expected, applied, number) for number in (chunk, chunk + 1)]
            if chunk and one.get(b"saving") not in chain:
                raise SaveRefusedError(partition, expected)
            for key, record in records.items():
                old = one.get(b"k" + key, b"")
                offset, timesteps = read_header(record)
                if len(old) < HEADER_BYTES or read_header(old)[0] < offset:
                    if timesteps >= 0:
                        one[b"k" + key] = record
                    else:
                        one.pop(b"k" + key, None)
            one[b"saving"] = chain[1]
            if is_last:
                del one[b"saving"]
                one[b"applied"] = b"%d" % applied

    def fields(self, partition: int) -> dict[bytes, bytes]:
        """Copy a partition's hash."""
        with self._lock:
            return dict(self._hashes.get(partition, {}))

    def change(self, partition: int, field: bytes, value: bytes | None) -> None:
        """Change a field of a partition's hash as another program might; None removes it.

        Args:
            partition: Index.
            field: `b"applied"`, `b"k" + key`, ...: see the head of `store_save.lua`.
            value: The new value.
        """
        with self._lock:
            one = self._hashes.setdefault(partition, {})
            if value is None:
                one.pop(field, None)
            else:
                one[field] = value

    def copy(self) -> MemoryStore:
        """Copy what is held now, as a replica would."""
        other = MemoryStore(self._save_keys_max)
        other.restore(self)
        return other

    def restore(self, other: MemoryStore) -> None:
        """Hold what another holds, as a Redis that fails over to a replica that was behind."""
        hashes = {partition: dict(one) for partition, one in other._hashes.items()}
        with self._lock:
            self._hashes = hashes

    def flush(self) -> None:
        """Lose everything."""
        self.restore(MemoryStore())

    def give_up_waiting(self) -> None:
        """See `Store.give_up_waiting`: no call ever waits."""

    def close(self) -> None:
        """See `Store.close`: the next engine finds what is stored."""

    def _is_expected(
        self, partition: int, expected: Offset | bytes | None, applied: Offset
    ) -> bool:
        """Compare `applied` with what the caller has seen last; False if it has moved already."""
        seen = self._hashes.get(partition, {}).get(b"applied")
        wanted = b"%d" % expected if isinstance(expected, int) else expected
        if seen not in (wanted, b"%d" % applied):
            number = read_number(seen)
            raise SaveRefusedError(partition, seen if number is None else number)
        return seen == wanted
