"""Session gaps: which sequences the log's clock ends, batch by batch, and again after a restart."""

import random

import numpy as np
import pytest
import torch

from livestep import GRU, MemoryStore, SequenceRules, run_to_end
from livestep.models.sequences.rules import GAP_ENDS_MAX
from livestep.models.sequences.session_gaps import session_gaps
from livestep.pipeline.batch.marks import BARE, END, FORGET, GAP, START
from livestep.pipeline.batch.packing import Batch
from livestep.pipeline.batch.sessions import Sessions
from livestep.pipeline.columns.keys import Keys
from livestep.pipeline.columns.log_records import records_of
from livestep.pipeline.errors import ConfigError
from livestep.pipeline.memory.memory_broker import MemoryRecord
from livestep.pipeline.types import NO_TIME
from tests.support.shaped import Fragile
from tests.support.world import World, loaded

GAP_END = END | BARE | GAP


def batch_of(events, first_offset=0, partition=0):
    """Make a batch of (key, time, marks)."""
    keys = sorted({key for key, _, _ in events})
    count = len(events)
    return Batch(
        records=records_of(
            "events",
            [
                MemoryRecord(("events", partition, first_offset + i), (key, b"x"), time)
                for i, (key, time, _) in enumerate(events)
            ],
        ),
        inputs=np.ones((count, 1), np.float32),
        key_index=np.array([keys.index(key) for key, _, _ in events], np.int64),
        marks=np.array([marks for _, _, marks in events], np.uint8),
        steps_max=np.full(count, 3),
        keys=Keys.of((partition, key) for key in keys),
        next_offsets={partition: first_offset + count},
    )


def sessions_of(*times, clock=NO_TIME, gap_ms=10):
    sessions = Sessions(gap_ms)
    sessions.begin(0, clock, times)
    return sessions


def ended(batch):
    """Return event's offset and key of each end that was put in."""
    return [
        (int(batch.offsets[i]), batch.keys[batch.key_index[i]][1])
        for i in np.flatnonzero(batch.marks == GAP_END)
    ]


def test_a_record_of_another_key_ends_what_is_idle_for_longer_than_the_gap():
    batch = batch_of([(b"a", 0, 0), (b"b", 10, 0), (b"b", 11, 0)])
    sessions_of().read(batch)
    assert ended(batch) == [(2, b"a")]
    # The end stands before that record, shares it, and has no features.
    assert batch.marks.tolist() == [0, 0, GAP_END, 0]
    assert batch.inputs.ravel().tolist() == [1, 1, 0, 1]
    assert batch.steps_max.tolist() == [3, 3, 0, 3]
    assert batch.records[2] == batch.records[3]
    assert batch.clocks.tolist() == [0, 10, 11, 11]
    assert batch.event_count == 3


def test_a_key_that_the_batch_has_no_event_of_becomes_one_of_its_keys():
    batch = batch_of([(b"b", 50, 0)])
    sessions_of((7, 39, b"a"), clock=39).read(batch)
    assert ended(batch) == [(0, b"a")]
    assert list(batch.keys) == [(0, b"b"), (0, b"a")]


def test_the_clock_never_goes_back_and_counts_instead_of_the_events_own_time():
    # Given an event that is late by itself, behind a clock of 100
    batch = batch_of([(b"a", 100, 0), (b"b", 5, 0), (b"a", 110, 0), (b"a", 111, 0)])
    sessions_of().read(batch)
    assert batch.clocks.tolist() == [100, 100, 110, 111, 111]
    assert ended(batch) == [(3, b"b")]


def test_a_record_ends_its_own_keys_sequence_first_however_many_are_idle_for_longer():
    idle = [(i, i, b"%d" % i) for i in range(GAP_ENDS_MAX + 1)]
    late = b"%d" % GAP_ENDS_MAX
    batch = batch_of([(late, 1_000, 0), (b"x", 1_000, 0)])
    sessions_of(*idle, clock=9).read(batch)
    assert ended(batch) == [(0, late), (0, b"0"), (0, b"1"), (0, b"2"), (1, b"3")]


def test_a_record_ends_its_own_keys_sequence_also_if_that_began_in_the_same_batch():
    batch = batch_of([(b"a", 0, 0), (b"a", 11, 0), (b"a", 12, 0)])
    sessions_of().read(batch)
    assert ended(batch) == [(1, b"a")]


@pytest.mark.parametrize("marks", [END, FORGET | BARE, START | BARE])
def test_what_has_ended_or_not_begun_is_not_ended_by_a_gap(marks):
    batch = batch_of([(b"a", 0, 0), (b"a", 1, marks), (b"b", 99, 0)])
    sessions_of().read(batch)
    assert ended(batch) == []


