"""Hidden states as the store keeps them: bytes and a checksum, so that a changed one is found.

The layout of a record is at the head of `store_save.lua`.  Its checksum is over its bytes, seeded
with whose they are: topic, group and model, partition, key.  So a record that was copied from
another key or model is found as well as one of which a bit was turned.

It is no signature: who knows the layout can write a record whose checksum is right.  What that says
is checked as far as it can be: no state that was saved is NaN, or has seen what is not committed.
An older record of the same key, put back, can't be told from one that was right.
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

from livestep.pipeline.state.pool import ENDED, StateLayout, States
from livestep.pipeline.state.store import CLOCK_KEY
from livestep.pipeline.types import NO_TIME, BoolArray, IntArray, Offset

#: Bytes before the state in a record: offset and timesteps, little-endian int64 each.
HEADER_BYTES = 16

_HEADER = struct.Struct("<qq")

#: Bytes after it: XXH3-64 in its canonical form, which is big-endian.
CHECKSUM_BYTES = 8

_CLOCK = struct.Struct("<qqq")

#: Takes a record's bytes without its checksum.
_BODY = itemgetter(slice(-CHECKSUM_BYTES))


class DamagedStateError(Exception):
    """Raised if a record of the store is not what was saved; nothing was stepped with it.

    The partition's states have to be begun anew and replayed.
    """

    def __init__(self, partition: int, detail: str) -> None:
        super().__init__(f"partition {partition}: {detail}")
        self.partition = partition
        self.detail = detail


class StateRecords:
    """Writes the records of one topic under one model, and reads what is still as it was written.

    Args:
        layout: What a state of the model looks like.
        scope: Whose records these are, beside partition and key: topic, group, model.
    """

    def __init__(self, layout: StateLayout, scope: str) -> None:
        self._layout = layout
        self._scope = scope
        #: Bytes of one key's record.
        self.record_bytes = HEADER_BYTES + layout.state_bytes + CHECKSUM_BYTES

    def write(self, partition: int, keys: Sequence[bytes], states: States) -> list[bytes]:
        """Write each key's record; one copy from the device for all.

        Of a key whose sequence has ended it is the header alone: there is nothing to keep.

        Args:
            partition: Of all keys.
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
        """Read records.

        Args:
            partition: Of all keys.
            keys: The N keys.
            records: Their records.
            before: No state has seen this offset, or a later one.

        Raises:
            DamagedStateError: If one is not what was saved; names the first such key.
        """
        table = self._verified(partition, keys, records)
        count, layout = len(records), self._layout
        tensors = []
        at = HEADER_BYTES
        for shape, dtype, width in zip(layout.shapes, layout.dtypes, layout.widths, strict=True):
            # A copy, also of a single row: another dtype needs memory of its own alignment.
            flat = torch.from_numpy(table[:, at : at + width].copy())
            tensors.append(flat.view(dtype).reshape(count, *shape))
            at += width
        offsets, timesteps = _headers(table)
        for is_wrong, what in (
            (offsets < 0, "its offset is negative"),
            (offsets >= before, f"it has seen an event at or after {before}, which is not done"),
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
        """Read of each state, with a session gap: last offset, last clock, key.

        Raises:
            DamagedStateError: If one is not what was saved; names the first such key.
        """
        if not found:
            return
        keys, records = list(found), list(found.values())
        table = self._verified(partition, keys, records)
        offsets, _ = _headers(table)
        clocks = np.ascontiguousarray(table[:, -CHECKSUM_BYTES - 8 : -CHECKSUM_BYTES]).view("<i8")
        yield from zip(offsets.tolist(), clocks[:, 0].tolist(), keys, strict=True)

    def write_clock(self, partition: int, applied: Offset, clock: int) -> bytes:
        """Write a partition's clock as a state is written, so that it can't go back either."""
        body = _CLOCK.pack(applied - 1, 1, clock)
        (checksum,) = self._checksums(partition, [CLOCK_KEY], [body])
        return body + checksum

    def read_clock(self, partition: int, record: bytes | None, before: Offset) -> int:
        """Read what `write_clock` wrote; `NO_TIME` if there is none.

        Raises:
            DamagedStateError: If it is not what was saved, or of an event that is not before that.
        """
        if record is None:
            return NO_TIME
        if len(record) != _CLOCK.size + CHECKSUM_BYTES:
            raise DamagedStateError(partition, f"the clock has {len(record)} bytes")
        body = _BODY(record)
        if [record[-CHECKSUM_BYTES:]] != list(self._checksums(partition, [CLOCK_KEY], [body])):
            raise DamagedStateError(partition, "the clock has not the checksum of its bytes")
        offset, _, clock = _CLOCK.unpack(body)
        if offset >= before or clock < NO_TIME:
            raise DamagedStateError(partition, f"the clock is {clock} at {offset}, before {before}")
        return int(clock)

    def _checksums(
        self, partition: int, keys: Sequence[bytes], bodies: Sequence[bytes]
    ) -> Iterator[bytes]:
        """Hash each body, seeded with its key's hash, which is seeded with the scope's."""
        seed = xxh3_64_intdigest(f"{self._scope}/{partition}".encode())
        # Maps all through: this is done for every event, and no Python frame for each.
        return map(xxh3_64_digest, bodies, map(xxh3_64_intdigest, keys, repeat(seed)))

    def _verified(
        self, partition: int, keys: Sequence[bytes], records: Sequence[bytes]
    ) -> np.ndarray:
        """Give the records as a table, (N, record_bytes) uint8, if they have their checksums."""
        count, step = len(records), self.record_bytes
        if not set(map(len, records)) <= {step}:
            is_other = np.array([len(record) != step for record in records])
            length = len(records[int(np.argmax(is_other))])
            what = f"it has {length} bytes where this model's has {step}"
            raise _damaged(partition, keys, is_other, what)
        table = np.frombuffer(bytearray().join(records), dtype=np.uint8).reshape(count, step)
        bodies = list(map(_BODY, records))
        checksums = b"".join(self._checksums(partition, keys, bodies))
        if table[:, -CHECKSUM_BYTES:].tobytes() != checksums:
            right = np.frombuffer(checksums, dtype=np.uint8).reshape(count, CHECKSUM_BYTES)
            is_other = (table[:, -CHECKSUM_BYTES:] != right).any(axis=1)
            what = (
                "its checksum is not that of its bytes under this key, partition, group and model"
            )
            raise _damaged(partition, keys, is_other, what)
        return table

    def _not_finite(self, tensors: Sequence[Tensor]) -> BoolArray:
        """Say which rows hold what no step leaves behind: (N,) bool."""
        count = len(tensors[0]) if tensors else 0
        found = torch.zeros(count, dtype=torch.bool)
        for tensor, zeros in zip(tensors, self._layout.zeros, strict=True):
            # A sum is cheap, and finite only if all of it is; one that overflows is looked at.
            if torch.isfinite(tensor.sum()):
                continue
            # A state that has stepped nothing is the model's first one, whatever that holds.
            is_first = (tensor == zeros) | (tensor.isnan() & zeros.isnan())
            found |= ~(torch.isfinite(tensor) | is_first).reshape(count, -1).all(dim=1)
        return found.numpy()


def read_header(record: bytes) -> tuple[int, int]:
    """Read offset and timesteps, which every record begins with.

    Example:
        >>> read_header((7).to_bytes(8, "little") + (2).to_bytes(8, "little") + b"state")
        (7, 2)
    """
    offset, timesteps = _HEADER.unpack_from(record)
    return offset, timesteps


def _headers(table: np.ndarray) -> tuple[IntArray, IntArray]:
    """Read offsets and timesteps, (N,) int64 each."""
    header = np.ascontiguousarray(table[:, :HEADER_BYTES]).view("<i8").astype(np.int64)
    return header[:, 0], header[:, 1]


def _damaged(
    partition: int, keys: Sequence[bytes], is_wrong: BoolArray, what: str
) -> DamagedStateError:
    """Name the first key that is wrong, and how many there are."""
    count = int(np.count_nonzero(is_wrong))
    others = f" (and {count - 1} more)" if count > 1 else ""
    key = keys[int(np.argmax(is_wrong))]
    return DamagedStateError(partition, f"the state of key {key!r}{others}: {what}")
