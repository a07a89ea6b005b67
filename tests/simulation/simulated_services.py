"""Log and store in memory, at whose calls a process may be interrupted, hurt or ended.

Nothing of their semantics is here: that is `pipeline.memory`'s, as it is tested against Kafka and
Redis.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from livestep import LoadedModel, MemoryBroker, MemoryStore
from livestep.pipeline.engine.log import AbortedError
from livestep.pipeline.errors import BrokerError, StoreError
from livestep.pipeline.memory.memory_log import MemoryLog
from livestep.pipeline.settings import Settings
from livestep.pipeline.state.state_records import HEADER_BYTES, read_header
from livestep.pipeline.state.store import CLOCK_KEY, SaveRefusedError
from livestep.pipeline.state.stored_partition import read_number
from livestep.pipeline.types import Offset, Outgoing
from tests.simulation.baton import Ended
from tests.simulation.simulated_faults import Fault, Place
from tests.support.damages import FIELDS, RECORDS, Changes, Scene

#: Writes that a failover can lose at most.
_WRITES_MAX = 100

#: Changes of a record that need not know how the worker makes its checksum.
_CHANGED_RECORDS = (
    "truncated",
    "empty",
    "the header alone",
    "no record at all",
    "longer",
    "of an older version, without a checksum",
    "a bit of the state turned",
    "a bit of the checksum turned",
    "zeros",
    "an earlier offset",
    "an offset of the future",
    "other timesteps",
    "another key's",
)

_CLOCK_FIELD = b"k" + CLOCK_KEY


class Meeting(Protocol):
    """What is called at a point within a verb; gives the faults that it leaves to the caller."""

    def __call__(self, place: Place, when: str, what: str) -> list[Fault]: ...


class Witness(Protocol):
    """Who is told of what reaches the broker."""

    def take_commit(self, offsets: Mapping[int, tuple[Offset, str]]) -> None:
        """Take a commit as it is made."""

    def take_sending(self, log: MemoryLog, topic: str, record: Outgoing) -> None:
        """Take a record that is about to be sent, seen at once."""


class SimulatedLog(MemoryLog):
    """One process' view of the broker.

    Args:
        broker: Where the topics are.
        settings: Topics and guarantee.
        worker_id: The transactional id.
        witness: Told of each commit, and of each record that is sent outside of a transaction.
        meet: Called at each point.
        is_over: Whether the process is no more.
        rng: Draws how many records a ragged poll gives; None for all.

    Attributes:
        is_open: Whether a transaction is open.
        is_to_abort: Whether the broker has aborted it.
        silent_polls: Polls that will give nothing.
    """

    def __init__(
        self,
        broker: MemoryBroker,
        settings: Settings,
        worker_id: str,
        *,
        witness: Witness,
        meet: Meeting,
        is_over: Callable[[], bool],
        rng: random.Random | None,
    ) -> None:
        super().__init__(broker, settings, worker_id)
        self._witness = witness
        self._meet = meet
        self._is_over = is_over
        self._rng = rng
        self.is_open = False
        self.is_to_abort = False
        self.silent_polls = 0

    def poll(self, records_max: int, timeout_s: float) -> Any:
        """Poll, or give nothing."""
        if self._rng is not None:
            records_max = self._rng.randint(1, records_max)
        self._meet("log", "before", "poll")
        if self.silent_polls:
            # A member hears of a rebalance anyway.
            self.silent_polls -= 1
            records_max = 0
        records = super().poll(records_max, timeout_s)
        self._meet("log", "after", "poll")
        return records

    def committed(
        self, partitions: Collection[int] | None = None
    ) -> dict[int, tuple[Offset | None, str]]:
        """Read the commits."""
        self._meet("log", "before", "committed")
        found = super().committed(partitions)
        self._meet("log", "after", "committed")
        return found

    def send(self, topic: str, records: Iterable[Outgoing]) -> None:
        """Send one record after the other."""
        for record in records:
            self._meet("log", "before", "send")
            if not self._is_transactional:
                self._witness.take_sending(self, topic, record)
            super().send(topic, [record])
            self.is_open = self._is_transactional
        self._meet("log", "after", "send")

    def commit(self, offsets: Mapping[int, tuple[Offset, str]]) -> None:
        """Commit, or let the sender be told something else."""
        faults = self._meet("log", "before", "commit")
        if any(fault.kind == "unknown" for fault in faults):
            raise BrokerError("simulated: no answer to the commit, which has not arrived")
        if self.is_to_abort and self._producer is not None:
            self._producer.end(is_committed=False)
            self.is_open = self.is_to_abort = False
            raise AbortedError("simulated: the broker has aborted the transaction")
        try:
            super().commit(offsets)
            self._witness.take_commit(offsets)
        finally:
            self.is_open = False
        faults = self._meet("log", "after", "commit")
        if any(fault.kind == "unknown" for fault in faults):
            raise BrokerError("simulated: no answer to the commit, which has arrived")

    def close(self) -> None:
        """Leave; the dead can't."""
        if self._is_over():
            raise Ended
        super().close()
        self.is_open = False


