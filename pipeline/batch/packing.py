"""The verb pack: converts records to arrays, grouped by key and ranked by time.

A batch of a keyed stream is a `PackedSequence`: the rank of an event within its key (0 for the
key's first event in the batch, 1 for its second, ...) is its time step.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from livestep.pipeline.batch import marks
from livestep.pipeline.batch.codec import Codec
from livestep.pipeline.errors import DecodeError
from livestep.pipeline.types import (
    BoolArray,
    FloatArray,
    IntArray,
    MarkArray,
    Offset,
    PartitionKey,
    Record,
)

#: Reads a record's headers. If a header name is not UTF-8, confluent-kafka 2.16 returns a list with
#: a NULL entry and sets an exception, which a plain Python call may miss; reading that list then
#: crashes the process. A call from C always sees the exception, as SystemError.
_read_headers: Callable[[Record], Any] = operator.methodcaller("headers")


@dataclass(frozen=True, slots=True)
class DeadRecord:
    """A record that can't be processed, and why.

    Attributes:
        record: The record.
        reason: Code.
        detail: The reason in one sentence.
        has_headers: False if its headers can't be read.
    """

    record: Record
    reason: str
    detail: str
    has_headers: bool = True


@dataclass(slots=True)
class Batch:
    """The records of one poll, packed.

    There are `n` events of `N` keys; event i belongs to key `key_index[i]`, and the events of a key
    are in the order of their offsets.

    Attributes:
        records: The n usable records, in the order polled.
        inputs: (n, H_in) float32; zeros for an event without features.  All columns of an input are
            NaN if the event leaves it to the feedback.
        offsets: (n,) int64.
        key_index: (n,) int64, row in `keys`.
        marks: (n,) uint8, bits of `pipeline.batch.marks`.
        steps_max: (n,) int64.  Steps that an event requests; 0 for as many as the model allows.
        keys: The N keys, each once.
        dead: Records for the dead-letter topic.
        refused_count: How many of `dead` are also in `records`, because their step was refused.
        next_offsets: For each partition polled, the offset after its last record here.
        clocks: (n,) int64.  With a session gap, the partition's clock at each event, ms.
    """

    records: list[Record]
    inputs: FloatArray
    offsets: IntArray
    key_index: IntArray
    marks: MarkArray
    steps_max: IntArray
    keys: list[PartitionKey]
    next_offsets: dict[int, Offset]
    dead: list[DeadRecord] = field(default_factory=list)
    refused_count: int = 0
    clocks: IntArray | None = None

    @property
    def event_count(self) -> int:
        """Number of events from the log: n, not counting inserted session gaps."""
        return int(np.count_nonzero((self.marks & marks.GAP) == 0))

    def keep(self, mask: BoolArray) -> None:
        """Drop the events where the mask is False; `keys` is unchanged."""
        self._choose(np.flatnonzero(mask))

    def times_ms(self) -> list[int]:
        """Return the event time of each of the n events."""
        return [record.timestamp()[1] for record in self.records]

    def insert_ends(self, before: IntArray, ended: Sequence[PartitionKey]) -> None:
        """Insert session gaps: bare ends, each before an event whose record it shares.

        Args:
            before: (m,).  Events to insert before, ascending.
            ended: The m keys whose sequences end; some may not be in `keys` yet.
        """
        if not ended:
            return
        rows = {key: row for row, key in enumerate(self.keys)}
        key_rows = [rows.setdefault(key, len(rows)) for key in ended]
        self.keys = list(rows)
        self._choose(np.insert(np.arange(len(self.records)), before, before))
        gaps = before + np.arange(len(before))
        self.key_index[gaps] = key_rows
        self.inputs[gaps] = 0
        self.marks[gaps] = marks.END | marks.BARE | marks.GAP
        self.steps_max[gaps] = 0

    def _choose(self, events: IntArray) -> None:
        """Keep only these events, in this order."""
        self.records = [self.records[i] for i in events.tolist()]
        self.inputs = self.inputs[events]
        self.offsets = self.offsets[events]
        self.key_index = self.key_index[events]
        self.marks = self.marks[events]
        self.steps_max = self.steps_max[events]
        if self.clocks is not None:
            self.clocks = self.clocks[events]


def pack(
    records: Sequence[Record], codec: Codec, *, key_bytes_max: int, value_bytes_max: int
) -> Batch:
    """Convert polled records to one batch; invalid records go to `Batch.dead`.

    It has no side effects and depends only on its arguments.

    Args:
        records: In the order of the log within each partition.
        codec: The model's wire format.
        key_bytes_max: A record with a longer key becomes a dead letter.
        value_bytes_max: A record with a longer value becomes a dead letter.
    """
    # A crash here replays this poll; nothing is written.
    good: list[Record] = []
    rows: list[Any] = []
    dead: list[DeadRecord] = []
    index: dict[PartitionKey, int] = {}
    key_index: list[int] = []
    marked: list[tuple[int, int, int]] = []  # event, marks, requested steps
    decode, steps_limit = codec.decode, codec.steps_limit
    for record in records:
        key, value = record.key(), record.value()
        bits = steps = 0
        try:
            if headers := _read_headers(record):
                bits, steps = marks.marks_of(headers)
                _check_steps(steps, steps_limit)
            if not key or len(key) > key_bytes_max:
                raise _unusable_key(key, key_bytes_max)
            if value and len(value) <= value_bytes_max:
                rows.append(decode(value, bits))
            else:
                bits = _mark_without_value(value, bits, value_bytes_max)
                rows.append(None)
        except DecodeError as error:
            dead.append(DeadRecord(record, error.reason, error.detail))
            continue
        except (SystemError, UnicodeDecodeError) as error:
            dead.append(_with_unreadable_headers(record, error))
            continue
        if bits or steps:
            marked.append((len(good), bits, steps))
        good.append(record)
        key_index.append(index.setdefault((record.partition(), key), len(index)))
    inputs, bits_of, steps_of = codec.to_arrays(rows)
    for event, bits, steps in marked:
        bits_of[event] |= bits
        steps_of[event] = steps or steps_of[event]
    batch = Batch(
        records=good,
        inputs=inputs,
        offsets=np.array([record.offset() for record in good], dtype=np.int64),
        key_index=np.array(key_index, dtype=np.int64),
        marks=bits_of,
        steps_max=steps_of,
        keys=list(index),
        # Records of a partition come in order, so its last one wins.  A transaction's marker
        # has an offset, too: this is the position to continue from, not a count.
        next_offsets={record.partition(): Offset(record.offset() + 1) for record in records},
        dead=dead,
    )
    _drop_not_finite(batch, codec.feedback_columns)
    return batch


def _with_unreadable_headers(record: Record, error: Exception) -> DeadRecord:
    """Return a dead record for headers that can't be read because a name is not UTF-8."""
    cause = error.__cause__ if isinstance(error, SystemError) else error
    if not isinstance(cause, UnicodeDecodeError):
        raise error
    detail = f"a header name is not valid UTF-8: {cause}"
    return DeadRecord(record, "bad-header", detail, has_headers=False)


