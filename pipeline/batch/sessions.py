"""Session gaps: sequences that the log's clock ends.

A partition's clock is the largest event time of its usable records so far.  An open sequence whose
last event came more than the gap before the clock is ended by the record that has moved it there,
whosever that is: also the sequence of a key that never comes back gets its answer, and its state
goes.  It is a matter of the log alone: a replay ends the same sequences at the same records.

One record ends a few sequences at most, its own key's first, then the longest idle ones, and the
next records go on: a clock that leaps over a night must not make one transaction of a million
answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from livestep.models.sequences.rules import GAP_ENDS_MAX
from livestep.pipeline.batch.marks import BARE, CLOSING, START
from livestep.pipeline.batch.packing import Batch
from livestep.pipeline.types import NO_TIME, PartitionKey


@dataclass(slots=True)
class _Partition:
    """The open sequences of one partition; those of a batch in the works apart, until it counts.

    Attributes:
        clock: After the last batch that counts.
        open: The clock at the last event of each open sequence, the smallest first.
        next_clock: After the batch in the works.
        touched: As `open`, of the keys that the batch has an event of; all of them come later.
        gone: Keys whose entry in `open` no longer counts.
        ahead: What is left of `open` to look at, and `head` its first.
    """

    clock: int
    open: OrderedDict[bytes, int]
    next_clock: int = NO_TIME
    touched: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    gone: set[bytes] = field(default_factory=set)
    ahead: Iterator[tuple[bytes, int]] = iter(())
    head: tuple[bytes, int] | None = None

    def start(self) -> None:
        """Begin with a batch."""
        self.next_clock = self.clock
        self.touched, self.gone = OrderedDict(), set()
        self.ahead = iter(self.open.items())
        self.head = next(self.ahead, None)

    def keep(self) -> None:
        """Let the batch count."""
        for key in self.gone:
            self.open.pop(key, None)
        self.open.update(self.touched)
        self.clock = self.next_clock
        self.start()

    def end_idle(self, before: int) -> bytes | None:
        """End the longest idle sequence if its last event is older than that; give its key."""
        while self.head is not None and self.head[0] in self.gone:
            self.head = next(self.ahead, None)
        if self.head is not None:
            key, last = self.head
            if last >= before:
                return None
            self.gone.add(key)
            return key
        if self.touched:
            key, last = next(iter(self.touched.items()))
            if last < before:
                del self.touched[key]
                return key
        return None

    def end_if_idle(self, key: bytes, before: int) -> bool:
        """End a key's own sequence if its last event is older than that; say whether it was."""
        last = self.touched.get(key)
        if last is None and key not in self.gone:
            last = self.open.get(key)
        if last is None or last >= before:
            return False
        self.gone.add(key)
        self.touched.pop(key, None)
        return True

    def end_all(self, key: bytes, before: int) -> list[bytes]:
        """End what a record of a key ends: its own sequence first, then the longest idle ones."""
        ended = [key] if self.end_if_idle(key, before) else []
        while len(ended) < GAP_ENDS_MAX and (idle := self.end_idle(before)) is not None:
            ended.append(idle)
        return ended

    def touch(self, key: bytes, marks: int) -> None:
        """Take an event of a key."""
        self.gone.add(key)
        self.touched.pop(key, None)
        if not marks & CLOSING and marks & (START | BARE) != START | BARE:
            self.touched[key] = self.next_clock


class Sessions:
    """Finds the sequences that a gap ends, over the partitions that this worker has.

    Args:
        gap_ms: `SequenceRules.session_gap_ms`.
    """

    def __init__(self, gap_ms: int) -> None:
        self._gap_ms = gap_ms
        self._partitions: dict[int, _Partition] = {}

    def begin(self, partition: int, clock: int, times: Iterable[tuple[int, int, bytes]]) -> None:
        """Follow a partition from what the store holds.

        Args:
            partition: Index.
            clock: Its clock; `NO_TIME` if no record was seen.
            times: Of each open sequence, in any order: offset of its last event, the clock there,
                and its key.
        """
        # By the offset: many may have one clock, and then the order of the log counts.
        in_order = OrderedDict((key, last) for _, last, key in sorted(times))
        self._partitions[partition] = _Partition(clock, in_order)

    def forget(self, partition: int) -> None:
        """Follow a partition no longer."""
        self._partitions.pop(partition, None)

    def clock(self, partition: int) -> int:
        """Give a partition's clock after the last batch that counts."""
        return self._partitions[partition].clock

    def read(self, batch: Batch) -> None:
        """Put in a bare end wherever a gap ends a sequence, and note the clock at each event.

        Nothing of it counts until `keep`; a batch that is read again begins anew.

        Args:
            batch: As packed; gets further events, and keys.
        """
        for partition in batch.next_offsets:
            self._partitions[partition].start()
        before: list[int] = []
        ended: list[PartitionKey] = []
        clocks: list[int] = []
        for event, (row, marks, time_ms) in enumerate(
            zip(batch.key_index.tolist(), batch.marks.tolist(), batch.times_ms(), strict=True)
        ):
            partition, key = batch.keys[row]
            one = self._partitions[partition]
            one.next_clock = max(one.next_clock, time_ms)
            clocks.append(one.next_clock)
            for idle in one.end_all(key, one.next_clock - self._gap_ms):
                before.append(event)
                ended.append((partition, idle))
            one.touch(key, marks)
        batch.clocks = np.array(clocks, dtype=np.int64)
        batch.insert_ends(np.array(before, dtype=np.int64), ended)

    def keep(self, partitions: Iterable[int]) -> None:
        """Let what the last batch has done to some partitions count."""
        for partition in partitions:
            self._partitions[partition].keep()
