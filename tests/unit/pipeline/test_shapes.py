"""All shapes of sequence over log and store in memory: the truth, and what heals after a crash."""

import itertools
import random

import pytest

from livestep import MemoryStore
from livestep.pipeline.audit.input_events import READ_ALL_THE_SAME
from livestep.pipeline.memory.memory_log import MemoryLog
from tests.support.crashes import PLACES, Crash, RaggedLog, crash_at
from tests.support.shaped import SHAPES, ShapedEvents, shaped_model
from tests.support.world import DEAD, OUTPUT, World

OTHER_SHAPES = [shape for shape in SHAPES if shape != "encode-decode"]

#: Of `ShapedEvents`, if nothing else is asked for.
KEYS = 5


class ShapedWorld(World):
    """A world with a random model of a shape, and random events for it."""

    def __init__(self, shape, seed, **options):
        self.rng = random.Random(f"{shape}/{seed}")
        super().__init__(shaped_model(self.rng, shape), self.rng.randint(1, 3))
        self.store = MemoryStore(save_keys_max=self.rng.choice([1, 3, 1_000]))
        self.events = ShapedEvents(self.model, self.rng, **{"keys": KEYS, **options})
        self.bad_count = 0

    def publish_shaped(self, count):
        self.publish_records(self.events.take(count))

    def publish_records(self, records):
        for key, value, headers, timestamp_ms, is_bad in records:
            self.publish(key.decode(), value, headers=headers, timestamp_ms=timestamp_ms)
            self.bad_count += is_bad

    def assert_truth(self):
        """Assert that the answers are the offline truth, and that bad records are put aside."""
        report = self.report()
        assert report.is_clean, (self.model.rules, self.model.codec, report)
        bad = [one for one in self.reasons() if one.decode() not in READ_ALL_THE_SAME]
        assert len(bad) == self.bad_count, bad

    def stored_keys(self):
        keys = [b"key-%d" % number for number in range(KEYS)]
        return [
            key
            for partition in range(self.broker.partition_counts[OUTPUT])
            for key, state in zip(keys, self.store.load(partition, keys)[1], strict=True)
            if state is not None
        ]

    def outputs(self):
        return len(self.broker.records(OUTPUT))


@pytest.mark.parametrize("is_saving_behind", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", SHAPES)
def test_answers_are_the_offline_truth_whatever_batches_and_pool(shape, seed, is_saving_behind):
    # Given random events with marks, tombstones and bad ones among them
    world = ShapedWorld(shape, seed, keys=random.Random(seed).choice([1, 4, 30]))
    rng = RaggedLog.rng = world.rng
    for _ in range(2):
        world.publish_shaped(rng.randint(0, 90))
        # When an engine whose pool may be smaller than the keys reads them in batches of any size
        batch = rng.choice([1, 5, 50])
        slots = max(2 * batch, 10) + rng.choice([0, 40])
        log = RaggedLog(world.broker, world.settings())
        world.run_to_end(
            log=log, batch_events_max=batch, pool_slots=slots, is_saving_behind=is_saving_behind
        )
        # Then nothing is lost, repeated, out of order or different
        world.assert_truth()


@pytest.mark.parametrize(
    ("shape", "when", "place"),
    [
        (shape, when, place)
        for number, (when, place) in enumerate(itertools.product(["before", "after"], PLACES))
        # All places for the shape that has everything, and each place for one of the others.
        for shape in ("encode-decode", OTHER_SHAPES[number % len(OTHER_SHAPES)])
    ],
)
def test_a_crash_at_any_call_leaves_the_truth(shape, when, place):
    # Given a worker that dies at a call
    world = ShapedWorld(shape, f"{when}/{place}")
    world.publish_shaped(40)
    for number in (1, 2, 4):
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, place, when, number)
            try:
                world.run_to_end()
            except Crash:
                # When its transaction is aborted by its successor, and sequences continue
                world.publish_shaped(10)
    world.run_to_end()

    # Then the successor's answers and the dead one's are the truth together
    world.assert_truth()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", SHAPES)