def _unusable_key(key: bytes | None, key_bytes_max: int) -> DecodeError:
    if not key:
        return DecodeError("no-key", "the record has no key, and every hidden state needs one")
    return DecodeError("key-too-long", f"{len(key)} bytes; the limit is {key_bytes_max}")


def _mark_without_value(value: bytes | None, bits: int, value_bytes_max: int) -> int:
    """Return the marks of a record without a value: a tombstone, or a bare mark by its headers.

    Raises:
        DecodeError: If it is neither, or its value is too long.
    """
    if value is None:
        return marks.FORGET
    if value:
        detail = f"{len(value)} bytes; the limit is {value_bytes_max}"
        raise DecodeError("value-too-long", detail)
    if not bits:
        raise DecodeError("empty-value", "an empty value needs a mark in the record's headers")
    return bits | marks.BARE


def _check_steps(steps_max: int, limit: int) -> None:
    if steps_max > limit:
        detail = f"{steps_max} steps; the limit is {limit}"
        if not limit:
            detail = "this model does not generate sequences"
        raise DecodeError("bad-steps-max", detail)


def _drop_not_finite(batch: Batch, feedback_columns: Sequence[slice]) -> None:
    finite = np.isfinite(batch.inputs)
    if finite.all():
        return
    for block in feedback_columns:
        # NaN in all columns means that the input is left to the feedback.
        finite[np.isnan(batch.inputs[:, block]).all(axis=1), block] = True
    is_good: BoolArray = np.asarray(finite.all(axis=1))
    for i in np.flatnonzero(~is_good):
        column = int(np.flatnonzero(~finite[i])[0])
        detail = f"input {column} is NaN, infinite, or out of range for float32"
        batch.dead.append(DeadRecord(batch.records[i], "not-finite", detail))
    batch.keep(is_good)


@dataclass(frozen=True, slots=True)
class Ranks:
    """The order of a batch's events in a `PackedSequence`.

    Attributes:
        events: (n,) int64.  Event at each packed position.
        batch_sizes: (L,) int64.  Number of sequences with an event of each rank; never increases.
        rows: (M,) int64.  The M sequences that have an event, the longest first.
    """

    events: IntArray
    batch_sizes: IntArray
    rows: IntArray


def rank(sequence_index: IntArray) -> Ranks:
    """Rank each event within its sequence.

    Args:
        sequence_index: (n,) int64.  The sequence of each event, in time order.

    Example:
        >>> ranks = rank(np.array([7, 5, 7, 7]))
        >>> ranks.rows.tolist(), ranks.batch_sizes.tolist(), ranks.events.tolist()
        ([7, 5], [2, 1, 1], [0, 1, 2, 3])
    """
    by_sequence = np.argsort(sequence_index, kind="stable")
    rows, starts, lengths = np.unique(
        sequence_index[by_sequence], return_index=True, return_counts=True
    )
    longest_first = np.argsort(-lengths, kind="stable")
    place = np.empty(len(rows), dtype=np.int64)
    place[longest_first] = np.arange(len(rows))

    ranks = np.arange(len(by_sequence)) - np.repeat(starts, lengths)
    batch_sizes = np.bincount(ranks)
    first = np.concatenate(([0], np.cumsum(batch_sizes)[:-1])).astype(np.int64)
    events = np.empty(len(by_sequence), dtype=np.int64)
    events[first[ranks] + np.repeat(place, lengths)] = by_sequence
    return Ranks(events=events, batch_sizes=batch_sizes, rows=rows[longest_first])
