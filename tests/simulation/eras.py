"""Who answers from where on: each input topic of a run, and on each of them one model or two."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from livestep import LoadedModel
from livestep.pipeline.audit.input_events import READ_ALL_THE_SAME
from livestep.pipeline.audit.judge import Judge
from livestep.pipeline.audit.unrolled import unroll_log
from livestep.pipeline.engine.commit_mark import CommitMark
from livestep.pipeline.records import Source, read_dead_letter_headers
from tests.simulation.check_error import CheckError
from tests.simulation.simulated_services import SimulatedStore
from tests.simulation.store_checks import StoreChecks
from tests.support.shaped import ShapedRecord
from tests.support.world import INPUT

#: A partition of an output topic, and the offset where an era's records begin in it.
Cuts = dict[tuple[str, int], int]

#: Beyond all offsets of a run.
_NEVER = 1 << 62


class Side:
    """One model on one input topic.

    Args:
        model: The model.
        store: Its states.
        committed: What is committed of each partition.

    Attributes:
        begins: Where its states begin, in each partition that it has taken over.
        answers_from: From which event on it answers there.
    """

    def __init__(
        self, model: LoadedModel, store: SimulatedStore, committed: dict[int, int]
    ) -> None:
        self.model = model
        self.store = store
        self.checks = StoreChecks(model, store, committed)
        self.begins: dict[int, int] = {}
        self.answers_from: dict[int, int] = {}


class Era:
    """One input topic, from its creation to its end.

    Args:
        topic_id: Its id.
        models: That answer it, one after another.
        on_new_model: As the setting of the second one.
        make_store: Makes the store of one of them.
        cuts: Where its output begins.

    Attributes:
        committed: What is committed of each partition.
        sides: Of each model, by its fingerprint.
        is_frozen: Whether nothing may be committed any more.
    """

    def __init__(
        self,
        topic_id: str,
        models: list[LoadedModel],
        on_new_model: str,
        make_store: Callable[[], SimulatedStore],
        cuts: Cuts,
    ) -> None:
        self.topic_id = topic_id
        self.cuts = cuts
        self.committed: dict[int, int] = {}
        self.is_frozen = False
        self.sides = {
            model.fingerprint: Side(model, make_store(), self.committed) for model in models
        }
        self._models = models
        self._is_warm = on_new_model == "warm"
        self._events: list[tuple[Source, ShapedRecord]] = []

    def take_event(self, source: Source, record: ShapedRecord) -> None:
        """Take an event as it is published, if its transaction will be committed."""
        self._events.append((source, record))
        for number, side in enumerate(self.sides.values()):
            if source.offset >= self._first_seen(number, source.partition):
                side.checks.take_event(source, record)

    def take_commit(self, partition: int, offset: int, mark: CommitMark) -> None:
        """Take a commit.

        Raises:
            CheckError: If it goes back, or is not that of the model whose turn it is.
        """
        before = self.committed.get(partition)
        if offset < (before or 0):
            what = f"partition {partition}: the commit goes back from {before} to {offset}"
            raise CheckError("committed", what)
        if self.is_frozen:
            what = f"partition {partition}: {offset} is committed, and keys may have moved"
            raise CheckError("committed", what)
        side = self.sides[mark.model]
        if self.side_of(partition) not in (None, side):
            self._take_over(partition, mark)
        elif self.side_of(partition) is None:
            self._begin_first(side, partition)
        self.committed[partition] = offset

    def _begin_first(self, side: Side, partition: int) -> None:
        """Note who is the first in a partition."""
        side.begins[partition] = side.answers_from[partition] = 0
        if side.model is not self._models[0]:
            self._let_see(side, partition)

    def _take_over(self, partition: int, mark: CommitMark) -> None:
        """Check how another model takes over, and let its states see what they have to."""
        side = self.sides[mark.model]
        before = self.committed[partition]
        start = 0 if self._is_warm else before
        if side.model is self._models[0]:
            raise CheckError("committed", f"partition {partition}: the old model commits again")
        if mark.start != start:
            what = (
                f"partition {partition}: the states of the other model begin at {mark.start}; "
                f"{before} was committed, so they should at {start}"
            )
            raise CheckError("committed", what)
        # Its first commit may have events already.
        side.begins[partition], side.answers_from[partition] = start, before
        self._let_see(side, partition)

    def _let_see(self, side: Side, partition: int) -> None:
        """Let the states of a model that takes a partition over see the events that there are."""
        if self._is_warm:
            return  # they have: a replay may have begun before
        for source, record in self._events:
            if source.partition == partition and source.offset >= side.begins[partition]:
                side.checks.take_event(source, record)

    def side_of(self, partition: int) -> Side | None:
        """Return the model that answers a partition now."""
        found = [side for side in self.sides.values() if partition in side.begins]
        return found[-1] if found else None

    def judge(
        self,
        answers: list[tuple[Source, Any]],
        letters: list[Any],
        partitions: int,
        *,
        is_over: bool,
    ) -> None:
        """Compare all answers with the offline rules.

        Args:
            answers: Records of the output topic, each behind the event that it answers.
            letters: Records of the dead-letter topic.
            partitions: Of the output topic.
            is_over: Whether what is not committed need not be answered.

        Raises:
            CheckError: If one differs, or is missing.
        """
        for number, side in enumerate(self.sides.values()):

            def is_its_turn(source: Source, number: int = number) -> bool:
                first, end = self._turn(number, source.partition, is_over)
                return first <= source.offset < end

            events = [
                (source, record)
                for source, record in self._events
                if self._first_seen(number, source.partition) <= source.offset
                and source.offset < self._turn(number, source.partition, is_over)[1]
            ]
            mine = [one for one in letters if is_its_turn(_letter_source(one))]
            judge = Judge(INPUT, partitions, side.model, side.answers_from)
            for letter in mine:
                judge.take_dead_letter(letter)
            plain = (_plain(source, record) for source, record in events)
            judge.take_events(unroll_log(plain, side.model, judge.dead, lambda *_: None))
            for source, answer in answers:
                if is_its_turn(source):
                    judge.take_prediction(answer)
            report = judge.report()
            if not report.is_clean:
                raise CheckError("truth", str(report))
            bad = [source for source, record in events if record.is_bad and is_its_turn(source)]
            _judge_bad(bad, mine)

    def _first_seen(self, number: int, partition: int) -> int:
        """Return the first offset that a model's states have to see."""
        begins = list(self.sides.values())[number].begins
        return begins.get(partition, 0 if number == 0 or self._is_warm else _NEVER)

    def _turn(self, number: int, partition: int, is_over: bool) -> tuple[int, int]:
        """Return the offsets from which on and before which a model answers."""
        sides = list(self.sides.values())
        firsts = [side.answers_from.get(partition, _NEVER) for side in sides]
        firsts[0] = 0
        end = min(firsts[number + 1 :], default=_NEVER)
        if is_over:
            end = min(end, self.committed.get(partition, 0))
        return firsts[number], end


def _judge_bad(bad: list[Source], letters: list[Any]) -> None:
    """Check that each event that can't be used is a dead letter, and no other."""
    found = [
        _letter_source(one)
        for one in letters
        if read_dead_letter_headers(one.headers)[0] not in READ_ALL_THE_SAME
    ]
    if sorted(found) != sorted(bad):
        raise CheckError("truth", f"bad events {bad}, dead letters {found}")


def _letter_source(record: Any) -> Source:
    return read_dead_letter_headers(record.headers)[2]


def _plain(source: Source, record: ShapedRecord) -> SimpleNamespace:
    return SimpleNamespace(
        topic=INPUT,
        partition=source.partition,
        offset=source.offset,
        key=record.key,
        value=record.value,
        timestamp=record.timestamp_ms,
        headers=list(record.headers),
    )
