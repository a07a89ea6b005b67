"""An engine's partitions: recovered, moved to another worker, lost."""

import random

import pytest

from livestep import GRU, MemoryStore, SequenceRules, run_to_end
from livestep.pipeline.errors import FencedError, StateError
from tests.support.world import World, loaded


@pytest.fixture
def world():
    """Forty events, predicted by a worker that has left."""
    world = World(partitions=2)
    world.publish_random(random.Random(0), 40)
    world.run_to_end()
    return world


def outputs(world):
    return len(world.broker.records("predictions"))


def test_a_worker_without_partitions_is_at_the_end_and_waits(world):
    first = [world.join(f"worker-{number}") for number in range(3)]
    for _ in range(2):
        for _, engine in first:
            assert engine.poll(0) is None
    assert [engine.partitions for _, engine in first] == [[0], [1], []]
    assert all(engine.is_at_end for _, engine in first)


def test_a_worker_is_not_at_the_end_before_it_has_joined_the_group(world):
    _, engine = world.join()
    assert not engine.is_at_end


def test_partitions_move_to_a_second_worker_and_back_without_changing_a_prediction(world):
    rng = random.Random(1)
    (first_log, first), (second_log, second) = world.join("first"), world.join("second")
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
        # Then each event has one prediction
        world.assert_truth()
        assert (first, second)[turn % 2].partitions == [0, 1]


def test_a_worker_gets_a_partition_only_after_the_other_has_given_it_up(world):
    (first_log, first), (second_log, second) = world.join("first"), world.join("second")
    world.broker.group.rebalance({first_log: [0, 1], second_log: []})
    first.poll(0)
    world.broker.group.rebalance({first_log: [], second_log: [0, 1]})
    second.poll(0)
    assert (first.partitions, second.partitions) == ([0, 1], [])
    first.poll(0)
    second.poll(0)
    assert (first.partitions, second.partitions) == ([], [0, 1])


@pytest.mark.parametrize("seed", range(15))
def test_workers_that_join_and_leave_predict_every_event_once_together(seed):
    # Given up to three workers, some of which still act on partitions that others own now
    rng, world = random.Random(seed), World(partitions=4)
    engines = {}
    for _ in range(60):
        act = rng.random()
        name = f"worker-{rng.randrange(3)}"
        if act < 0.2:
            world.publish_random(rng, rng.randint(1, 20))
        elif act < 0.3 or name not in engines:
            # A second worker of a name fences the first, which is forgotten: it has crashed.
            engines[name] = world.join(name)
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
    # When the last one reads to the end, then all predictions together are right
    world.run_to_end()
    world.assert_truth()


def test_a_worker_removed_from_the_group_has_its_commit_aborted_and_loses_its_partitions(
    world,
):
    # Given a worker in the middle of a batch
    world.publish_random(random.Random(1), 10)
    _, stale = world.join("stale")
    work = stale.poll(0)
    # When it was removed from the group, and another has done its work
    log, fresh = world.join("fresh")
    world.broker.group.rebalance({log: [0, 1]})
    run_to_end(fresh)
    # Then its commit has no effect, and its partitions are lost
    stale.run(work)
    assert stale.poll(0) is None
    assert stale.partitions == []
    world.assert_truth()


def test_a_second_worker_of_the_same_name_fences_the_first(world):
    world.publish_random(random.Random(1), 10)
    _, first = world.join("same")
    work = first.poll(0)
    _, second = world.join("same")
    with pytest.raises(FencedError, match="transactional id"):
        first.run(work)
    run_to_end(second)
    world.assert_truth()


