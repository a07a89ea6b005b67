"""Session gaps: sequences that end because the log's clock has moved on.

A partition's clock is the largest event time of its usable records so far.  A record that moves the
clock more than the gap past the last event of an open sequence ends that sequence, whatever the
record's key.  So the sequence of a key that never comes back is answered, too, and its state is
deleted.  This depends only on the log: a replay ends the same sequences at the same records.

One record ends at most `GAP_ENDS_MAX` sequences: its own key's first, then the longest idle ones.
The next records end the rest, so a clock that jumps overnight never causes a transaction with a
million answers.
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
    """The open sequences of one partition; changes by the current batch are separate until `keep`.

    Attributes:
        clock: The clock after the last batch kept.
        open: The clock at the last event of each open sequence, the smallest first.
        next_clock: The clock after the current batch.
        touched: Like `open`, for keys with an event in the current batch; all are later.
        gone: Keys whose entry in `open` is obsolete.
        ahead: Entries of `open` not yet examined, after `head`.
        head: The first entry of `open` not yet examined.
    """

    clock: int
    open: OrderedDict[bytes, int]
    next_clock: int = NO_TIME
    touched: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    gone: set[bytes] = field(default_factory=set)
    ahead: Iterator[tuple[bytes, int]] = iter(())
    head: tuple[bytes, int] | None = None

    def start(self) -> None:
        """Start a batch."""
        self.next_clock = self.clock
        self.touched, self.gone = OrderedDict(), set()
        self.ahead = iter(self.open.items())
        self.head = next(self.ahead, None)

    def keep(self) -> None:
        """Keep the changes by the current batch."""
        for key in self.gone:
            self.open.pop(key, None)
        self.open.update(self.touched)
        self.clock = self.next_clock
        self.start()

    def end_idle(self, before: int) -> bytes | None:
        """End the longest idle sequence if it is idle since before that time; return its key."""
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
        """End a key's sequence if it is idle since before that time; return whether it was."""
        last = self.touched.get(key)
        if last is None and key not in self.gone:
            last = self.open.get(key)
        if last is None or last >= before:
            return False
        self.gone.add(key)
        self.touched.pop(key, None)
        return True

    def end_all(self, key: bytes, before: int) -> list[bytes]:
        """End and return the sequences that a record of `key` ends, the key's own first."""
        ended = [key] if self.end_if_idle(key, before) else []
        while len(ended) < GAP_ENDS_MAX and (idle := self.end_idle(before)) is not None:
            ended.append(idle)
        return ended

    def touch(self, key: bytes, marks: int) -> None:
        """Record an event of a key."""
        self.gone.add(key)
        self.touched.pop(key, None)
        if not marks & CLOSING and marks & (START | BARE) != START | BARE:
            self.touched[key] = self.next_clock


class Sessions:
    """Finds the sequences that a session gap ends, in the partitions that this worker owns.

    Args:
        gap_ms: `SequenceRules.session_gap_ms`.
    """

    def __init__(self, gap_ms: int) -> None:
        self._gap_ms = gap_ms
        self._partitions: dict[int, _Partition] = {}

    def begin(self, partition: int, clock: int, times: Iterable[tuple[int, int, bytes]]) -> None:
        """Start to track a partition, from the contents of the store.

        Args:
            partition: Index.
            clock: Its clock; `NO_TIME` if it has had no record.
            times: For each open sequence, in any order: offset of its last event, the clock there,
                and its key.
        """
        # By offset: if several have the same clock, the order of the log decides.
        in_order = OrderedDict((key, last) for _, last, key in sorted(times))
        self._partitions[partition] = _Partition(clock, in_order)

    def forget(self, partition: int) -> None:
        """Stop tracking a partition."""
        self._partitions.pop(partition, None)

    def clock(self, partition: int) -> int:
        """Return a partition's clock after the last batch kept."""
        return self._partitions[partition].clock

    def read(self, batch: Batch) -> None:
        """Insert a bare end wherever a gap ends a sequence, and set the clock at each event.

        Changes take effect at `keep`; reading a batch again starts over.

        Args:
            batch: As returned by `pack`; events and keys are added to it.
        """
        for partition in batch.next_offsets:
            self._partitions[partition].start()
        before: list[int] = []
        ended: list[PartitionKey] = []
        clocks: list[int] = []
        keys, times_ms = list(batch.keys), batch.records.timestamps_ms.tolist()
        for event, (row, marks, time_ms) in enumerate(
            zip(batch.key_index.tolist(), batch.marks.tolist(), times_ms, strict=True)
        ):
            partition, key = keys[row]
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
        """Keep the changes that the last batch made to some partitions."""
        for partition in partitions:
            self._partitions[partition].keep()
