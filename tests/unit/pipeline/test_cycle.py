"""Engine, cycle and saver over log and store in memory: the truth, and what heals after a crash."""

import random

import pytest
import torch

from livestep import GRU, LSTM, Category, MemoryStore, Number, StepModel, VanillaRNN, run_to_end
from livestep.pipeline.errors import EngineError
from livestep.pipeline.memory.memory_log import MemoryLog
from tests.support.crashes import PLACES, Crash, RaggedLog, crash_at
from tests.support.world import World, loaded


def random_world(seed):
    rng = random.Random(seed)
    torch.manual_seed(rng.randrange(1_000_000))
    sizes = [rng.randint(1, 3), rng.randint(1, 5), rng.randint(1, 3)]
    net = rng.choice([VanillaRNN, GRU, LSTM])(*sizes)
    world = World(loaded(net, codec=rng.choice(["json", "float32"])), rng.randint(1, 4))
    world.store = MemoryStore(save_keys_max=rng.choice([1, 3, 1_000]))
    return rng, world


@pytest.mark.parametrize("is_saving_behind", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_predictions_are_the_unroll_whatever_batches_and_pool(seed, is_saving_behind):
    # Given events of random keys, read in batches of random sizes
    rng, world = random_world(seed)
    RaggedLog.rng = rng
    keys = rng.choice([1, 4, 40])
    for _ in range(2):
        world.publish_random(rng, rng.randint(0, 150), keys)
        # When an engine whose pool may be smaller than the keys runs to the end
        batch = rng.choice([1, 5, 50])
        slots = 2 * batch + rng.choice([0, 40])
        log = RaggedLog(world.broker, world.settings())
        world.run_to_end(
            log=log, batch_events_max=batch, pool_slots=slots, is_saving_behind=is_saving_behind
        )
        # Then nothing is lost, repeated, out of order or different
        world.assert_truth()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_crash_at_any_call_leaves_the_truth(place, when, number):
    # Given a worker that dies at a call, again and again until the call is not reached any more
    rng, world = random_world(f"{place}/{when}/{number}")
    world.publish_random(rng, 60)
    for _ in range(3):
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, place, when, number)
            try:
                world.run_to_end(is_saving_behind=False)
            except Crash:
                # When the rest of the dead worker's transaction is aborted by its successor
                world.publish_random(rng, 5)
    world.run_to_end()

    # Then the successor's answers and the dead one's are the truth together
    world.assert_truth()


@pytest.mark.parametrize("seed", range(30))
def test_random_crashes_and_losses_of_the_store_leave_the_truth(seed):
    rng, world = random_world(seed + 1_000)
    backups = [world.store.copy()]
    for _ in range(8):
        # Given more events
        world.publish_random(rng, rng.randint(0, 40))
        # When a worker dies anywhere, and the store now and then forgets its last writes or all
        place, when = rng.choice(sorted(PLACES)), rng.choice(["before", "after"])
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, place, when, rng.randint(1, 8))
            try:
                batch = rng.randint(1, 12)
                world.run_to_end(batch_events_max=batch, pool_slots=rng.randint(2 * batch, 30))
            except Crash:
                pass
        backups.append(world.store.copy())
        if rng.random() < 0.3:
            world.store.restore(rng.choice(backups))
        elif rng.random() < 0.2:
            world.store.flush()
    world.run_to_end()
    # Then the answers are the truth
    world.assert_truth()


def test_a_store_that_is_rolled_back_under_a_running_worker_is_healed():
    # Given a worker whose pool holds few keys, so that it reads the store again and again
    rng, world = random.Random(5), World()
    engine = world.start(pool_slots=16)
    world.publish_random(rng, 100, keys=60)
    run_to_end(engine)
    backup = world.store.copy()
    for loss in (lambda: world.store.restore(backup), world.store.flush):
        world.publish_random(rng, 100, keys=60)
        run_to_end(engine)
        # When the store forgets
        loss()
        world.publish_random(rng, 100, keys=60)
        run_to_end(engine)
        # Then replay brings the states back, and no event is answered twice
        world.assert_truth()


def committed(world):
    return {partition: offset for partition, (offset, _) in world.broker.group.offsets.items()}


def applied(world):
    return {p: one.applied for p, one in world.store.describe(committed(world)).items()}


