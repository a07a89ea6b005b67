"""States that somebody has changed are found, named, healed by replay or refused: never stepped."""

import logging
import random

import pytest

from livestep import GRU, MemoryStore, SequenceRules, run_to_end
from livestep.pipeline.engine.damaged_partitions import HEALS_MAX
from livestep.pipeline.errors import HistoryMissingError, OffsetsResetError, StateError
from livestep.pipeline.memory.memory_log import MemoryLog
from livestep.pipeline.state.store import SaveRefusedError
from tests.support.damages import FIELDS, RECORDS, Scene
from tests.support.world import World, loaded, small_model


def publish(world, rng, events, keys=5, time_ms=0):
    """Publish events of the keys key-0, key-1, ... of partition 0, and some in partition 1."""
    for _ in range(events):
        numbers = [round(rng.gauss(0, 1), 3) for _ in range(2)]
        world.publish(
            f"key-{rng.randrange(keys)}", {"x": numbers}, partition=0, timestamp_ms=time_ms
        )
        world.publish("beside", {"x": numbers}, partition=1, timestamp_ms=time_ms)


def scene(world):
    """What is held of partition 0, and two keys of it."""
    scope = f"events/{world.settings().group}/{world.model.fingerprint}"
    fields = world.store.fields(0)
    return Scene(fields, 0, b"key-0", b"key-1", world.model, scope)


def damage(world, changes):
    for field, value in changes.items():
        world.store.change(0, field, value)


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.fixture
def world():
    """Forty events in each of two partitions, predicted by a worker that has left."""
    world = World(partitions=2)
    publish(world, random.Random(0), 40)
    world.run_to_end()
    return world


@pytest.mark.parametrize(("make", "what"), RECORDS.values(), ids=list(RECORDS))
class TestEachKindOfDamagedRecord:
    """They are in `tests.support.damages`; on real Redis they are met in tests/services."""

    def test_it_is_named_and_healed(self, world, caplog, make, what):
        # Given a state that somebody has changed
        damage(world, make(scene(world)))
        # When its key comes again
        publish(world, random.Random(1), 20)
        world.run_to_end()
        # Then one line names key, partition and what is wrong, and the predictions are right
        (line,) = warnings(caplog)
        assert line.startswith("events/0: damaged in Redis: the state of key b'key-0': ")
        assert what in line
        assert "start over at 0 and are replayed to 40" in line
        world.assert_truth()
        # And it stays healed
        caplog.clear()
        publish(world, random.Random(2), 20)
        world.run_to_end()
        assert warnings(caplog) == []
        world.assert_truth()

    def test_it_is_healed_also_where_a_replay_meets_it(self, world, caplog, make, what):
        changes = make(scene(world)) | {b"applied": b"0"}
        # Every key's state is newer than that, or damaged: what a replay makes of it is right.
        damage(world, changes)
        publish(world, random.Random(1), 20)
        world.run_to_end()
        assert what in warnings(caplog)[0]
        world.assert_truth()

    def test_without_its_history_it_is_refused_unless_that_is_accepted(self, world, make, what):
        # Given a damaged state, and a log that no longer reaches back
        damage(world, make(scene(world)))
        world.broker.delete_records("events", 0, before=7)
        publish(world, random.Random(1), 20)
        outputs = len(world.broker.records("predictions"))
        before = world.store.fields(0)
        # When its key comes, then the worker says what is missing, and leaves all as it is
        with pytest.raises(HistoryMissingError, match="offsets 0 to 6 are no longer") as caught:
            world.run_to_end()
        assert "key b'key-0'" in str(caught.value)
        assert what in str(caught.value)
        assert "--accept-missing-history continues from offset 7" in str(caught.value)
        found = [r for r in world.broker.records("predictions")[outputs:] if r.key() == b"key-0"]
        assert found == []
        assert {b"k" + b"key-0": before[b"kkey-0"]}.items() <= world.store.fields(0).items()
        # When that is accepted, then it continues with what is left
        world.run_to_end(accept_missing_history=True)
        assert world.store.describe([0])[0].start == 7


