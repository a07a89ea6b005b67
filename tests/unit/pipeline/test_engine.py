"""The life of a partition: recovered, handed over, lost."""

import random
import threading

import pytest

from livestep import GRU, MemoryStore, SequenceRules, run_to_end
from livestep.pipeline.errors import (
    BrokerError,
    FencedError,
    StateError,
    StoppedError,
    StoreError,
    UnsavedError,
)
from livestep.pipeline.memory.memory_log import MemoryLog
from livestep.pipeline.types import Offset
from tests.support.world import World, loaded


@pytest.fixture
def world():
    """Forty events, predicted by a worker that has left."""
    world = World(partitions=2)
    world.publish_random(random.Random(0), 40)
    world.run_to_end()
    return world


def join(world, worker_id="worker", **changes):
    log = MemoryLog(world.broker, world.settings(**changes), worker_id)
    return log, world.start(log, **changes)


def outputs(world):
    return len(world.broker.records("predictions"))


def test_a_worker_without_partitions_is_at_the_end_and_waits(world):
    first = [join(world, f"worker-{number}") for number in range(3)]
    for _ in range(2):
        for _, engine in first:
            assert engine.poll(0) is None
    assert [engine.partitions for _, engine in first] == [[0], [1], []]
    assert all(engine.is_at_end for _, engine in first)


def test_a_worker_is_not_at_the_end_before_it_has_joined(world):
    _, engine = join(world)
    assert not engine.is_at_end


def test_partitions_move_to_a_second_worker_and_back_without_a_trace(world):
    rng = random.Random(1)
    (first_log, first), (second_log, second) = join(world, "first"), join(world, "second")
    owners = [{first_log: [0, 1], second_log: []}, {first_log: [], second_log: [0, 1]}]
    for turn in range(6):
        # Given events under way, when the partitions move between the two
        world.publish_random(rng, 30)
        for engine in (first, second):
            if work := engine.poll(0):
                engine.run(work)
        world.broker.group.rebalance(owners[turn % 2])
        for _ in range(2):
            run_to_end(first)
            run_to_end(second)
        # Then each event has one answer
        world.assert_truth()
        assert (first, second)[turn % 2].partitions == [0, 1]


def test_a_worker_takes_a_partition_only_when_the_other_has_given_it_up(world):
    (first_log, first), (second_log, second) = join(world, "first"), join(world, "second")
    world.broker.group.rebalance({first_log: [0, 1], second_log: []})
    first.poll(0)
    world.broker.group.rebalance({first_log: [], second_log: [0, 1]})
    second.poll(0)
    assert (first.partitions, second.partitions) == ([0, 1], [])
    first.poll(0)
    second.poll(0)
    assert (first.partitions, second.partitions) == ([], [0, 1])


@pytest.mark.parametrize("seed", range(15))
def test_workers_that_come_and_go_give_the_truth_together(seed):
    # Given up to three workers, of which some think that they still have what others have now
    rng, world = random.Random(seed), World(partitions=4)
    engines = {}
    for _ in range(60):
        act = rng.random()
        name = f"worker-{rng.randrange(3)}"
        if act < 0.2:
            world.publish_random(rng, rng.randint(1, 20))
        elif act < 0.3 or name not in engines:
            # A second worker of a name fences the first, which is forgotten: it has crashed.
            engines[name] = join(world, name)
        elif act < 0.4:
            share = list(engines.values())
            parts = {log: [] for log, _ in share if rng.random() < 0.8}
            for partition in range(4):
                if parts:
                    parts[rng.choice(list(parts))].append(partition)
            world.broker.group.rebalance(parts)
        elif act < 0.45:
            engines.pop(name)[1].drain()
        else:
            _, engine = engines[name]
            if work := engine.poll(0):
                engine.run(work)
    for _, engine in engines.values():
        engine.drain()
    # When the last one reads to the end, then their answers are the truth together
    world.run_to_end()
    world.assert_truth()


def test_a_worker_that_was_thrown_out_meets_an_aborted_commit_and_then_loses_its_slots(world):
    # Given a worker in the middle of a batch
    world.publish_random(random.Random(1), 10)
    _, stale = join(world, "stale")
    work = stale.poll(0)
    # When the group has gone on without it, and another has done its work
    log, fresh = join(world, "fresh")
    world.broker.group.rebalance({log: [0, 1]})
    run_to_end(fresh)
    # Then what it commits is nothing, and it learns that its partitions are lost
    stale.run(work)
    assert stale.poll(0) is None
    assert stale.partitions == []
    world.assert_truth()


def test_a_worker_whose_name_another_has_is_fenced(world):
    world.publish_random(random.Random(1), 10)
    _, first = join(world, "same")
    work = first.poll(0)
    _, second = join(world, "same")
    with pytest.raises(FencedError, match="transactional id"):
        first.run(work)
    run_to_end(second)
    world.assert_truth()


