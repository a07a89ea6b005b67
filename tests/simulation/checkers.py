"""What must be true of the log and the store; independent of the engine.

truth      each answer is what the offline rules say, and none is missing
once       no answer is there twice; at least once: only before it is committed, and alike
order      the answers of a key are in the order of its events
committed  a commit never goes back, and another model begins where the one before has stopped; no
           state has seen what is not committed
applied    never ahead of the commit; what it covers is in the store, as the offline rules say
memory     slots and waiting saves stay within their bounds
progress   when the faults stop, all is committed and saved within a bound
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from livestep import MemoryBroker
from livestep.pipeline.engine.commit_mark import CommitMark
from livestep.pipeline.memory.memory_log import MemoryLog
from livestep.pipeline.records import Source, read_dead_letter_headers, read_prediction_headers
from livestep.pipeline.types import Offset, Outgoing
from tests.simulation.check_error import CheckError
from tests.simulation.eras import Cuts, Era
from tests.simulation.plan import Plan
from tests.simulation.process import Process
from tests.simulation.simulated_services import SimulatedStore
from tests.support.shaped import ShapedRecord
from tests.support.world import DEAD, INPUT, OUTPUT, plain


class Checkers:
    """Looks at log and store after every tick.

    Args:
        plan: What the run has to keep.
        broker: The log.
        make_store: Makes a store, for one model on one topic.
    """

    def __init__(
        self,
        plan: Plan,
        broker: MemoryBroker,
        make_store: Callable[[], SimulatedStore],
    ) -> None:
        self._plan = plan
        self._broker = broker
        self._make_store = make_store
        self._models = [plan.model()]
        if plan.takeover is not None:
            self._models.append(plan.next_model())
        self._commits: list[tuple[int, Offset, str]] = []
        self._undue: set[tuple[int, int]] = set()
        self._read: dict[int, int] = {}
        self._answered: dict[tuple[Any, ...], Any] = {}
        self._repeats: set[tuple[int, int]] = set()
        self._last: dict[tuple[int, int, bytes], int] = {}
        self.eras: list[Era] = []
        self.begin_era()

    # What the simulation says.

    @property
    def era(self) -> Era:
        """The one of the present topic."""
        return self.eras[-1]

    @property
    def stores(self) -> list[SimulatedStore]:
        """The stores of all models on all topics."""
        return [side.store for era in self.eras for side in era.sides.values()]

    def begin_era(self) -> None:
        """Begin with a new input topic; what was answered of the one before is all that will be."""
        cuts: Cuts = {
            (topic, partition): self._broker.log_end(topic, partition)
            for topic in (OUTPUT, DEAD)
            for partition in range(self._broker.partition_counts[topic])
        }
        topic_id = self._broker.topics()[INPUT].id
        mode = self._plan.takeover.on_new_model if self._plan.takeover else ""
        self.eras.append(Era(topic_id, self._models, mode, self._make_store, cuts))

    def take_event(self, source: Source, record: ShapedRecord) -> None:
        """Take an event as it is published, if its transaction will be committed."""
        self.era.take_event(source, record)

    def take_commit(self, offsets: Mapping[int, tuple[Offset, str]]) -> None:
        """Take a commit as it is made."""
        self._commits += [(p, offset, text) for p, (offset, text) in offsets.items()]

    def take_sending(self, log: MemoryLog, topic: str, record: Outgoing) -> None:
        """Take note of an answer that is about to be sent, seen at once, at least once.

        Its event has to be one that is not committed, unless the group has continued without who
        sends: it does not know yet, and no commit of it will be accepted.
        """
        partition = record[2]
        source = read_prediction_headers(record[4]).source if topic == OUTPUT else None
        if source is None:
            return
        committed, _ = self._broker.group.offsets.get(source.partition, (0, ""))
        is_owner = self._broker.group.owner(source.partition) is log
        if source.offset < committed and is_owner:
            self._undue.add((partition, self._broker.log_end(topic, partition)))

    def not_needed(self) -> dict[int, int]:
        """Say for each partition up to where no replay will ever need the log."""
        found: dict[int, int] = {}
        (side,) = self.era.sides.values()
        for partition, offset in self.era.committed.items():
            applied = side.store.applied_of(partition)
            if side.model.rules.is_stateless:
                found[partition] = offset
            elif applied is not None:
                found[partition] = min(applied, offset)
        return found

    # What is checked.

    def look(self, processes: Iterable[Process]) -> None:
        """Look at everything that has changed.

        Raises:
            CheckError: If something is not as it has to be.
        """
        self._look_at_commits()
        for side in self.era.sides.values():
            side.checks.look()
        self._look_at_answers()
        for process in processes:
            _look_at_memory(process)

    def is_all_done(self) -> bool:
        """Whether each event is committed, and its state saved."""
        return not self.what_is_left()

    def count_left(self) -> int:
        """Count the events that are not committed."""
        count = 0
        for partition in range(self._broker.partition_counts[INPUT]):
            offset = Offset(self.era.committed.get(partition, 0))
            count += len(self._broker.read(INPUT, partition, offset)[0])
        return count

    def what_is_left(self) -> str:
        """Return what is not yet committed or saved; nothing if all is."""
        for partition in range(self._broker.partition_counts[INPUT]):
            offset = self.era.committed.get(partition)
            side = self.era.side_of(partition)
            if offset is None or side is None:
                return f"partition {partition} has no commit"
            if side.model is not self._models[-1]:
                return f"partition {partition} is still the old model's"
            if rest := self._broker.read(INPUT, partition, Offset(offset))[0]:
                return f"partition {partition}: {len(rest)} events behind {offset} not committed"
            applied = side.store.applied_of(partition)
            if applied != offset and not side.model.rules.is_stateless:
                return f"partition {partition} is committed up to {offset}, applied is {applied}"
        return ""

    def check_end(self) -> None:
        """Compare all answers with the offline rules.

        Raises:
            CheckError: If one differs, or is missing.
        """
        # Who has taken over from one that left may have found what somebody had changed.
        is_changed = any(side.store.changed for side in self.era.sides.values())
        left = f"{self.count_left()} events" if is_changed else self.what_is_left()
        if not self.era.is_frozen and left not in ("", "0 events"):
            raise CheckError("progress", left)
        letters = self._letters()
        for number, era in enumerate(self.eras):
            answers = [
                (read_prediction_headers(record.headers() or []).source, plain(record))
                for record in self._broker.records(OUTPUT)
                if self._era_of(record) == number
                and (record.partition(), record.offset()) not in self._repeats
            ]
            mine = [plain(one) for one in letters if self._era_of(one) == number]
            is_over = number < len(self.eras) - 1 or era.is_frozen
            era.judge(answers, mine, self._broker.partition_counts[OUTPUT], is_over=is_over)

    def _letters(self) -> list[Any]:
        """Return the dead letters; at least once, the first of each event."""
        letters = self._broker.records(DEAD)
        if self._plan.guarantee == "exactly-once":
            return letters
        first: dict[tuple[int, Source], Any] = {}
        for letter in letters:
            source = read_dead_letter_headers(letter.headers() or [])[2]
            first.setdefault((self._era_of(letter), source), letter)
        return list(first.values())

    def _era_of(self, record: Any) -> int:
        """Say of which input topic an answer is: nothing of the one before is committed later."""
        place = record.topic(), record.partition()
        numbers = range(len(self.eras))
        return max(n for n in numbers if self.eras[n].cuts[place] <= record.offset())

    def _look_at_commits(self) -> None:
        commits, self._commits = self._commits, []
        for partition, offset, text in commits:
            mark = CommitMark.from_text(text)
            if mark is None or mark.topic != self.era.topic_id:
                raise CheckError("committed", f"partition {partition}: {text!r} names no topic")
            self.era.take_commit(partition, offset, mark)

    def _look_at_answers(self) -> None:
        """Check what has come to the output since the last look."""
        for partition in range(self._broker.partition_counts[OUTPUT]):
            start = Offset(self._read.get(partition, 0))
            records, self._read[partition] = self._broker.read(OUTPUT, partition, start)
            for record in records:
                found = read_prediction_headers(record.headers() or [])
                key, era = record.key() or b"", self._era_of(record)
                name = (era, found.source, found.ended_by, found.step, found.ended_by and key)
                if name in self._answered:
                    self._check_repeat(record, self._answered[name])
                    continue
                self._answered[name] = record
                place, offset = (era, found.source.partition, key), found.source.offset
                if offset < self._last.get(place, offset):
                    raise CheckError("order", f"{found.source} stands behind a later answer")
                self._last[place] = offset

    def _check_repeat(self, record: Any, first: Any) -> None:
        """Check an answer that was given before: at least once it may be, for a reason."""
        found = read_prediction_headers(record.headers() or [])
        what = f"{found.source} is answered again: step {found.step}"
        if self._plan.guarantee == "exactly-once":
            raise CheckError("once", what)
        if (record.partition(), record.offset()) in self._undue:
            raise CheckError("once", f"{what}, although it was committed")
        if not _are_alike(record, first):
            raise CheckError("once", f"{what}, otherwise than before")
        self._repeats.add((record.partition(), record.offset()))


def _are_alike(record: Any, first: Any) -> bool:
    """Compare an answer with the same one given before, byte for byte."""
    return (record.key(), record.headers(), record.value()) == (
        first.key(),
        first.headers(),
        first.value(),
    )


def _look_at_memory(process: Process) -> None:
    """Check what a process holds."""
    if process.is_over or process.pool is None:
        return
    if len(process.pool) > process.sizes.pool_slots:
        raise CheckError("memory", f"{process.name} has {len(process.pool)} keys in its slots")
    queue = process.queue
    if queue is not None and len(queue.items) > max(process.sizes.save_queue_batches_max, 1):
        raise CheckError("memory", f"{process.name} has {len(queue.items)} saves waiting")