@pytest.mark.parametrize("is_saving_behind", [False, True])
def test_a_loss_is_healed_also_while_the_pool_has_all_keys(is_saving_behind):
    # Given a worker that never has to read the store
    rng, world = random.Random(6), World()
    engine = world.start(is_saving_behind=is_saving_behind)
    world.publish_random(rng, 30)
    run_to_end(engine)
    # When the store forgets all, and events continue
    world.store.flush()
    for _ in range(3):
        world.publish_random(rng, 30)
        run_to_end(engine)
    engine.drain()
    # Then the store is where the commits are, though nobody has asked it
    world.run_to_end()
    assert applied(world) == committed(world)
    world.assert_truth()


def test_a_refused_save_is_healed_without_anybody_reading_the_store():
    rng, world = random.Random(6), World()
    engine = world.start()
    world.publish_random(rng, 30)
    run_to_end(engine)
    world.store.flush()
    world.publish_random(rng, 30)
    run_to_end(engine)
    assert applied(world) == committed(world)


def test_a_replay_that_ends_in_markers_brings_the_states_up_to_the_commit():
    # Given an aborted transaction at the end of the log, and an offset set by hand behind it
    world = World(partitions=1)
    world.publish("a", {"x": [1, 2]})
    world.run_to_end()
    feed = world.broker.producer("feed")
    feed.send("events", [(b"a", b"aborted", 0, 0, [])])
    feed.end(is_committed=False)
    end = world.broker.bounds("events", 0)[1]
    world.broker.group.offsets[0] = (end, "")
    # When a worker recovers
    world.run_to_end()
    # Then nothing is left to be replayed
    assert applied(world) == {0: end}


def test_replayed_events_are_not_predicted_again_and_then_predicting_continues():
    # Given states that are lost
    rng, world = random.Random(1), World()
    world.publish_random(rng, 40)
    world.run_to_end()
    world.store.flush()
    # When the next worker brings them back
    engine = world.start()
    run_to_end(engine)
    # Then it has answered nothing, and what comes now is answered from the whole history
    assert len(world.broker.records("predictions")) == 40
    world.publish_random(rng, 10)
    run_to_end(engine)
    world.assert_truth()


def test_offsets_of_aborted_records_and_markers_are_not_events():
    # Given an input topic with gaps: an aborted transaction, then a committed one
    world = World(partitions=1)
    feed = world.broker.producer("feed")
    for value, is_committed in ((b"aborted", False), (b'{"x": [1, 2]}', True)):
        feed.send("events", [(b"a", value, 0, 0, [])])
        feed.end(is_committed=is_committed)
    world.published = 1
    world.publish("a", {"x": [3, 4]})
    feed.send("events", [(b"a", b"aborted, too", 0, 0, [])])
    feed.end(is_committed=False)

    # When the states are lost, and have to come back by a replay over the gaps
    world.run_to_end()
    world.store.flush()
    world.run_to_end()
    world.publish("a", {"x": [5, 6]})
    world.run_to_end()

    # Then only what was committed is stepped
    world.assert_truth()
    assert world.report().predictions == 3


def test_an_aborted_batch_is_read_again_and_leaves_no_trace_in_the_pool():
    # Given a worker that has polled a batch
    rng, world = random.Random(2), World()
    world.publish_random(rng, 30)
    settings = world.settings()
    log = MemoryLog(world.broker, settings)
    engine = world.start(log)
    work = engine.poll(0)
    # When the group is rebalanced before the commit
    world.broker.group.rebalance({log: [0, 1]})
    engine.run(work)
    assert not world.broker.records("predictions")
    # Then the batch is read and stepped again
    run_to_end(engine)
    world.assert_truth()


def test_a_worker_whose_transactions_are_always_aborted_gives_up():
    world = World()
    world.publish_random(random.Random(0), 5)
    log = MemoryLog(world.broker, world.settings())
    engine = world.start(log)
    with pytest.raises(EngineError, match="aborted in a row"):
        while True:
            work = engine.poll(0)
            world.broker.group.rebalance({log: [0, 1]})
            engine.run(work)


def test_dead_letters_keep_their_bytes_and_the_good_events_are_not_disturbed():
    # Given good events with bad ones between them
    rng, world = random.Random(3), World(partitions=1)
    world.publish_random(rng, 10, keys=2)
    world.publish("key-0", b"nonsense", headers=[("h", b"1")], timestamp_ms=77)
    world.publish("key-0", {"x": [1e39, 0]})
    world.publish("", {"x": [1, 0]})
    world.publish_random(rng, 10, keys=2)
    world.run_to_end(batch_events_max=100, pool_slots=200)

    # Then each bad one is in the dead-letter topic, unchanged, with its reason
    letter = world.broker.records("events.dead-letter")[0]
    assert (letter.key(), letter.value()) == (b"key-0", b"nonsense")
    assert letter.timestamp()[1] == 77
    assert letter.headers()[0] == ("h", b"1")
    assert dict(letter.headers())["source"] == b"events/0/10"
    assert sorted(world.reasons()) == [b"no-key", b"not-finite", b"not-json"]
    world.assert_truth()