def test_a_worker_commits_nothing_after_another_has_committed_further(world, caplog):
    # Given a worker that still has a partition on which another has committed further
    log, engine = world.join()
    engine.poll(0)
    offset, mark = world.broker.group.offsets[0]
    for number in range(5):
        world.broker.publish("events", b"key", b"other's %d" % number, partition=0)
    world.broker.group.offsets[0] = (offset + 5, mark)
    answers = outputs(world)
    # When a new generation begins, then it predicts nothing, and the offset does not move back
    world.broker.group.rebalance({log: [0, 1]})
    engine.run(engine.poll(0))
    assert outputs(world) == answers and not world.broker.records("events.dead-letter")
    assert f"another worker has committed partition 0 up to {offset + 5}" in caplog.text
    assert world.broker.group.offsets[0] == (offset + 5, mark)
    # And when it loses the partition and gets it again, then it continues after the other's commit
    world.broker.group.rebalance({})
    engine.poll(0)
    world.broker.group.rebalance({log: [0, 1]})
    world.broker.publish("events", b"key", b"after", partition=0)
    run_to_end(engine)
    assert [r.value() for r in world.broker.records("events.dead-letter")] == [b"after"]


def test_a_committed_batch_is_not_predicted_again():
    # Given a model without states, which can't reveal a repetition, and a committed batch
    rules = SequenceRules("one-to-one")
    world = World(loaded(GRU(input_size=2, hidden_size=4, output_size=1), rules=rules))
    world.publish_random(random.Random(0), 10)
    engine = world.start()
    work = engine.poll(0)
    engine.run(work)
    # When it runs again, then the worker raises
    with pytest.raises(StateError, match="would be answered twice"):
        engine.run(work)
    engine.drain()
    world.run_to_end()
    world.assert_truth()


def test_a_late_save_of_a_stale_worker_changes_nothing(world):
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
    _, stale = world.join("stale", batch_events_max=50, pool_slots=100)
    work = stale.poll(0)
    world.store.late = []
    stale.run(work)
    late, world.store.late = world.store.late, None
    assert late
    # When the next owner has replayed and continued, and then the late saves arrive
    log, fresh = world.join("fresh")
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


def test_other_partitions_predict_while_one_is_in_replay():
    # Given a partition with a long history whose states are lost, and one with new events
    world = World(partitions=2)
    for _ in range(80):
        world.publish("a", {"x": [1, 2]}, partition=0)
    world.run_to_end()
    world.store.flush()
    for _ in range(5):
        world.publish("a", {"x": [1, 2]}, partition=0)
        world.publish("b", {"x": [1, 2]}, partition=1)
    # When a worker gets both, then the other's events are predicted before the replay has ended
    _, engine = world.join(batch_events_max=4, pool_slots=8)
    answered_in_replay = 0
    while work := engine.poll(0):
        answered_in_replay += len(work.records) * (not work.is_replay)
        engine.run(work)
        if answered_in_replay == 5:
            break
        assert work.is_replay or set(work.records.partitions.tolist()) == {1}
    assert "(1 in replay" in engine.status_line()
    run_to_end(engine)
    world.assert_truth()


def test_a_replay_continues_where_a_worker_that_left_has_stopped():
    rng, world = random.Random(1), World(partitions=1)
    world.publish_random(rng, 60)
    world.run_to_end()
    world.store.flush()
    # Given a worker that has replayed a part
    _, engine = world.join()
    for _ in range(3):
        if work := engine.poll(0):
            engine.run(work)
    engine.drain()
    applied = world.store.describe([0])[0].applied
    assert 0 < applied < 60
    # When the next one starts, then it continues where the first one stopped
    _, engine = world.join()
    run_to_end(engine)
    world.publish_random(rng, 10)
    run_to_end(engine)
    world.assert_truth()
    assert outputs(world) == 70


def test_latest_starts_at_the_end_of_the_log():
    world = World(partitions=1)
    world.publish("a", {"x": [1, 2]})
    _, engine = world.join(auto_offset_reset="latest")
    run_to_end(engine)
    world.publish("a", {"x": [3, 4]})
    run_to_end(engine)
    (record,) = world.broker.records("predictions")
    assert dict(record.headers())["source"] == b"events/0/1"
    assert dict(record.headers())["timestep"] == b"0"


def test_a_revoked_partition_leaves_no_key_in_the_pool(world):
    log, engine = world.join()
    world.publish_random(random.Random(1), 30)
    run_to_end(engine)
    assert " 0 keys in pool" not in engine.status_line()
    world.broker.group.rebalance({log: []})
    engine.poll(0)
    assert " 0 keys in pool" in engine.status_line()