@pytest.mark.parametrize(("changes", "what"), FIELDS.values(), ids=list(FIELDS))
class TestEachKindOfDamagedField:
    def test_it_is_named_and_healed_or_does_no_harm(self, world, caplog, changes, what):
        damage(world, changes)
        publish(world, random.Random(1), 20)
        world.run_to_end()
        lines = warnings(caplog)
        if what is None:
            assert lines == []
        else:
            (line,) = lines
            assert line.startswith("events/0: damaged in Redis: ")
            assert what in line
        world.assert_truth()

    def test_it_is_healed_under_a_worker_that_is_at_work(self, world, changes, what):
        engine = world.start(pool_slots=16, batch_events_max=4)
        run_to_end(engine)
        for round_number in range(3):
            damage(world, changes)
            publish(world, random.Random(round_number), 30, keys=40)
            run_to_end(engine)
        engine.drain()
        world.run_to_end()
        world.assert_truth()


def test_a_state_that_is_damaged_under_a_worker_at_work_is_healed_there(world, caplog):
    # Given a worker that has saved a state and given its slot away
    engine = world.start(pool_slots=16, batch_events_max=8)
    world.publish("key-0", {"x": [1, 2]}, partition=0)
    for number in range(40):
        world.publish(f"another-{number}", {"x": [1, 2]}, partition=0)
    run_to_end(engine)
    # When that state is changed
    damage(world, RECORDS["NaN"][0](scene(world)))
    publish(world, random.Random(2), 20)
    run_to_end(engine)
    # Then it is found before it is stepped, and the worker continues
    (line,) = warnings(caplog)
    assert "key b'key-0'" in line
    assert engine.partitions == [0, 1]
    engine.drain()
    world.assert_truth()


def test_while_a_partition_is_healed_the_others_predict(world):
    # Given a damaged state of partition 0, with a history of many batches
    damage(world, RECORDS["truncated"][0](scene(world)))
    engine = world.start(batch_events_max=4, pool_slots=8)
    world.publish("key-0", {"x": [1, 2]}, partition=0)
    # When it is healed, and events come in partition 1 all the time
    is_healing, predicted, replayed = False, 0, 0
    while not is_healing or "(1 in replay" in engine.status_line():
        world.publish("beside", {"x": [1, 2]}, partition=1)
        if work := engine.poll(0):
            engine.run(work)
            predicted += is_healing and not work.is_replay
            replayed += work.is_replay
        is_healing = is_healing or "(1 in replay" in engine.status_line()
    # Then they are predicted before it is done
    assert replayed == 10
    assert predicted > 5
    run_to_end(engine)
    engine.drain()
    world.assert_truth()


def test_applied_that_is_ahead_of_the_commit_is_refused(world):
    world.store.change(0, b"applied", b"41")
    with pytest.raises(OffsetsResetError, match="up to offset 41.*stepped twice"):
        world.run_to_end()


def test_damage_without_an_end_ends_the_worker(world, caplog):
    # Given a store that damages a key's state whenever it is read
    class Damaging(MemoryStore):
        def load(self, partition, keys):
            applied, records = super().load(partition, keys)
            return applied, [
                b"?" if key == b"key-0" else record
                for key, record in zip(keys, records, strict=True)
            ]

    durable, world.store = world.store, Damaging()
    world.store.restore(durable)
    publish(world, random.Random(1), 20)
    # When it comes again and again, then the worker gives up and reports why
    with pytest.raises(StateError, match=f"damaged again.*{HEALS_MAX} times: the state of key"):
        world.run_to_end(batch_events_max=4, pool_slots=8)
    assert len(warnings(caplog)) == HEALS_MAX


def test_a_damage_now_and_then_is_healed_as_often_as_it_comes(world):
    engine = world.start(batch_events_max=4, pool_slots=8)
    for number in range(2 * HEALS_MAX):
        publish(world, random.Random(number), 20, keys=20)
        run_to_end(engine)
        damage(world, RECORDS["truncated"][0](scene(world)))
        world.publish("key-0", {"x": [1, 2]}, partition=0)
    run_to_end(engine)
    engine.drain()
    world.assert_truth()


def test_a_late_save_between_finding_damage_and_starting_over_does_not_end_the_worker(world):
    # Given a store that gets another worker's late save just before the states start over
    class Late(MemoryStore):
        late = None

        def begin(self, partition, **arguments):
            late, self.late = self.late, None
            if late is not None:
                late()
            super().begin(partition, **arguments)

    behind = world.store.copy()
    publish(world, random.Random(1), 10)
    world.run_to_end()
    ahead, world.store = world.store, Late()
    world.store.restore(behind)
    world.store.late = lambda: world.store.restore(ahead)
    damage(world, RECORDS["truncated"][0](scene(world)))
    # When the damage is healed
    publish(world, random.Random(2), 20)
    world.run_to_end()
    # Then what is written in the end is right
    world.assert_truth()
    world.run_to_end()
    world.assert_truth()


