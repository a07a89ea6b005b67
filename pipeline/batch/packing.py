"""The verb pack: converts records to arrays, grouped by key and ranked by time.

A batch of a keyed stream is a `PackedSequence`: the rank of an event within its key (0 for the
key's first event in the batch, 1 for its second, ...) is its time step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from livestep.pipeline.batch import marks
from livestep.pipeline.batch.codec import Codec
from livestep.pipeline.batch.event_headers import EventHeaders, read_headers
from livestep.pipeline.columns.byte_column import ByteColumn
from livestep.pipeline.columns.keys import Keys, group
from livestep.pipeline.columns.log_records import LogRecord, Records
from livestep.pipeline.errors import DecodeError
from livestep.pipeline.types import (
    BoolArray,
    FloatArray,
    IntArray,
    MarkArray,
    Offset,
    PartitionKey,
)


@dataclass(frozen=True, slots=True)
class DeadRecord:
    """A record that can't be processed, and why.

    Attributes:
        record: The record.
        reason: Code.
        detail: The reason in one sentence.
    """

    record: LogRecord
    reason: str
    detail: str


@dataclass(slots=True)
class Batch:
    """The records of one poll, packed.

    There are `n` events of `N` keys; event i belongs to key `key_index[i]`, and the events of a key
    are in the order of their offsets.

    Attributes:
        records: The n usable records, in the order polled.
        inputs: (n, H_in) float32; zeros for an event without features.  All columns of an input are
            NaN if the event leaves it to the feedback.
        key_index: (n,) int64, row in `keys`.
        marks: (n,) uint8, bits of `pipeline.batch.marks`.
        steps_max: (n,) int64.  Steps that an event requests; 0 for as many as the model allows.
        keys: The N keys, each once.
        dead: Records for the dead-letter topic.
        refused_count: How many of `dead` are also in `records`, because their step was refused.
        next_offsets: For each partition polled, the offset after its last record here.
        clocks: (n,) int64.  With a session gap, the partition's clock at each event, ms.
    """

    records: Records
    inputs: FloatArray
    key_index: IntArray
    marks: MarkArray
    steps_max: IntArray
    keys: Keys
    next_offsets: dict[int, Offset]
    dead: list[DeadRecord] = field(default_factory=list)
    refused_count: int = 0
    clocks: IntArray | None = None

    @property
    def offsets(self) -> IntArray:
        """Offset of each event: (n,) int64."""
        return self.records.offsets

    @property
    def event_count(self) -> int:
        """Number of events from the log: n, not counting inserted session gaps."""
        return int(np.count_nonzero((self.marks & marks.GAP) == 0))

    def keep(self, mask: BoolArray) -> None:
        """Drop the events where the mask is False; `keys` is unchanged."""
        self._choose(np.flatnonzero(mask))

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
        self.keys = Keys.of(rows)
        self._choose(np.insert(np.arange(len(self.records)), before, before))
        gaps = before + np.arange(len(before))
        self.key_index[gaps] = key_rows
        self.inputs[gaps] = 0
        self.marks[gaps] = marks.END | marks.BARE | marks.GAP
        self.steps_max[gaps] = 0

    def _choose(self, events: IntArray) -> None:
        """Keep only these events, in this order."""
        self.records = self.records.take(events)
        self.inputs = self.inputs[events]
        self.key_index = self.key_index[events]
        self.marks = self.marks[events]
        self.steps_max = self.steps_max[events]
        if self.clocks is not None:
            self.clocks = self.clocks[events]


def pack(records: Records, codec: Codec, *, key_bytes_max: int, value_bytes_max: int) -> Batch:
    """Convert polled records to one batch; invalid records go to `Batch.dead`.

    It has no side effects and depends only on its arguments.

    Args:
        records: In the order of the log within each partition.
        codec: The model's wire format.
        key_bytes_max: A record with a longer key becomes a dead letter.
        value_bytes_max: A record with a longer value becomes a dead letter.
    """
    # A crash here replays this poll; nothing is written.
    headers = read_headers(records.headers, codec.steps_limit)
    value_bytes = records.values.lengths()
    errors = {
        **_unreadable_values(value_bytes, headers, value_bytes_max),
        **_unusable_keys(records.keys, key_bytes_max),
        **headers.errors,  # the first error of a record counts, and headers are read first
    }
    is_read = (value_bytes > 0) & (value_bytes <= value_bytes_max)
    is_read[list(errors)] = False
    decoded = codec.read(records.values, is_read, headers.marks)
    bits, steps_max = decoded.marks, decoded.steps_max
    bits[value_bytes < 0] |= marks.FORGET
    for event, of_headers in headers.marks.items():
        # A tombstone deletes the key's state, whatever its headers say.
        bits[event] |= of_headers if value_bytes[event] >= 0 else 0
    for event, steps in headers.steps_max.items():
        steps_max[event] = steps
    next_offsets = {partition: Offset(end) for partition, end in records.ends().items()}
    errors |= decoded.errors
    dead = [
        DeadRecord(records[event], errors[event].reason, errors[event].detail)
        for event in sorted(errors)
    ]
    inputs = decoded.inputs
    if errors:
        is_good = np.ones(len(records), dtype=bool)
        is_good[list(errors)] = False
        good = np.flatnonzero(is_good)
        records, inputs = records.take(good), inputs[good]
        bits, steps_max = bits[good], steps_max[good]
    key_index, first = group(records.partitions, records.keys)
    batch = Batch(
        records=records,
        inputs=inputs,
        key_index=key_index,
        marks=bits,
        steps_max=steps_max,
        keys=Keys(records.partitions[first], records.keys.take(first)),
        next_offsets=next_offsets,
        dead=dead,
    )
    _drop_not_finite(batch, codec.feedback_columns)
    return batch


def _unusable_keys(keys: ByteColumn, key_bytes_max: int) -> dict[int, DecodeError]:
    """Return why keys can't be used: they are missing, empty or too long."""
    key_bytes = keys.lengths()
    errors = {}
    for event in np.flatnonzero((key_bytes <= 0) | (key_bytes > key_bytes_max)).tolist():
        reason, detail = "no-key", "the record has no key, and every hidden state needs one"
        if key_bytes[event] > 0:
            reason, detail = (
                "key-too-long",
                f"{key_bytes[event]} bytes; the limit is {key_bytes_max}",
            )
        errors[event] = DecodeError(reason, detail)
    return errors


def _unreadable_values(
    value_bytes: IntArray, headers: EventHeaders, value_bytes_max: int
) -> dict[int, DecodeError]:
    """Return why values are not read: they are too long, or empty without a mark in the headers."""
    errors = {}
    for event in np.flatnonzero((value_bytes == 0) | (value_bytes > value_bytes_max)).tolist():
        if value_bytes[event]:
            detail = f"{value_bytes[event]} bytes; the limit is {value_bytes_max}"
            errors[event] = DecodeError("value-too-long", detail)
        elif not headers.marks.get(event):
            detail = "an empty value needs a mark in the record's headers"
            errors[event] = DecodeError("empty-value", detail)
    return errors


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
        batch.dead.append(DeadRecord(batch.records[int(i)], "not-finite", detail))
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