def test_a_key_without_a_usable_event_uses_no_memory():
    # Given a new key whose only event is beyond float32, next to a good one
    world = World(partitions=1)
    world.publish("bad", {"x": [1e39, 0]})
    world.publish("good", {"x": [1, 0]})
    world.run_to_end()

    # Then the store has a state of the other only
    _, records = world.store.load(0, [b"bad", b"good"])
    assert [record is None for record in records] == [True, False]


@pytest.mark.parametrize("codec", ["json", "float32"])
def test_a_batch_with_nothing_but_bad_records_is_committed(codec):
    world = World(loaded(GRU(2, 4, 1), codec=codec), partitions=1)
    for _ in range(3):
        world.publish("a", b"bad")
    world.run_to_end()
    assert len(world.reasons()) == 3
    world.assert_truth()
    assert world.broker.group.offsets[0][0] == 3


def test_a_model_with_an_output_of_one_category_and_numbers_answers_bad_batches_too():
    outputs = (Category("dish", ("1", "2", "3")), Number("y", 2))
    world = World(loaded(GRU(2, 4, 5), outputs=outputs), partitions=1)
    world.publish("a", b"bad")
    world.run_to_end()
    world.publish("a", {"x": [1, 2]})
    world.run_to_end()
    world.assert_truth()


class Reciprocals(StepModel):
    """Two outputs 1 / x, and their sum so far as state."""

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 1)

    def step(self, inputs, prev_state):
        state = prev_state + 1 / inputs
        return torch.cat([state, -state], dim=1), state


@pytest.mark.parametrize(
    "outputs", [(Number("y", 2),), (Category("sign", ("plus", "minus")),)], ids=["y", "sign"]
)
def test_an_event_whose_step_is_not_finite_is_a_dead_letter_and_its_key_continues(outputs):
    # Given an event that the model can't take, though its numbers are in order
    world = World(loaded(Reciprocals(1, 2), outputs=outputs), partitions=1)
    for x in (1.0, 0.0, 2.0):
        world.publish("a", {"x": x})
    world.publish("b", {"x": 4.0})
    # When the states are lost after it, and come back by replay
    for _ in range(2):
        world.run_to_end()
        world.store.flush()
    world.publish("a", {"x": 4.0})
    world.run_to_end()
    # Then the key's state and timesteps are as if it had not been
    assert world.reasons() == [b"not-finite-step"]
    found = world.broker.records("predictions")
    sources = [dict(record.headers())["source"] for record in found]
    assert sources == [b"events/0/%d" % offset for offset in (0, 2, 3, 4)]
    assert [dict(record.headers())["timestep"] for record in found] == [b"0", b"1", b"0", b"2"]
    last = {"y": b'{"y":[1.75,-1.75]}', "sign": b'{"sign":{"label":"plus",'}[outputs[0].name]
    assert found[-1].value().startswith(last)


def test_at_least_once_may_repeat_outputs_but_never_bends_states():
    # Given a broker without transactions, and a worker that dies between send and commit
    rng, world = random.Random(4), World()
    world.publish_random(rng, 30)
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, "commit", "before", 3)  # the first commits where the group begins
        with pytest.raises(Crash):
            world.run_to_end(guarantee="at-least-once")
    # When the next one continues
    world.run_to_end(guarantee="at-least-once")
    # Then outputs repeat, and every one of them is right
    report = world.report()
    assert report.repeated > 0
    assert (report.lost, report.different) == (0, 0)


def test_headers_and_commit_metadata_name_the_model_and_the_event():
    world = World(partitions=1)
    world.publish("a", {"x": [1, 2]}, timestamp_ms=5)
    world.publish("a", {"x": [1, 2]}, timestamp_ms=6)
    world.run_to_end()
    record = world.broker.records("predictions")[1]
    assert record.headers() == [
        ("source", b"events/0/1"),
        ("timestep", b"1"),
        ("model", b"00000000000000aa"),
    ]
    assert world.broker.group.offsets[0] == (
        2,
        "livestep/2 model=00000000000000aa partitions=1 start=0 topic=memory-1",
    )
