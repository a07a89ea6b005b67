"""Encodes hidden states for the store, with a checksum that detects changed records.

`store_save.lua` documents the layout of a record.  The checksum covers its bytes, seeded with
its owner: topic, group, model, partition and key.  So it detects a record that was copied from
another key or model as well as one with a flipped bit.

The checksum is not a signature: a program that knows the layout can write a valid record.  Its
content is validated as far as possible: a saved state is never NaN, and has never seen an
uncommitted event.  An older record of the same key, written back, is not detected.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from operator import add, itemgetter

import numpy as np
import torch
from torch import Tensor
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from livestep.pipeline.state.pool import CLOCK, ENDED, StateLayout, States
from livestep.pipeline.state.store import CLOCK_KEY
from livestep.pipeline.types import NO_TIME, BoolArray, IntArray, Offset

#: Bytes before the state in a record: offset and timesteps, little-endian int64 each.
HEADER_BYTES = 16

_HEADER = struct.Struct("<qq")

#: Bytes after the state: XXH3-64 in its canonical form, which is big-endian.
CHECKSUM_BYTES = 8

_CLOCK = struct.Struct("<qqq")

#: Returns a record's bytes without its checksum.
_BODY = itemgetter(slice(-CHECKSUM_BYTES))


class DamagedStateError(Exception):
    """Raised if a record in the store is not what was saved; no event was stepped with it.

    The partition's states must be dropped and rebuilt by a replay.
    """

    def __init__(self, partition: int, detail: str) -> None:
        super().__init__(f"partition {partition}: {detail}")
        self.partition = partition
        self.detail = detail


class StateRecords:
    """Encodes and decodes the state records of one topic, group and model.

    Args:
        layout: Layout of the model's states.
        scope: Owner of the records: topic, group and model.
    """

    def __init__(self, layout: StateLayout, scope: str) -> None:
        self._layout = layout
        self._scope = scope
        #: Bytes of one key's record.
        self.record_bytes = HEADER_BYTES + layout.state_bytes + CHECKSUM_BYTES

    def write(self, partition: int, keys: Sequence[bytes], states: States) -> list[bytes]:
        """Encode each key's record, with one copy from the device for all.

        If a key's sequence has ended, its record is only the header: there is no state to keep.

        Args:
            partition: Partition of all keys.
            keys: The N keys of the rows.
            states: N rows.
        """
        count = len(states)
        if not count:
            return []
        body_bytes = self.record_bytes - CHECKSUM_BYTES
        table = np.empty((count, body_bytes), dtype=np.uint8)
        table[:, :8] = states.offsets.astype("<i8").view(np.uint8).reshape(count, 8)
        table[:, 8:16] = states.timesteps.astype("<i8").view(np.uint8).reshape(count, 8)
        at = HEADER_BYTES
        for tensor, width in zip(states.tensors, self._layout.widths, strict=True):
            flat = tensor.reshape(count, -1).contiguous().view(torch.uint8).cpu()
            table[:, at : at + width] = flat.numpy().reshape(count, width)
            at += width
        whole = table.tobytes()
        bodies = [whole[i : i + body_bytes] for i in range(0, len(whole), body_bytes)]
        records = list(map(add, bodies, self._checksums(partition, keys, bodies)))
        for row in np.flatnonzero(states.timesteps == ENDED).tolist():
            records[row] = records[row][:HEADER_BYTES]
        return records

    def read(
        self, partition: int, keys: Sequence[bytes], records: Sequence[bytes], before: Offset
    ) -> States:
        """Decode and validate records.

        Args:
            partition: Partition of all keys.
            keys: The N keys.
            records: Their records.
            before: A valid state has seen only events before this offset.

        Raises:
            DamagedStateError: If a record is not what was saved; names the first such key.
        """
        table = self._verified(partition, keys, records)
        count, layout = len(records), self._layout
        tensors = []
        at = HEADER_BYTES
        for shape, dtype, width in zip(layout.shapes, layout.dtypes, layout.widths, strict=True):
            # Copy even a single row: `view` needs memory that is aligned for the other dtype.
            flat = torch.from_numpy(table[:, at : at + width].copy())
            tensors.append(flat.view(dtype).reshape(count, *shape))
            at += width
        offsets, timesteps = _headers(table)
        for is_wrong, what in (
            (offsets < 0, "its offset is negative"),
            (offsets >= before, f"it has seen an event at or after {before}, not yet processed"),
            (timesteps < 0, "its number of timesteps is negative"),
            (self._not_finite(tensors), "it is NaN or infinite"),
        ):
            if is_wrong.any():
                raise _damaged(partition, keys, is_wrong, what)
        return States(
            tuple(tensor.to(layout.device) for tensor in tensors), offsets.copy(), timesteps.copy()
        )

    def times(
        self, partition: int, found: Mapping[bytes, bytes]
    ) -> Iterator[tuple[int, int, bytes]]:
        """Yield last offset, last clock and key of each state; only with a session gap.

        Raises:
            DamagedStateError: If a record is not what was saved; names the first such key.
        """
        if not found:
            return
        keys, records = list(found), list(found.values())
        table = self._verified(partition, keys, records)
        offsets, _ = _headers(table)
        states = table[:, HEADER_BYTES:-CHECKSUM_BYTES]
        clocks = np.ascontiguousarray(states[:, self._layout.bytes_of(CLOCK)]).view("<i8")
        yield from zip(offsets.tolist(), clocks[:, 0].tolist(), keys, strict=True)

    def write_clock(self, partition: int, applied: Offset, clock: int) -> bytes:
        """Encode a partition's clock like a state, so that it is never replaced by an older one."""
        body = _CLOCK.pack(applied - 1, 1, clock)
        (checksum,) = self._checksums(partition, [CLOCK_KEY], [body])
        return body + checksum

    def read_clock(self, partition: int, record: bytes | None, before: Offset) -> int:
        """Decode a partition's clock; `NO_TIME` if there is no record.

        Raises:
            DamagedStateError: If it is not what was saved, or its event is not before `before`.
        """
        if record is None:
            return NO_TIME
        if len(record) != _CLOCK.size + CHECKSUM_BYTES:
            raise DamagedStateError(partition, f"the clock has {len(record)} bytes")
        body = _BODY(record)
        if [record[-CHECKSUM_BYTES:]] != list(self._checksums(partition, [CLOCK_KEY], [body])):
            raise DamagedStateError(partition, "the clock has a wrong checksum")
        offset, _, clock = _CLOCK.unpack(body)
        if offset >= before or clock < NO_TIME:
            what = f"the clock is {clock} at offset {offset}"
            limits = f"at least {NO_TIME}, at an offset below {before}"
            raise DamagedStateError(partition, f"{what}; it should be {limits}")
        return int(clock)

    def _checksums(
        self, partition: int, keys: Sequence[bytes], bodies: Sequence[bytes]
    ) -> Iterator[bytes]:
        """Hash each body, seeded with the hash of its key, seeded with that of the scope."""
        seed = xxh3_64_intdigest(f"{self._scope}/{partition}".encode())
        # Chained maps run in C: this is done for every event.
        return map(xxh3_64_digest, bodies, map(xxh3_64_intdigest, keys, repeat(seed)))

    def _verified(
        self, partition: int, keys: Sequence[bytes], records: Sequence[bytes]
    ) -> np.ndarray:
        """Check lengths and checksums; return the records as a table, (N, record_bytes) uint8."""
        count, step = len(records), self.record_bytes
        if not set(map(len, records)) <= {step}:
            is_other = np.array([len(record) != step for record in records])
            length = len(records[int(np.argmax(is_other))])
            what = f"it has {length} bytes, expected {step} for this model"
            raise _damaged(partition, keys, is_other, what)
        table = np.frombuffer(bytearray().join(records), dtype=np.uint8).reshape(count, step)
        bodies = list(map(_BODY, records))
        checksums = b"".join(self._checksums(partition, keys, bodies))
        if table[:, -CHECKSUM_BYTES:].tobytes() != checksums:
            right = np.frombuffer(checksums, dtype=np.uint8).reshape(count, CHECKSUM_BYTES)
            is_other = (table[:, -CHECKSUM_BYTES:] != right).any(axis=1)
            what = "its checksum is wrong for its bytes, key, partition, group and model"
            raise _damaged(partition, keys, is_other, what)
        return table

    def _not_finite(self, tensors: Sequence[Tensor]) -> BoolArray:
        """Return which rows hold values that no step produces: (N,) bool."""
        count = len(tensors[0]) if tensors else 0
        found = torch.zeros(count, dtype=torch.bool)
        for tensor, zeros in zip(tensors, self._layout.zeros, strict=True):
            # A sum is cheap, and finite only if every term is; if it isn't, check each term.
            if torch.isfinite(tensor.sum()):
                continue
            # A state before its first step is the initial state, which may hold anything.
            is_first = (tensor == zeros) | (tensor.isnan() & zeros.isnan())
            found |= ~(torch.isfinite(tensor) | is_first).reshape(count, -1).all(dim=1)
        return found.numpy()


def read_header(record: bytes) -> tuple[int, int]:
    """Decode offset and timesteps, the first fields of every record.

    Example:
        >>> read_header((7).to_bytes(8, "little") + (2).to_bytes(8, "little") + b"state")
        (7, 2)
    """
    offset, timesteps = _HEADER.unpack_from(record)
    return offset, timesteps


def _headers(table: np.ndarray) -> tuple[IntArray, IntArray]:
    """Decode offsets and timesteps, (N,) int64 each."""
    header = np.ascontiguousarray(table[:, :HEADER_BYTES]).view("<i8").astype(np.int64)
    return header[:, 0], header[:, 1]


def _damaged(
    partition: int, keys: Sequence[bytes], is_wrong: BoolArray, what: str
) -> DamagedStateError:
    """Make an error that names the first invalid key, and how many there are."""
    count = int(np.count_nonzero(is_wrong))
    others = f" (and {count - 1} more)" if count > 1 else ""
    key = keys[int(np.argmax(is_wrong))]
    return DamagedStateError(partition, f"the state of key {key!r}{others}: {what}")
