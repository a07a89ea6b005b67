"""An engine that leaves saves what it has committed, or reports what it could not save."""

import random
import threading

import pytest

from livestep import MemoryStore, run_to_end
from livestep.pipeline.errors import BrokerError, StoppedError, StoreError, UnsavedError
from livestep.pipeline.memory.memory_log import MemoryLog
from livestep.pipeline.types import Offset
from tests.support.world import World


@pytest.fixture
def world():
    """Forty events, predicted by a worker that has left."""
    world = World(partitions=2)
    world.publish_random(random.Random(0), 40)
    world.run_to_end()
    return world


@pytest.mark.parametrize("is_saving_behind", [False, True])
def test_a_failing_store_ends_the_worker_and_no_prediction_is_lost(world, is_saving_behind):
    class AbsentStore(MemoryStore):
        def save(self, partition, **arguments):
            raise StoreError("Redis is away")

    # Given a store that refuses all saves
    durable, world.store = world.store, AbsentStore()
    world.store.restore(durable)
    world.publish_random(random.Random(1), 100)
    engine = world.start(is_saving_behind=is_saving_behind)
    with pytest.raises(StoreError, match="away"):
        while True:
            if work := engine.poll(0):
                engine.run(work)
    engine.drain()
    # When it is available again, then what was committed and not saved is replayed
    world.store = durable
    world.run_to_end()
    world.assert_truth()


def test_leaving_waits_for_the_saves_before_the_store_gives_up(world):
    class SlowStore(MemoryStore):
        has_given_up = False
        gate = threading.Event()

        def save(self, partition, **arguments):
            assert self.gate.wait(30)
            if self.has_given_up:
                raise StoreError("given up")
            super().save(partition, **arguments)

        def give_up_waiting(self):
            self.has_given_up = True
            self.gate.set()

    # Given saves that wait for the store
    durable, world.store = world.store, SlowStore()
    world.store.restore(durable)
    world.publish_random(random.Random(1), 20)
    engine = world.start(is_saving_behind=True)
    run_to_end(engine)
    # When the worker leaves, and the store answers a little later
    threading.Timer(0.2, world.store.gate.set).start()
    engine.drain()
    # Then all is saved
    ends = {p: offset for p, (offset, _) in world.broker.group.offsets.items()}
    assert {p: one.applied for p, one in world.store.describe([0, 1]).items()} == ends


@pytest.mark.parametrize(
    ("failure", "raised", "text"),
    [
        (StoreError("Redis is full"), UnsavedError, "states unsaved.*Redis is full"),
        (ZeroDivisionError("a defect"), ZeroDivisionError, "a defect"),
    ],
)
def test_leaving_with_unsaved_states_raises(world, failure, raised, text):
    class FullStore(MemoryStore):
        gate = threading.Event()

        def save(self, partition, **arguments):
            assert self.gate.wait(30)
            raise failure

        def give_up_waiting(self):
            self.gate.set()

    # Given a worker that has predicted all events, and whose saves wait for the store
    durable, world.store = world.store, FullStore()
    world.store.restore(durable)
    world.publish_random(random.Random(1), 20)
    engine = world.start(is_saving_behind=True)
    run_to_end(engine)
    # When it leaves and they fail, then it raises
    threading.Timer(0.1, world.store.gate.set).start()
    with pytest.raises(raised, match=text):
        engine.drain()
    # And the next worker replays them
    world.store = durable
    world.publish_random(random.Random(2), 20)
    world.run_to_end()
    world.assert_truth()


@pytest.mark.parametrize("verb", ["load", "describe"])
def test_a_stop_that_ends_a_wait_for_the_store_loses_nothing(world, verb):
    class StoppingStore(MemoryStore):
        is_stopping = False

        def load(self, partition, keys):
            if self.is_stopping and verb == "load":
                raise StoppedError("waiting for Redis")
            return super().load(partition, keys)

        def describe(self, partitions):
            if self.is_stopping and verb == "describe":
                raise StoppedError("waiting for Redis")
            return super().describe(partitions)

    # Given a worker that waits for the store, in a batch or in a rebalance
    durable, world.store = world.store, StoppingStore()
    world.store.restore(durable)
    log, engine = world.join()
    if verb == "describe":
        world.broker.group.rebalance({log: [0]})
    run_to_end(engine)
    world.publish_random(random.Random(1), 20, keys=50)
    if verb == "describe":
        world.broker.group.rebalance({log: [0, 1]})
    world.store.is_stopping = True
    # When a stop ends the wait
    with pytest.raises(StoppedError):
        run_to_end(engine)
    # Then it leaves as usual
    engine.drain()
    world.store.is_stopping = False
    world.run_to_end()
    world.assert_truth()


def test_a_failed_worker_gives_up_its_partitions_without_waiting_for_an_unavailable_store(
    world, monkeypatch
):
    class AbsentStore(MemoryStore):
        gate = threading.Event()

        def save(self, partition, **arguments):
            self.gate.wait()
            raise StoreError("given up")

        def give_up_waiting(self):
            self.gate.set()

    class FailingLog(MemoryLog):
        sendings = 0

        def send(self, topic, records):
            self.sendings += 1
            super().send(topic, records)

        def commit(self, offsets):
            if self.sendings > 1:
                raise BrokerError("the transaction can't be ended")
            super().commit(offsets)

    # Given saves that wait for an unavailable store
    monkeypatch.setattr("livestep.pipeline.engine.engine.REVOKE_FLUSH_S", 10_000)
    durable, world.store = world.store, AbsentStore()
    world.store.restore(durable)
    log = FailingLog(world.broker, world.settings())
    engine = world.start(log, is_saving_behind=True, drain_timeout_s=3_600)
    world.publish_random(random.Random(1), 20)
    # When the broker fails permanently
    with pytest.raises(BrokerError, match="can't be ended"):
        run_to_end(engine)
    # Then the worker gives up its partitions, and the next one continues
    engine.drain()
    world.store = durable
    world.run_to_end()
    world.assert_truth()


def test_leaving_saves_what_was_committed_and_gives_up_the_partitions(world):
    world.publish_random(random.Random(1), 30)
    _, engine = world.join("first")
    run_to_end(engine)
    engine.drain()
    ends = {p: offset for p, (offset, _) in world.broker.group.offsets.items()}
    assert {p: one.applied for p, one in world.store.describe([0, 1]).items()} == ends
    _, second = world.join("second")
    second.poll(0)
    assert second.partitions == [0, 1]
    assert "in replay" not in second.status_line()


def test_a_worker_whose_last_save_is_refused_reports_unsaved_states(world):
    # Given a store that loses its states just before the last save
    world.publish_random(random.Random(1), 30)
    engine = world.start(is_saving_behind=False)
    run_to_end(engine)
    world.publish_random(random.Random(2), 30)
    work = engine.poll(0)
    for partition in engine.partitions:
        world.store.begin(
            partition,
            expected=world.store.describe([partition])[partition].applied,
            applied=Offset(0),
            start=Offset(0),
            partitions=2,
        )
    engine.run(work)
    # Then leaving reports that, and the next worker replays
    with pytest.raises(UnsavedError, match="replays them"):
        engine.drain()
    world.run_to_end()
    world.assert_truth()