def test_one_record_ends_a_few_sequences_the_longest_idle_first_and_the_next_ones_continue():
    idle = [(i, i // 2, b"%02d" % i) for i in range(2 * GAP_ENDS_MAX + 1)]
    batch = batch_of([(b"x", 1_000 + i, 0) for i in range(4)])
    sessions_of(*reversed(idle), clock=8).read(batch)
    assert ended(batch) == [(i // GAP_ENDS_MAX, b"%02d" % i) for i in range(len(idle))]


def test_a_batch_that_is_aborted_leaves_no_trace():
    # Given a batch that was read, and then aborted
    sessions = sessions_of((1, 0, b"a"), (2, 3, b"b"), clock=3)
    first = batch_of([(b"b", 12, 0), (b"c", 30, 0)])
    sessions.read(first)

    # When it is read again, shorter than before
    again = batch_of([(b"b", 12, 0)])
    sessions.read(again)
    sessions.keep([0])

    # Then only what the second reading has seen counts
    assert ended(again) == [(0, b"a")]
    assert sessions.clock(0) == 12
    last = batch_of([(b"d", 23, 0)])
    sessions.read(last)
    assert ended(last) == [(0, b"b")]


@pytest.mark.parametrize("seed", range(30))
def test_any_batches_with_restarts_in_between_equal_the_plain_form(seed):
    # Given a log of some keys with ends, tombstones and idle times, many at the same moment
    rng = random.Random(seed)
    time, log = 0, []
    for _ in range(200):
        time += rng.choice([0, 0, 0, 1, 4, 30, -3])
        marks = rng.choice([0, 0, 0, 0, END, FORGET | BARE, START, START | BARE])
        log.append((b"k%d" % rng.randrange(40), time, marks))
    opens = [not marks & (END | FORGET) and marks != START | BARE for _, _, marks in log]
    records = [(key, time, is_open) for (key, time, _), is_open in zip(log, opens, strict=True)]
    expected = [
        (offset, key) for offset, keys in enumerate(session_gaps(10, records)) for key in keys
    ]

    # When it is read in batches of any size, some of them aborted, and restarts in between
    sessions, found, at, held = sessions_of(), [], 0, {}
    while at < len(log):
        size = rng.choice([1, 3, 20])
        batch = batch_of(log[at : at + size], at)
        sessions.read(batch)
        if rng.random() < 0.2:
            continue
        sessions.keep([0])
        found += ended(batch)
        for i, row in enumerate(batch.key_index.tolist()):
            key, marks = batch.keys[row][1], int(batch.marks[i])
            held.pop(key, None)
            if not marks & (END | FORGET) and marks != START | BARE:
                held[key] = (int(batch.offsets[i]), int(batch.clocks[i]), key)
        at += size
        if rng.random() < 0.2:
            times = list(held.values())
            rng.shuffle(times)
            clock = sessions.clock(0)
            sessions = sessions_of(*times, clock=clock)

    # Then the same sequences end at the same records
    assert found == expected
    assert len(found) > 10


class Interrupted(MemoryStore):
    """A store into which another worker's late save comes while the times are read."""

    def __init__(self):
        super().__init__()
        self.late_save = None
        self.readings = 0

    def scan(self, partition):
        self.readings += 1
        found = list(super().scan(partition))
        late_save, self.late_save = self.late_save, None
        if late_save is not None:
            late_save()
        return iter(found)


def test_a_save_that_comes_in_while_the_times_are_read_makes_them_be_read_again():
    # Given a worker of a model with a session gap, whose last save is still on its way
    model = loaded(
        GRU(input_size=2, hidden_size=4, output_size=1),
        rules=SequenceRules("many-to-one", session_gap_ms=10),
    )
    world = World(model, partitions=1)
    world.store = Interrupted()
    for time in (0, 1, 20, 22):
        world.publish(f"k{time}", {"x": [1, time]}, timestamp_ms=time)
    world.run_to_end()
    behind = world.store.copy()
    world.publish("k40", {"x": [1, 40]}, timestamp_ms=40)
    world.run_to_end()
    ahead = world.store.copy()
    world.store.restore(behind)

    # When it arrives while the next worker reads which sequences are open
    world.store.late_save = lambda: world.store.restore(ahead)
    world.publish("k60", {"x": [1, 60]}, timestamp_ms=60)
    before = world.store.readings
    engine = world.start()
    work = engine.poll(0)
    assert world.store.readings == before + 2

    # Then the sequences end where the log says
    if work is not None:
        engine.run(work)
    run_to_end(engine)
    engine.drain()
    assert world.report().is_clean, world.report()


def fragile_model():
    """A model whose step is not finite where its first input is huge."""
    torch.manual_seed(0)
    net = Fragile(GRU(input_size=2, hidden_size=4, output_size=1))
    return loaded(net, rules=SequenceRules("many-to-one", session_gap_ms=10))


def test_a_sequence_whose_events_were_all_left_out_is_open_also_after_a_restart():
    # Given a key whose only step was left out, and as many others as one record ends
    world = World(fragile_model(), partitions=1)
    world.publish("left out", {"x": [2e30, 0]}, timestamp_ms=0)
    for i in range(GAP_ENDS_MAX):
        world.publish(f"k{i}", {"x": [1, i]}, timestamp_ms=1 + i)
    world.run_to_end()

    # When another worker reads the records that end them
    for time in (100, 101):
        world.publish(f"r{time}", {"x": [1, 1]}, timestamp_ms=time)
    world.run_to_end()

    # Then the last of them is ended by the second record, as if there had been no restart
    assert world.report().is_clean, world.report()
    assert world.report().predictions == GAP_ENDS_MAX


def test_a_pool_that_could_not_hold_what_one_event_ends_is_refused():
    with pytest.raises(ConfigError, match="--pool-slots 9 is too small"):
        World(fragile_model()).start(batch_events_max=1, pool_slots=9)


def test_the_smallest_pool_holds_what_one_event_ends():
    world = World(fragile_model(), partitions=1)
    for i in range(8):
        world.publish(f"k{i}", {"x": [1, i]}, timestamp_ms=i)
    for time in (100, 101, 102):
        world.publish("r", {"x": [1, 1]}, timestamp_ms=time)
    for _ in range(2):
        world.run_to_end(batch_events_max=1, pool_slots=10)
        world.store.flush()
    assert world.report().is_clean, world.report()
