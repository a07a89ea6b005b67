"""The verb pack: records into arrays, grouped by key and ranked by time.

A batch of a keyed stream is a `PackedSequence`: the rank of an event within its key (0 for the
key's first event of the batch, 1 for its second, ...) is its time step.
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

#: Reads a record's headers. Where the name of one is no UTF-8, confluent-kafka (2.16) gives a list
#: with a hole in it and sets an exception: a plain call may miss the exception, and then whoever
#: looks into the list kills the process. A call from C always sees it: SystemError.
_read_headers: Callable[[Record], Any] = operator.methodcaller("headers")


@dataclass(frozen=True, slots=True)
class DeadRecord:
    """A record that can't be used, and why.

    Attributes:
        record: The record.
        reason: Code.
        detail: One sentence.
        has_headers: False if its headers can't be read.
    """

    record: Record
    reason: str
    detail: str
    has_headers: bool = True


@dataclass(slots=True)
class Batch:
    """What one poll returned, packed.

    `n` events of `N` keys; event i belongs to key `key_index[i]`, and a key's events stand in the
    order of their offsets.

    Attributes:
        records: The n usable records, in the order polled.
        inputs: (n, H_in) float32; zeros where there are no features.  All columns of an input are
            NaN where the event leaves it to the feedback.
        offsets: (n,) int64.
        key_index: (n,) int64, row in `keys`.
        marks: (n,) uint8, bits of `pipeline.batch.marks`.
        steps_max: (n,) int64.  Steps that an event asks for; 0 for as many as the model allows.
        keys: The N keys, each once.
        dead: Records for the dead-letter topic.
        refused_count: How many of `dead` are among `records`, too: their step was refused.
        next_offsets: For each partition polled: the offset after its last record here.
        clocks: (n,) int64.  With a session gap: the partition's clock at each event, ms.
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
        """How many events of the log these are: n, without the session gaps among them."""
        return int(np.count_nonzero((self.marks & marks.GAP) == 0))

    def keep(self, mask: BoolArray) -> None:
        """Drop the events where the mask is False; the keys stay."""
        self._choose(np.flatnonzero(mask))

    def times_ms(self) -> list[int]:
        """Give the event time of each event, n of them."""
        return [record.timestamp()[1] for record in self.records]

    def insert_ends(self, before: IntArray, ended: Sequence[PartitionKey]) -> None:
        """Put in bare ends, each before an event whose record it shares: session gaps.

        Args:
            before: (m,).  Events, ascending.
            ended: The m keys whose sequences end; some may not be among `keys` yet.
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
        """Go on with these events, in this order."""
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
    marked: list[tuple[int, int, int]] = []  # event, marks, steps asked for
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
        # takes an offset of its own: this is where to go on, not a count.
        next_offsets={record.partition(): Offset(record.offset() + 1) for record in records},
        dead=dead,
    )
    _drop_not_finite(batch, codec.feedback_columns)
    return batch


def _with_unreadable_headers(record: Record, error: Exception) -> DeadRecord:
    """Put aside a record whose headers confluent-kafka can't give: a name of one is no UTF-8."""
    cause = error.__cause__ if isinstance(error, SystemError) else error
    if not isinstance(cause, UnicodeDecodeError):
        raise error
    detail = f"the name of a header is no UTF-8: {cause}"
    return DeadRecord(record, "bad-header", detail, has_headers=False)


def _unusable_key(key: bytes | None, key_bytes_max: int) -> DecodeError:
    if not key:
        return DecodeError("no-key", "without a key there is no hidden state to step")
    return DecodeError("key-too-long", f"{len(key)} bytes where {key_bytes_max} are allowed")


def _mark_without_value(value: bytes | None, bits: int, value_bytes_max: int) -> int:
    """Say what a record without a usable value is: a tombstone, or its marks, which are bare.

    Raises:
        DecodeError: If it is neither.
    """
    if value is None:
        return marks.FORGET
    if value:
        detail = f"{len(value)} bytes where {value_bytes_max} are allowed"
        raise DecodeError("value-too-long", detail)
    if not bits:
        raise DecodeError("empty-value", "an empty value is an event with a mark in its headers")
    return bits | marks.BARE


def _check_steps(steps_max: int, limit: int) -> None:
    if steps_max > limit:
        detail = f"{steps_max} steps where {limit} are allowed"
        if not limit:
            detail = "this model generates nothing"
        raise DecodeError("bad-steps-max", detail)


def _drop_not_finite(batch: Batch, feedback_columns: Sequence[slice]) -> None:
    finite = np.isfinite(batch.inputs)
    if finite.all():
        return
    for block in feedback_columns:
        # NaN in all of them: left to the feedback.
        finite[np.isnan(batch.inputs[:, block]).all(axis=1), block] = True
    is_good: BoolArray = np.asarray(finite.all(axis=1))
    for i in np.flatnonzero(~is_good):
        column = int(np.flatnonzero(~finite[i])[0])
        detail = f"input {column} is NaN, infinite or beyond float32"
        batch.dead.append(DeadRecord(batch.records[i], "not-finite", detail))
    batch.keep(is_good)


@dataclass(frozen=True, slots=True)
class Ranks:
    """The order in which a `PackedSequence` wants the events of a batch.

    Attributes:
        events: (n,) int64.  Event of each packed position.
        batch_sizes: (L,) int64.  Sequences that have an event of this rank; never grows.
        rows: (M,) int64.  Number of each of the M sequences that have an event, the longest first.
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
