"""Splits a batch into sequences; each is stepped as if it belonged to a separate key.

After an end, a key starts from the initial state.  So the sequences of one key in one batch are
independent of each other, and all are stepped in parallel.  Only the first sequence of a key can
continue from the key's state, and only its last can leave a state behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from livestep.models.sequences.rules import SequenceRules
from livestep.pipeline.batch.marks import CLOSING, FORGET, START
from livestep.pipeline.batch.packing import Batch
from livestep.pipeline.types import BoolArray, IntArray

#: `Sequences.closing` of a sequence that is still open, or that a `start` dropped.
OPEN = -1


@dataclass(frozen=True, slots=True)
class Sequences:
    """The S sequences of a batch, each key's in order of time.

    Attributes:
        of_event: (n,) int64.  Sequence of each event.
        key: (S,) int64.  Row in `Batch.keys`.
        is_continued: (S,) bool.  Whether it continues from the key's state; if not, it starts from
            the initial state.
        closing: (S,) int64.  Event that closes it; `OPEN` if none does.
        is_last: (S,) bool.  Whether it is its key's last sequence in the batch.
    """

    of_event: IntArray
    key: IntArray
    is_continued: BoolArray
    closing: IntArray
    is_last: BoolArray

    def __len__(self) -> int:
        return len(self.key)


def split(batch: Batch, rules: SequenceRules) -> Sequences:
    """Split the events of a batch into sequences.

    Args:
        batch: n events of N keys.
        rules: The model's rules; if it is stateless, each event is a separate sequence.

    Example:
        >>> from types import SimpleNamespace
        >>> from livestep.pipeline.batch.marks import END
        >>> batch = SimpleNamespace(key_index=np.array([0, 1, 0, 0]), keys=["a", "b"],
        ...                         marks=np.array([0, 0, END, 0], np.uint8))
        >>> sequences = split(batch, SequenceRules())
        >>> sequences.of_event.tolist(), sequences.closing.tolist()
        ([0, 2, 0, 1], [2, -1, -1])
    """
    if rules.is_stateless:
        return _each_event(batch)
    if not batch.marks.any():
        return _each_key(batch)
    by_key = np.argsort(batch.key_index, kind="stable")
    keys, marks = batch.key_index[by_key], batch.marks[by_key]
    is_first = np.ones(len(keys), dtype=bool)
    is_first[1:] = keys[1:] != keys[:-1]
    is_closing = (marks & CLOSING) != 0
    is_start = (marks & START) != 0
    begins = is_first | is_start
    begins[1:] |= is_closing[:-1]
    number = np.cumsum(begins) - 1
    first_events = np.flatnonzero(begins)

    of_event = np.empty(len(keys), dtype=np.int64)
    of_event[by_key] = number
    closing = np.full(len(first_events), OPEN, dtype=np.int64)
    closing[number[is_closing]] = by_key[is_closing]
    key = keys[first_events]
    is_last = np.ones(len(key), dtype=bool)
    is_last[:-1] = key[1:] != key[:-1]
    is_continued = is_first[first_events] & ~is_start[first_events]
    return Sequences(of_event, key, is_continued, closing, is_last)


def _each_key(batch: Batch) -> Sequences:
    """Return one continued sequence per key, for a batch without marks."""
    count = len(batch.keys)
    every = np.ones(count, dtype=bool)
    return Sequences(
        batch.key_index, np.arange(count), every, np.full(count, OPEN, dtype=np.int64), every
    )


def _each_event(batch: Batch) -> Sequences:
    """Return one sequence per event, for a stateless model; a tombstone gets no answer."""
    events = np.arange(len(batch.key_index))
    none = np.zeros(len(events), dtype=bool)
    closing = np.where(batch.marks & FORGET, OPEN, events)
    return Sequences(events, batch.key_index, none, closing, none)