def test_a_worker_commits_nothing_where_another_has_gone_on_and_waits_to_be_told(world, caplog):
    # Given a worker that has kept a partition, which another has moved on without its knowledge
    log, engine = join(world)
    engine.poll(0)
    offset, mark = world.broker.group.offsets[0]
    for number in range(5):
        world.broker.publish("events", b"key", b"other's %d" % number, partition=0)
    world.broker.group.offsets[0] = (offset + 5, mark)
    answers = outputs(world)
    # When the group begins another generation, then it answers nothing, and moves nothing back
    world.broker.group.rebalance({log: [0, 1]})
    engine.run(engine.poll(0))
    assert outputs(world) == answers and not world.broker.records("events.dead-letter")
    assert f"another worker has committed partition 0 up to {offset + 5}" in caplog.text
    assert world.broker.group.offsets[0] == (offset + 5, mark)
    # And when it is told of the loss, and takes the partition again, it goes on behind the other
    world.broker.group.rebalance({})
    engine.poll(0)
    world.broker.group.rebalance({log: [0, 1]})
    world.broker.publish("events", b"key", b"after", partition=0)
    run_to_end(engine)
    assert [r.value() for r in world.broker.records("events.dead-letter")] == [b"after"]


def test_a_batch_that_was_committed_already_is_not_answered_again():
    # Given a model without states, which can't tell by them, and a batch that is committed
    rules = SequenceRules("one-to-one")
    world = World(loaded(GRU(input_size=2, hidden_size=4, output_size=1), rules=rules))
    world.publish_random(random.Random(0), 10)
    engine = world.start()
    work = engine.poll(0)
    engine.run(work)
    # When it runs again, then the worker leaves
    with pytest.raises(StateError, match="would be answered twice"):
        engine.run(work)
    engine.drain()
    world.run_to_end()
    world.assert_truth()


def test_a_late_save_of_a_stale_worker_lands_whole_or_not_at_all(world):
    # Given a worker that has committed, and whose save is on its way when its partitions go
    class LateStore(MemoryStore):
        late = None

        def save(self, partition, **arguments):
            if self.late is None:
                super().save(partition, **arguments)
            else:
                self.late.append((partition, arguments))

    world.store, durable = LateStore(), world.store
    world.store.restore(durable)
    world.publish_random(random.Random(1), 20)
    _, stale = join(world, "stale", batch_events_max=50, pool_slots=100)
    work = stale.poll(0)
    world.store.late = []
    stale.run(work)
    late, world.store.late = world.store.late, None
    assert late
    # When the next owner has replayed and gone on, and then the late saves arrive
    log, fresh = join(world, "fresh")
    world.broker.group.rebalance({log: [0, 1]})
    run_to_end(fresh)
    world.publish_random(random.Random(2), 20)
    run_to_end(fresh)
    before = world.store.load(0, [b"key-0", b"key-1"])
    for partition, arguments in late:
        with pytest.raises(Exception, match="applied is"):
            world.store.save(partition, **arguments)
    # Then nothing has changed
    assert world.store.load(0, [b"key-0", b"key-1"]) == before
    world.publish_random(random.Random(3), 20)
    run_to_end(fresh)
    world.assert_truth()


def test_while_one_partition_is_in_replay_the_others_predict():
    # Given a partition with a long history whose states are lost, and one with new events
    world = World(partitions=2)
    for _ in range(80):
        world.publish("a", {"x": [1, 2]}, partition=0)
    world.run_to_end()
    world.store.flush()
    for _ in range(5):
        world.publish("a", {"x": [1, 2]}, partition=0)
        world.publish("b", {"x": [1, 2]}, partition=1)
    # When a worker takes both, then the other's events are answered before the replay is over
    _, engine = join(world, batch_events_max=4, pool_slots=8)
    answered_in_replay = 0
    while work := engine.poll(0):
        answered_in_replay += len(work.records) * (not work.is_replay)
        engine.run(work)
        if answered_in_replay == 5:
            break
        assert all(record.partition() == 1 or work.is_replay for record in work.records)
    assert "(1 in replay" in engine.status_line()
    run_to_end(engine)
    world.assert_truth()


def test_a_worker_that_leaves_in_the_middle_of_a_replay_is_no_loss():
    rng, world = random.Random(1), World(partitions=1)
    world.publish_random(rng, 60)
    world.run_to_end()
    world.store.flush()
    # Given a worker that has replayed a part
    _, engine = join(world)
    for _ in range(3):
        if work := engine.poll(0):
            engine.run(work)
    engine.drain()
    applied = world.store.describe([0])[0].applied
    assert 0 < applied < 60
    # When the next one goes on, then it begins where the first one was
    _, engine = join(world)
    run_to_end(engine)
    world.publish_random(rng, 10)
    run_to_end(engine)
    world.assert_truth()
    assert outputs(world) == 70


