"""The verb pack: records into arrays, grouped by key and ranked by time.

A batch of a keyed stream is a `PackedSequence`: the rank of an event within its key (0 for the
key's first event of the batch, 1 for its second, ...) is its time step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NewType, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.codec import Codec, FloatArray
from pipeline.errors import DecodeError

#: A position in one partition's log.
Offset = NewType("Offset", int)

#: A key belongs to its partition: the same bytes in two partitions are two keys.
PartitionKey = tuple[int, bytes]

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


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


@dataclass(frozen=True, slots=True)
class DeadRecord:
    """A record that can't be used, and why."""

    record: Record
    reason: str
    detail: str


@dataclass(slots=True)
class Batch:
    """What one poll returned, packed.

    `n` events of `N` keys; event i belongs to key `key_index[i]`, and a key's events stand in the
    order of their offsets.

    Attributes:
        records: The n usable records, in the order polled.
        inputs: (n, H_in) float32.
        offsets: (n,) int64.
        key_index: (n,) int64, row in `keys`.
        keys: The N keys, each once.
        dead: Records for the dead-letter topic.
        next_offsets: For each partition polled: the offset after its last record here.
    """

    records: list[Record]
    inputs: FloatArray
    offsets: IntArray
    key_index: IntArray
    keys: list[PartitionKey]
    next_offsets: dict[int, Offset]
    dead: list[DeadRecord] = field(default_factory=list)

    def keep(self, mask: BoolArray) -> None:
        """Drop the events where the mask is False; the keys stay."""
        self.records = [
            record for record, is_kept in zip(self.records, mask.tolist(), strict=True) if is_kept
        ]
        self.inputs = self.inputs[mask]
        self.offsets = self.offsets[mask]
        self.key_index = self.key_index[mask]


def pack(
    records: Sequence[Record], codec: Codec, *, key_bytes_max: int, value_bytes_max: int
) -> Batch:
    """Turn polled records into one batch; what can't be used goes to `Batch.dead`.

    Pure: reads nothing but its arguments.  # A crash here replays this poll; nothing is written.

    Args:
        records: In the order of the log within each partition.
        codec: The model's wire format.
        key_bytes_max: A longer key is a dead letter.
        value_bytes_max: A longer value is a dead letter.
    """
    good: list[Record] = []
    rows: list[Any] = []
    dead: list[DeadRecord] = []
    index: dict[PartitionKey, int] = {}
    key_index: list[int] = []
    decode = codec.decode
    for record in records:
        key, value = record.key(), record.value()
        try:
            if not key or not value or len(key) > key_bytes_max or len(value) > value_bytes_max:
                raise _unusable(key, value, key_bytes_max, value_bytes_max)
            rows.append(decode(value))
        except DecodeError as error:
            dead.append(DeadRecord(record, error.reason, error.detail))
            continue
        good.append(record)
        key_index.append(index.setdefault((record.partition(), key), len(index)))
    batch = Batch(
        records=good,
        inputs=codec.to_array(rows),
        offsets=np.array([record.offset() for record in good], dtype=np.int64),
        key_index=np.array(key_index, dtype=np.int64),
        keys=list(index),
        # Records of a partition come in order, so its last one wins.  A transaction's marker
        # takes an offset of its own: this is where to go on, not a count.
        next_offsets={record.partition(): Offset(record.offset() + 1) for record in records},
        dead=dead,
    )
    _drop_not_finite(batch)
    return batch


def _unusable(
    key: bytes | None, value: bytes | None, key_bytes_max: int, value_bytes_max: int
) -> DecodeError:
    if not key:
        return DecodeError("no-key", "without a key there is no hidden state to step")
    if len(key) > key_bytes_max:
        return DecodeError("key-too-long", f"{len(key)} bytes where {key_bytes_max} are allowed")
    if value is None:
        return DecodeError("no-value", "a null value is no event")
    if not value:
        return DecodeError("empty-value", "an empty value is no event")
    return DecodeError("value-too-long", f"{len(value)} bytes where {value_bytes_max} are allowed")


def _drop_not_finite(batch: Batch) -> None:
    if np.isfinite(batch.inputs).all():
        return
    finite: BoolArray = np.asarray(np.isfinite(batch.inputs).all(axis=1))
    for i in np.flatnonzero(~finite):
        column = int(np.flatnonzero(~np.isfinite(batch.inputs[i]))[0])
        detail = f"input {column} is NaN, infinite or beyond float32"
        batch.dead.append(DeadRecord(batch.records[i], "not-finite", detail))
    batch.keep(finite)


@dataclass(frozen=True, slots=True)
class Ranks:
    """The order in which a `PackedSequence` wants the events of a batch.

    Attributes:
        events: (n,) int64.  Event of each packed position.
        batch_sizes: (L,) int64.  Keys that have an event of this rank; never grows.
        rows: (M,) int64.  Row in `Batch.keys` of each of the M keys that have an event, the
            longest first.
    """

    events: IntArray
    batch_sizes: IntArray
    rows: IntArray


def rank(key_index: IntArray) -> Ranks:
    """Rank each event within its key.

    Args:
        key_index: (n,) int64.  The key of each event, in time order.

    Example:
        >>> ranks = rank(np.array([7, 5, 7, 7]))
        >>> ranks.rows.tolist(), ranks.batch_sizes.tolist(), ranks.events.tolist()
        ([7, 5], [2, 1, 1], [0, 1, 2, 3])
    """
    by_key = np.argsort(key_index, kind="stable")
    rows, starts, lengths = np.unique(key_index[by_key], return_index=True, return_counts=True)
    longest_first = np.argsort(-lengths, kind="stable")
    place = np.empty(len(rows), dtype=np.int64)
    place[longest_first] = np.arange(len(rows))

    ranks = np.arange(len(by_key)) - np.repeat(starts, lengths)
    batch_sizes = np.bincount(ranks)
    first = np.concatenate(([0], np.cumsum(batch_sizes)[:-1])).astype(np.int64)
    events = np.empty(len(by_key), dtype=np.int64)
    events[first[ranks] + np.repeat(place, lengths)] = by_key
    return Ranks(events=events, batch_sizes=batch_sizes, rows=rows[longest_first])
