"""The input topic changes under a worker: created again, given partitions, begun above offset 0."""

from __future__ import annotations

import random
from typing import Any

import pytest

from livestep import SequenceRules, run_to_end
from livestep.pipeline.engine.engine import Engine
from livestep.pipeline.engine.retention import missing_beginning
from livestep.pipeline.engine.topic_state import OutputTopics, TopicState
from livestep.pipeline.errors import PartitionsChangedError, TopicReplacedError
from livestep.pipeline.memory.memory_log import MemoryLog
from tests.support.world import INPUT, OUTPUT, World, small_model

STATELESS = SequenceRules("one-to-one")


def publish(world: World, count: int, keys: int = 3, seed: int = 1) -> None:
    world.publish_random(random.Random(seed), count, keys)


def at_five(**changes: Any) -> tuple[World, Engine]:
    """Let a worker answer five events of one partition, and be idle."""
    world = World(partitions=1)
    engine = world.start(**changes)
    publish(world, 5)
    run_to_end(engine)
    return world, engine


def timesteps(world: World) -> list[tuple[bytes, int, int]]:
    """Return key, offset of the source and timestep of each prediction."""
    found = []
    for record in world.broker.records(OUTPUT):
        headers = dict(record.headers() or [])
        offset = int(headers["source"].rpartition(b"/")[2])
        found.append((record.key() or b"", offset, int(headers["timestep"])))
    return found


@pytest.mark.parametrize("rules", [SequenceRules(), STATELESS], ids=["states", "stateless"])
@pytest.mark.parametrize("begin", ["earliest", "latest"])
@pytest.mark.parametrize("partitions", [1, 2])
def test_a_topic_created_again_under_a_worker_is_answered_from_its_first_event_after_a_restart(
    rules: SequenceRules, begin: str, partitions: int
) -> None:
    # Given a worker at offset 5, and commits that Kafka has not yet forgotten
    world = World(small_model(rules=rules), partitions=1)
    engine = world.start()
    publish(world, 5)
    run_to_end(engine)
    world.recreate(partitions, is_group_told=False)
    publish(world, 8)
    # When it polls records after its position, then it predicts none of them
    with pytest.raises(TopicReplacedError, match="restart begins with the new topic's first"):
        run_to_end(engine)
    engine.drain()
    assert len(world.broker.records(OUTPUT)) == 5
    # And the next worker answers all, with states that begin at zeros
    world.broker.recreate(OUTPUT)
    world.run_to_end(auto_offset_reset=begin)
    world.assert_truth()
    found = [timestep for _, _, timestep in timesteps(world)]
    assert found.count(0) == (8 if rules.is_stateless else 3)


def test_also_a_commit_that_came_too_late_does_not_make_the_next_worker_skip() -> None:
    # Given a group that had forgotten its commits when a worker made another
    world, engine = at_five()
    late = dict(world.broker.group.offsets)
    world.recreate()
    world.broker.group.offsets.update(late)
    publish(world, 8)
    with pytest.raises(TopicReplacedError):
        run_to_end(engine)
    # Then it is known for what it is
    world.broker.recreate(OUTPUT)
    world.run_to_end()
    world.assert_truth()


def test_a_topic_created_again_while_a_batch_is_in_flight_is_seen_by_its_commit() -> None:
    world, engine = at_five()
    publish(world, 3)
    work = engine.poll(0)
    assert work is not None
    world.recreate()
    with pytest.raises(TopicReplacedError):
        engine.run(work)
    assert len(world.broker.records(OUTPUT)) == 5


def test_a_worker_that_is_idle_or_recovers_sees_it_too() -> None:
    world, engine = at_five()
    store = world.store
    world.recreate()
    with pytest.raises(TopicReplacedError):
        engine.poll(0)
    # And one whose store has forgotten its states, so that it recovers
    world, engine = at_five(pool_slots=16)
    store = world.store
    publish(world, 1, keys=1, seed=7)
    work = engine.poll(0)
    assert work is not None
    store.flush()
    world.recreate()
    with pytest.raises(TopicReplacedError):
        engine.run(work)
        engine.poll(0)