def test_latest_begins_behind_what_the_log_holds():
    world = World(partitions=1)
    world.publish("a", {"x": [1, 2]})
    _, engine = join(world, auto_offset_reset="latest")
    run_to_end(engine)
    world.publish("a", {"x": [3, 4]})
    run_to_end(engine)
    (record,) = world.broker.records("predictions")
    assert dict(record.headers())["source"] == b"events/0/1"
    assert dict(record.headers())["timestep"] == b"0"


@pytest.mark.parametrize("is_saving_behind", [False, True])
def test_a_store_that_fails_makes_the_worker_leave_and_loses_nothing(world, is_saving_behind):
    class AbsentStore(MemoryStore):
        def save(self, partition, **arguments):
            raise StoreError("Redis is away")

    # Given a store that takes no more saves
    durable, world.store = world.store, AbsentStore()
    world.store.restore(durable)
    world.publish_random(random.Random(1), 100)
    engine = world.start(is_saving_behind=is_saving_behind)
    with pytest.raises(StoreError, match="away"):
        while True:
            if work := engine.poll(0):
                engine.run(work)
    engine.drain()
    # When it is there again, then what was committed and not saved is replayed
    world.store = durable
    world.run_to_end()
    world.assert_truth()


def test_a_partition_that_goes_leaves_no_key_in_the_pool(world):
    log, engine = join(world)
    world.publish_random(random.Random(1), 30)
    run_to_end(engine)
    assert " 0 keys in pool" not in engine.status_line()
    world.broker.group.rebalance({log: []})
    engine.poll(0)
    assert " 0 keys in pool" in engine.status_line()


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
def test_leaving_with_states_unsaved_is_said(world, failure, raised, text):
    class FullStore(MemoryStore):
        gate = threading.Event()

        def save(self, partition, **arguments):
            assert self.gate.wait(30)
            raise failure

        def give_up_waiting(self):
            self.gate.set()

    # Given a worker that is done with all events, and whose saves wait for the store
    durable, world.store = world.store, FullStore()
    world.store.restore(durable)
    world.publish_random(random.Random(1), 20)
    engine = world.start(is_saving_behind=True)
    run_to_end(engine)
    # When it leaves and they fail, then it isn't passed over
    threading.Timer(0.1, world.store.gate.set).start()
    with pytest.raises(raised, match=text):
        engine.drain()
    # And the next worker replays them
    world.store = durable
    world.publish_random(random.Random(2), 20)
    world.run_to_end()
    world.assert_truth()


@pytest.mark.parametrize("verb", ["load", "describe"])
def test_a_wait_that_a_stop_ends_is_no_failure_and_loses_nothing(world, verb):
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
    log, engine = join(world)
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
    # Then it leaves as any other
    engine.drain()
    world.store.is_stopping = False
    world.run_to_end()
    world.assert_truth()


def test_a_worker_that_has_failed_does_not_keep_its_partitions_for_a_store_that_is_away(
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

    # Given saves that wait for a store that is away
    monkeypatch.setattr("livestep.pipeline.engine.engine.REVOKE_FLUSH_S", 10_000)
    durable, world.store = world.store, AbsentStore()
    world.store.restore(durable)
    log = FailingLog(world.broker, world.settings())
    engine = world.start(log, is_saving_behind=True, drain_timeout_s=3_600)
    world.publish_random(random.Random(1), 20)
    # When the broker fails for good
    with pytest.raises(BrokerError, match="can't be ended"):
        run_to_end(engine)
    # Then the worker gives its partitions up, and the next one goes on
    engine.drain()
    world.store = durable
    world.run_to_end()
    world.assert_truth()


def test_leaving_saves_what_was_committed_and_gives_the_partitions_up(world):
    world.publish_random(random.Random(1), 30)
    _, engine = join(world, "first")
    run_to_end(engine)
    engine.drain()
    ends = {p: offset for p, (offset, _) in world.broker.group.offsets.items()}
    assert {p: one.applied for p, one in world.store.describe([0, 1]).items()} == ends
    _, second = join(world, "second")
    second.poll(0)
    assert second.partitions == [0, 1]
    assert "in replay" not in second.status_line()


def test_a_worker_whose_last_save_is_refused_says_that_states_are_unsaved(world):
    # Given a store that loses what it was given just before the last save
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
    # Then leaving says so, and the next worker replays
    with pytest.raises(UnsavedError, match="replays them"):
        engine.drain()
    world.run_to_end()
    world.assert_truth()
