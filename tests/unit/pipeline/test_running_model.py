"""A model at run time: several run next to each other and share nothing."""

from __future__ import annotations

from livestep import LoadedModel, MemoryStore, SequenceRules
from livestep.pipeline.columns.keys import Keys
from livestep.pipeline.engine.running_model import RunningModel
from livestep.pipeline.engine.saver import Move, Save
from livestep.pipeline.process.deadline import Deadline
from livestep.pipeline.types import Offset
from tests.support.world import World, small_model

KEYS = [(0, b"a"), (0, b"b")]


def running(model: LoadedModel) -> RunningModel:
    settings = World(model).settings()
    return RunningModel(model, MemoryStore(), settings, Deadline(), is_saving_behind=False)


def start(model: RunningModel, applied: int) -> int:
    """Begin partition 0 in the store and in memory; return its epoch."""
    at = Offset(applied)
    model.store.begin(0, expected=None, applied=at, start=at, partitions=1)
    return model.begin(0, at)


def hold_keys(model: RunningModel) -> None:
    states = model.layout.fresh(len(KEYS))
    assert model.pool.write(Keys.of(KEYS), states, ticket=1, saved_ticket=0) == 0


def test_what_one_model_saves_and_forgets_does_not_change_another() -> None:
    # Given two models that hold the same keys of a partition, at different offsets
    first = running(small_model())
    second = running(small_model(1, fingerprint="00000000000000bb"))
    epoch = start(first, 3)
    start(second, 7)
    for model in (first, second):
        hold_keys(model)

    # When one of them saves, and then forgets the partition
    first.saver.put(lambda: [Save(Move(0, epoch, Offset(3), Offset(5)))])
    first.forget(0)

    # Then the other has its states, its offset and its store as before
    assert (len(first.pool), len(second.pool)) == (0, 2)
    assert (first.saver.applied(0), second.saver.applied(0)) == (5, 7)
    assert (first.store.load(0, [])[0], second.store.load(0, [])[0]) == (5, 7)


def test_a_model_that_keeps_nothing_has_no_slots() -> None:
    assert running(small_model(rules=SequenceRules("one-to-one"))).pool.slots == 0
    assert running(small_model()).pool.slots > 0


def test_with_a_session_gap_a_partitions_clock_is_read_when_it_begins() -> None:
    # Given a store whose partition ended at a clock of 90
    model = running(small_model(rules=SequenceRules(session_gap_ms=10)))
    epoch = start(model, 0)
    clock = model.records.write_clock(0, Offset(4), 90)
    model.saver.put(lambda: [Save(Move(0, epoch, Offset(0), Offset(4)), clock=clock)])

    # When the partition begins there again
    model.forget(0)
    model.begin(0, Offset(4))

    # Then its clock continues from that
    assert model.sessions is not None
    assert model.sessions.clock(0) == 90