def test_no_event_is_answered_once_partitions_were_added() -> None:
    # Given twenty keys on two partitions
    world = World(partitions=2)
    engine = world.start(batch_events_max=100, pool_slots=200)
    publish(world, 60, keys=20)
    run_to_end(engine)
    # When there are three, and all keys come again
    world.broker.add_partitions(INPUT, 3)
    publish(world, 60, keys=20, seed=2)
    with pytest.raises(PartitionsChangedError, match="has 3 partitions, and the states.* had 2"):
        run_to_end(engine)
    # Then none of it has an answer, and a restart refuses, too
    engine.drain()
    assert len(world.broker.records(OUTPUT)) == 60
    with pytest.raises(PartitionsChangedError):
        world.run_to_end()


def test_partitions_that_are_added_while_a_batch_is_in_flight_stop_its_commit() -> None:
    world, engine = at_five()
    publish(world, 3)
    work = engine.poll(0)
    assert work is not None
    world.broker.add_partitions(INPUT, 2)
    with pytest.raises(PartitionsChangedError):
        engine.run(work)
    assert len(world.broker.records(OUTPUT)) == 5


def test_a_model_without_states_continues_with_partitions_that_are_added() -> None:
    world = World(small_model(rules=STATELESS), partitions=2)
    log = MemoryLog(world.broker, world.settings())
    engine = world.start(log)
    publish(world, 40, keys=20)
    run_to_end(engine)
    world.broker.add_partitions(INPUT, 3)
    publish(world, 40, keys=20, seed=2)
    # What waits in a partition that nobody has yet counts as lag
    unseen = len([r for r in world.broker.records(INPUT) if r.partition() == 2])
    assert unseen > 0
    assert log.lag() == 40
    run_to_end(engine)
    assert engine.partitions == [0, 1, 2]
    world.assert_truth()


def shortened(**changes: Any) -> World:
    """Make a log whose partition 0 begins at 6 and is empty; partition 1 has all."""
    world = World(small_model(**changes), partitions=2)
    for partition, count in ((0, 6), (1, 3)):
        for _ in range(count):
            world.publish("k", {"x": [0.5, 0.5]}, partition=partition)
    world.broker.delete_records(INPUT, 0, before=6)
    return world


@pytest.mark.parametrize("rules", [SequenceRules(), STATELESS], ids=["states", "stateless"])
def test_a_first_run_warns_of_a_beginning_that_is_gone(
    rules: SequenceRules, caplog: pytest.LogCaptureFixture
) -> None:
    world = shortened(rules=rules)
    world.broker.settings[INPUT] = {"retention.ms": "86400000"}
    world.run_to_end()
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "partition 0 begins at offset 6 and is empty (6 offsets are gone)" in warning
    assert "retention.ms=86400000, 1 days" in warning
    assert "--config retention.ms=-1" in warning
    # A later run has nothing to add
    caplog.clear()
    world.run_to_end()
    assert "no longer has" not in caplog.text


def test_a_group_that_begins_at_the_end_has_not_asked_for_the_beginning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shortened().run_to_end(auto_offset_reset="latest")
    assert "no longer has" not in caplog.text


def test_the_text_names_some_partitions_and_counts_all() -> None:
    text = missing_beginning("t", {p: (p, 100) for p in range(9)}, {})
    assert text is not None
    assert "partition 1 begins at offset 1, " in text and "and 3 more (36 offsets" in text
    unlimited = {"retention.ms": "-1", "retention.bytes": "-1"}
    assert "deleted by hand" in str(missing_beginning("t", {0: (1, 2)}, unlimited))
    assert missing_beginning("t", {0: (0, 0)}, {}) is None


def test_an_output_topic_that_is_there_again_is_no_longer_missing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outputs = OutputTopics({"out": TopicState("a", 2)})
    for now in (None, None, TopicState("b", 4), TopicState("b", 4)):
        outputs.look({"in": None, "out": now})
    outputs.refuse_missing()
    assert [record.getMessage()[:40] for record in caplog.records] == [
        "topic out was deleted: what is written t",
        "topic out was deleted and created again ",
    ]