def test_random_crashes_and_losses_of_the_store_leave_the_truth(shape, seed):
    world = ShapedWorld(shape, 1_000 + seed)
    rng = world.rng
    backups = [world.store.copy()]
    for _ in range(8):
        # Given more events
        world.publish_shaped(rng.randint(0, 40))
        # When a worker dies anywhere, and the store now and then forgets its last writes or all
        place, when = rng.choice(sorted(PLACES)), rng.choice(["before", "after"])
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, place, when, rng.randint(1, 8))
            try:
                batch = rng.randint(1, 12)
                world.run_to_end(
                    batch_events_max=batch, pool_slots=rng.randint(max(2 * batch, 10), 30)
                )
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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES)
def test_workers_that_come_and_go_in_the_middle_of_sequences_give_the_truth_together(shape, seed):
    # Given up to three workers, of which some think that they still have what others have now
    world = ShapedWorld(shape, 3_000 + seed)
    rng, engines = world.rng, {}
    partitions = range(world.broker.partition_counts[OUTPUT])
    for _ in range(50):
        act = rng.random()
        name = f"worker-{rng.randrange(3)}"
        if act < 0.25:
            world.publish_shaped(rng.randint(1, 20))
        elif act < 0.35 or name not in engines:
            # A second worker of a name fences the first, which is forgotten: it has crashed.
            log = MemoryLog(world.broker, world.settings(), name)
            engines[name] = log, world.start(log)
        elif act < 0.45:
            shares = {log: [] for log, _ in engines.values() if rng.random() < 0.8}
            for partition in partitions:
                if shares:
                    shares[rng.choice(list(shares))].append(partition)
            world.broker.group.rebalance(shares)
        elif act < 0.5:
            engines.pop(name)[1].drain()
        elif work := engines[name][1].poll(0):
            engines[name][1].run(work)
    for _, engine in engines.values():
        engine.drain()
    # When the last one reads to the end, then their answers are the truth together
    world.run_to_end()
    world.assert_truth()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", ["many-to-one", "encode-decode", "synchronized"])
def test_sequences_that_have_ended_leave_no_state_behind(shape, seed):
    # Given keys with states
    world = ShapedWorld(shape, 2_000 + seed)
    world.publish_shaped(100)
    world.run_to_end()
    assert world.stored_keys()

    # When every key is forgotten
    world.publish_records(world.events.ends())
    world.run_to_end(pool_slots=100)

    # Then the store holds none
    assert world.stored_keys() == []
    world.assert_truth()


@pytest.mark.parametrize("shape", ["one-to-one", "one-to-many"])
def test_a_model_that_keeps_nothing_has_nothing_in_the_store(shape):
    world = ShapedWorld(shape, 0)
    world.publish_shaped(60)
    world.run_to_end()
    assert world.outputs() > 0
    assert world.stored_keys() == []


def test_the_random_worlds_have_all_that_they_are_meant_to_have():
    # Given some worlds of each shape
    rules, gaps, finishes, reasons = set(), set(), set(), set()
    for shape in SHAPES:
        for seed in range(10):
            world = ShapedWorld(shape, seed)
            world.publish_shaped(60)
            world.run_to_end()
            # Then there are answers in each of them
            assert world.outputs() > 0
            for link in world.model.rules.feedback:
                rules.add((shape, link.output, link.temperature > 0))
            rules.add((shape, world.model.codec))
            gaps.add(world.model.rules.session_gap_ms)
            for record in world.broker.records(OUTPUT):
                headers = dict(record.headers())
                finishes |= {headers.get("finish"), headers.get("ended-by")}
            reasons |= {
                dict(record.headers())["dead-letter-reason"]
                for record in world.broker.records(DEAD)
            }
    # And all kinds of rules, of ends and of dead letters occur
    for shape in ("many-to-one", "encode-decode", "synchronized"):
        assert {(shape, "letter", True), (shape, "letter", False), (shape, "y", False)} <= rules
    for shape in SHAPES:
        assert {(shape, "json"), (shape, "float32")} <= rules
    assert gaps == {None, 100}
    assert finishes == {None, b"stop", b"steps-max", b"session-gap"}
    assert {b"not-finite-step", b"end-without-beginning", b"bad-mark", b"bad-steps-max"} <= reasons