def test_late_saves_are_not_counted_as_healings(world, caplog):
    # Given a store in which late saves come in between, again and again
    class Late(MemoryStore):
        late = HEALS_MAX + 1

        def begin(self, partition, **arguments):
            self.late -= 1
            if self.late >= 0:
                raise SaveRefusedError(partition, arguments["expected"])
            super().begin(partition, **arguments)

    durable, world.store = world.store, Late()
    world.store.restore(durable)
    damage(world, RECORDS["truncated"][0](scene(world)))
    publish(world, random.Random(1), 20)
    # When a damage is repaired, then the worker does not leave
    world.run_to_end()
    assert len(warnings(caplog)) == 1
    world.assert_truth()


def test_a_late_worker_does_not_take_a_half_saved_batch_of_the_next_owner_for_damage(world, caplog):
    # Given a worker that has polled, and then was away for so long that another has its partition
    late = world.start(MemoryLog(world.broker, world.settings(), "late"))
    assert late.poll(0) is None
    publish(world, random.Random(1), 20)
    work = late.poll(0)
    world.broker.group.rebalance({})
    # Whose first save has ended between two of its chunks
    publish(world, random.Random(2), 20)
    before = world.store.copy()
    world.run_to_end()
    saved = world.store.fields(0)
    world.store.restore(before)
    keys = {name[1:]: record for name, record in saved.items() if name.startswith(b"k")}
    world.store.write(0, 40, 80, keys, is_last=False)
    # When it wakes, then it starts nothing over
    late.run(work)
    assert [line for line in warnings(caplog) if "damaged" in line] == []
    assert keys.items() <= {n[1:]: r for n, r in world.store.fields(0).items()}.items()
    publish(world, random.Random(3), 20)
    world.run_to_end()
    world.assert_truth()


class TestDamageToOpenSequences:
    """With a session gap, the open sequences and the clock are read when a worker begins."""

    @pytest.fixture
    def world(self):
        net = GRU(input_size=2, hidden_size=4, output_size=1)
        rules = SequenceRules("many-to-one", session_gap_ms=100)
        world = World(loaded(net, rules=rules), partitions=2)
        publish(world, random.Random(0), 40)
        world.run_to_end()
        return world

    @pytest.mark.parametrize(("make", "what"), RECORDS.values(), ids=list(RECORDS))
    def test_a_record_that_is_never_loaded_is_found_at_the_beginning(
        self, world, caplog, make, what
    ):
        # Given a changed state whose sequence only the clock will end
        damage(world, make(scene(world)))
        # When time continues
        for time_ms in (500, 600, 700, 800):
            world.publish("other", {"x": [1, 2]}, partition=0, timestamp_ms=time_ms)
        world.run_to_end()
        # Then it was named, and each sequence has its answer
        lines = warnings(caplog)
        assert len(lines) == 1, lines
        assert lines[0].startswith("events/0: damaged in Redis: the state of key b'key-0': ")
        assert world.report().is_clean, world.report()

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({b"k": None}, "there are open sequences, but the clock is missing"),
            ({b"k": b""}, "the clock has 0 bytes"),
            ({b"k": bytes(32)}, "the clock has a wrong checksum"),
            ({b"applied": b"3"}, "it has seen 39, but `applied` is 3"),
        ],
        ids=["no clock", "an empty clock", "a clock of zeros", "applied behind"],
    )
    def test_a_changed_clock_is_found_at_the_beginning(self, world, caplog, changes, what):
        damage(world, changes)
        for time_ms in (500, 600, 700, 800):
            world.publish("other", {"x": [1, 2]}, partition=0, timestamp_ms=time_ms)
        world.run_to_end()
        (line,) = warnings(caplog)
        assert what in line
        assert world.report().is_clean, world.report()


def test_another_models_records_under_our_name_are_never_stepped(caplog):
    # Given two models of one shape, and the states of one copied over those of the other
    first, second = World(small_model(0)), World(small_model(1, fingerprint="00000000000000bb"))
    for world in (first, second):
        publish(world, random.Random(0), 40)
        world.run_to_end()
    first.store.restore(second.store)
    # When its keys come
    publish(first, random.Random(1), 20)
    first.run_to_end()
    # Then both partitions have been healed
    assert [line.split(":")[0] for line in warnings(caplog)] == ["events/0", "events/1"]
    first.assert_truth()