class SimulatedStore(MemoryStore):
    """The store of all processes.

    Args:
        save_keys_max: States of one write.
        meet: Called at each point, for every caller.
        tell: Called with what a write has done.

    Attributes:
        dirty: Partitions that have changed since somebody has looked.
        ends: For each partition and key the last offset at which a state was taken away.
        changed: What somebody has put into a field of a partition, None if it was taken away.
    """

    def __init__(self, save_keys_max: int, meet: Meeting, tell: Callable[[str], None]) -> None:
        super().__init__(save_keys_max)
        self._meet = meet
        self._tell = tell
        self._before: deque[MemoryStore] = deque(maxlen=_WRITES_MAX)
        self.dirty: set[int] = set()
        self.ends: dict[tuple[int, bytes], int] = {}
        self.changed: dict[tuple[int, bytes], bytes | None] = {}

    def describe(self, partitions: Sequence[int]) -> Any:
        """Describe, if the store answers."""
        self._called("before", "describe")
        found = super().describe(partitions)
        self._called("after", "describe")
        return found

    def begin(self, partition: int, **arguments: Any) -> None:
        """Begin, if the store answers."""
        self._called("before", "begin")
        self._note(partition)
        super().begin(partition, **arguments)
        if self._called("after", "begin"):
            super().begin(partition, **arguments)

    def load(self, partition: int, keys: Sequence[bytes]) -> Any:
        """Load, if the store answers."""
        self._called("before", "load")
        found = super().load(partition, keys)
        self._called("after", "load")
        return found

    def scan(self, partition: int) -> Iterator[dict[bytes, bytes]]:
        """Scan, if the store answers."""
        self._called("before", "scan")
        yield from super().scan(partition)

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
        """Write, if the store answers."""
        self._called("before", "write")
        self._note(partition)
        for _ in range(2):
            what = f"save    in Redis, {partition}: {expected} -> {applied}, {len(records)} states"
            try:
                super().write(partition, expected, applied, records, chunk=chunk, is_last=is_last)
            except SaveRefusedError as error:
                self._tell(f"{what}, refused: {error}")
                raise
            self._tell(f"{what}{'' if is_last else f', chunk {chunk}'}")
            for key, record in records.items():
                offset, timesteps = read_header(record)
                if timesteps < 0:
                    place = partition, key
                    self.ends[place] = max(self.ends.get(place, -1), offset)
            if not self._called("after", "write"):
                return

    def fail_over(self, writes: int) -> None:
        """Lose the last writes."""
        last: MemoryStore | None = None
        for _ in range(min(writes, len(self._before))):
            last = self._before.pop()
        if last is not None:
            self.restore(last)
            self.dirty |= set(self._hashes)

    def lose_all(self) -> None:
        """Lose everything."""
        self._note(*self._hashes)
        self.flush()

    def evict(self, partition: int) -> None:
        """Lose one hash."""
        self._note(partition)
        self._hashes.pop(partition, None)

    def change_some(self, partition: int, rng: random.Random, model: LoadedModel) -> str:
        """Change something of a partition as somebody else might; say what, nothing if all is."""
        fields = self.fields(partition)
        keys = sorted(name[1:] for name in fields if name[:1] == b"k" and name != _CLOCK_FIELD)
        changes: Changes = {}
        if keys and rng.random() < 0.7:
            name = rng.choice(_CHANGED_RECORDS)
            key, other = rng.choice(keys), rng.choice(keys)
            if len(fields[b"k" + key]) > HEADER_BYTES:
                changes = RECORDS[name][0](Scene(fields, partition, key, other, model, ""))
        elif fields:
            name = rng.choice(list(FIELDS))
            changes = FIELDS[name][0]
        changes = {field: value for field, value in changes.items() if fields.get(field) != value}
        if not changes:
            return ""
        self._note(partition)
        for field, value in changes.items():
            self.change(partition, field, value)
            self.changed[partition, field] = value
        return f"{partition}: {name}: {', '.join(field.decode() for field in changes)}"

    def is_changed(self, partition: int) -> bool:
        """Whether a partition still holds anything that somebody has put there."""
        fields = self.fields(partition)
        changed = {field: value for (p, field), value in self.changed.items() if p == partition}
        return bool(fields) and any(fields.get(one) == changed[one] for one in changed)

    def records_of(self, partition: int) -> dict[bytes, bytes]:
        """Return the records of a partition by their keys, for who checks them."""
        fields = self.fields(partition)
        return {name[1:]: fields[name] for name in fields if name[:1] == b"k"}

    def applied_of(self, partition: int) -> Offset | None:
        """Return `applied`, for who checks it."""
        return read_number(self.fields(partition).get(b"applied"))

    def _note(self, *partitions: int) -> None:
        """Keep what a replica that is behind would hold."""
        self._before.append(self.copy())
        self.dirty |= set(partitions)

    def _called(self, when: str, what: str) -> bool:
        """Meet faults at a call; say whether it is to be made again."""
        kinds = [fault.kind for fault in self._meet("store", when, what)]
        if "refused" in kinds:
            raise StoreError(f"simulated: no answer {when} {what}")
        return "sent-twice" in kinds
