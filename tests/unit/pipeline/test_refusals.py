"""What a worker refuses when log, store and model disagree, and the ways out that it names."""

import json
import random

import numpy as np
import pytest

from livestep import FullyConnected, MemoryStore, SequenceRules, run_to_end
from livestep.pipeline.errors import (
    HistoryMissingError,
    OffsetsResetError,
    OtherModelError,
    PartitionsChangedError,
)
from livestep.pipeline.memory.memory_log import MemoryLog
from livestep.pipeline.types import Offset
from tests.support.world import World, loaded, small_model


def old_world(partitions):
    world = World(partitions=partitions)
    world.publish_random(random.Random(0), 40)
    world.run_to_end()
    return world


@pytest.fixture
def world():
    """Forty events, predicted by a worker that has left."""
    return old_world(2)


def join(world, worker_id="worker", **changes):
    log = MemoryLog(world.broker, world.settings(**changes), worker_id)
    return log, world.start(log, **changes)


def outputs(world):
    return len(world.broker.records("predictions"))


def test_offsets_reset_under_the_states_are_refused(world):
    world.broker.group.offsets[0] = (Offset(1), "")
    with pytest.raises(OffsetsResetError, match="committed offset is 1"):
        world.run_to_end()
    assert outputs(world) == 40


def test_a_group_that_was_deleted_under_the_states_is_refused(world):
    world.broker.group.offsets.clear()
    with pytest.raises(OffsetsResetError, match="no committed offset"):
        world.run_to_end()


def test_another_number_of_partitions_is_refused(world):
    world.broker.add_partitions("events", 3)
    with pytest.raises(PartitionsChangedError, match="has 3 partitions"):
        world.run_to_end()


def test_also_by_a_worker_that_has_new_partitions_only(world):
    world.broker.add_partitions("events", 3)
    (log, engine), (other, _) = join(world, "first"), join(world, "second")
    world.broker.group.rebalance({log: [2], other: [0, 1]})
    with pytest.raises(PartitionsChangedError, match="has 3 partitions"):
        engine.poll(0)


def test_history_that_the_log_no_longer_holds_is_refused_or_accepted(world):
    world.store.flush()
    world.broker.delete_records("events", 0, before=5)
    with pytest.raises(HistoryMissingError, match="offsets 0 to 4"):
        world.run_to_end()
    # When the operator accepts it, then new events are answered by states that begin later
    world.publish_random(random.Random(9), 10)
    world.run_to_end(accept_missing_history=True)
    assert outputs(world) == 50
    # And from then on it need not be accepted again, also after the next loss
    world.store.flush()
    world.publish_random(random.Random(8), 10)
    world.run_to_end()
    assert outputs(world) == 60


class LogWithoutReplays(MemoryLog):
    """A log whose reader has no right to a second consumer."""

    def replay(self, partition, start, end):
        raise AssertionError(f"a replay of partition {partition} from {start} to {end}")


def without_replays(world, **changes):
    """Run a worker to the end of the log, which must not ask for a replay."""
    engine = world.start(LogWithoutReplays(world.broker, world.settings(**changes)), **changes)
    run_to_end(engine)
    engine.drain()


def shorten_log(world):
    """Publish events, and delete the first few unanswered ones of each partition with all before.

    Returns:
        How many are left.
    """
    world.publish_random(random.Random(9), 60)
    kept = 0
    for partition in range(2):
        committed, _ = world.broker.group.offsets[partition]
        world.broker.delete_records("events", partition, before=committed + 3)
        start, end = world.broker.bounds("events", partition)
        kept += end - start
    return kept


def test_a_model_without_states_replays_nothing_when_missing_history_is_accepted():
    net = FullyConnected(input_size=2, hidden_size=4, output_size=1)
    world = World(loaded(net, rules=SequenceRules("one-to-one")))
    world.publish_random(random.Random(0), 40)
    without_replays(world)
    kept = shorten_log(world)
    with pytest.raises(HistoryMissingError, match="have no prediction"):
        without_replays(world)
    without_replays(world, accept_missing_history=True)
    assert outputs(world) == 40 + kept
    without_replays(world)


def test_states_without_an_event_left_to_replay_continue_without_a_replay(world):
    # Given events that the log no longer has, and states that have seen all before them
    kept = shorten_log(world)
    with pytest.raises(HistoryMissingError, match="are no longer in the log"):
        without_replays(world)
    # When the operator accepts it, then nothing is replayed, and what is left is predicted
    without_replays(world, accept_missing_history=True)
    assert outputs(world) == 40 + kept
    # And the states continue from there, without being asked again
    without_replays(world)
    world.publish_random(random.Random(8), 10)
    without_replays(world)
    assert outputs(world) == 50 + kept


class TestAnotherModel:
    """The group's last commit was made by another model."""

    @pytest.fixture
    def changed(self):
        """Another model, whose states are nowhere yet."""
        world = old_world(1)
        world.model = small_model(seed=5, fingerprint="00000000000000bb")
        world.store = MemoryStore()
        return world

    def next_output(self, world, **changes):
        """Publish one event of an old key, and return its timestep and value."""
        world.publish("key-0", {"x": [1, 2]})
        world.run_to_end(**changes)
        record = world.broker.records("predictions")[-1]
        headers = dict(record.headers())
        assert headers["model"] == b"00000000000000bb"
        return int(headers["timestep"]), np.float32(json.loads(record.value())["y"])

    def offline(self, world, first=0):
        """Unroll that key's events from its `first` on, and give the last output."""
        records = world.broker.records("events")
        events = [json.loads(one.value()) for one in records if one.key() == b"key-0"]
        outputs = world.model.unroll_events(events[first:])
        return len(outputs) - 1, np.float32(outputs[-1]["y"])

    def test_it_is_refused(self, changed):
        with pytest.raises(OtherModelError, match="00000000000000aa.*00000000000000bb"):
            changed.run_to_end()

    def test_zeros_begins_here(self, changed):
        before = self.offline(changed)[0] + 1
        assert self.next_output(changed, on_new_model="zeros") == self.offline(changed, before)
        assert outputs(changed) == 41
        # And it has taken over: it need not be said again, also when the states are lost.
        assert self.next_output(changed) == self.offline(changed, before)
        changed.store.flush()
        assert self.next_output(changed) == self.offline(changed, before)

    def test_warm_replays_the_history_without_outputs(self, changed):
        assert self.next_output(changed, on_new_model="warm") == self.offline(changed)
        assert outputs(changed) == 41
        changed.store.flush()
        assert self.next_output(changed) == self.offline(changed)

    def test_the_old_model_may_come_back_while_it_is_the_last_that_committed(self, world):
        states = world.store
        world.model = small_model(seed=5, fingerprint="00000000000000bb")
        world.store = MemoryStore()
        with pytest.raises(OtherModelError):
            world.run_to_end()
        world.model, world.store = small_model(), states
        world.publish_random(random.Random(3), 10)
        world.run_to_end()
        world.assert_truth()
