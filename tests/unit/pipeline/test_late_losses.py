"""Losses that come at a bad moment: within a save, under an idle partition, before a commit."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from livestep import MemoryStore, run_to_end
from livestep.pipeline.batch.packing import Batch
from livestep.pipeline.engine.cycle import Cycle
from livestep.pipeline.memory.memory_log import MemoryLog
from livestep.pipeline.state.pool import States
from livestep.pipeline.state.store import SaveRefusedError
from livestep.pipeline.types import Offset
from tests.support.crashes import Crash, crash_at
from tests.support.world import World, small_model


def record(offset: int) -> bytes:
    """Write a state's record as the layout does, with one byte of state."""
    return offset.to_bytes(8, "little") + (1).to_bytes(8, "little") + b"s"


def begun(store: MemoryStore) -> MemoryStore:
    store.begin(0, expected=None, applied=Offset(0), start=Offset(0), partitions=1)
    return store


@pytest.mark.parametrize("is_begun_anew", [False, True], ids=["failover", "flush and begin"])
def test_a_save_that_lost_its_first_chunk_is_refused_its_last(is_begun_anew: bool) -> None:
    # Given a save in two chunks, and a store that forgets between them
    store = begun(MemoryStore())
    before = store.copy()
    store.write(0, Offset(0), Offset(9), {b"a": record(7)}, chunk=0, is_last=False)
    store.restore(before)
    if is_begun_anew:
        store.flush()
        begun(store)

    # When its last chunk arrives, then it is refused: `applied` would cover what is not there
    with pytest.raises(SaveRefusedError):
        store.write(0, Offset(0), Offset(9), {b"b": record(8)}, chunk=1, is_last=True)
    assert store.load(0, [b"a", b"b"]) == (0, [None, None])


def test_a_chunk_whose_answer_was_lost_may_be_sent_again() -> None:
    store = begun(MemoryStore())
    for chunk, key, is_last in [
        (0, b"a", False),
        (1, b"b", False),
        (1, b"b", False),
        (2, b"c", True),
    ]:
        store.write(0, Offset(0), Offset(9), {key: record(7)}, chunk=chunk, is_last=is_last)
    assert store.load(0, [b"a", b"b", b"c"]) == (9, [record(7)] * 3)


def test_another_workers_save_of_the_same_offsets_replaces_no_chunk() -> None:
    # Given two saves of the same events, whose chunks differ: one knows of a key that has ended
    store = begun(MemoryStore())
    ended = record(8)[:8] + (-1).to_bytes(8, "little", signed=True)
    late = {b"ended": ended, b"a": record(8), b"b": record(8), b"c": record(8)}
    owners = {key: record(8) for key in (b"a", b"b", b"c", b"d", b"e")}

    def write(records: dict[bytes, bytes], chunk: int, *, is_last: bool = False) -> None:
        some = dict(list(records.items())[2 * chunk : 2 * chunk + 2])
        store.write(0, Offset(0), Offset(9), some, chunk=chunk, is_last=is_last)

    # When they take turns, and one of them does not come to its end
    write(late, 0)
    write(owners, 0)
    write(late, 1)
    write(owners, 1)
    write(owners, 2, is_last=True)

    # Then `applied` covers nothing that is not there
    assert store.load(0, list(owners)) == (9, list(owners.values()))


def test_an_idle_partition_that_began_at_the_log_end_begins_there_also_after_a_loss() -> None:
    # Given a worker that begins with what comes from now on, in a partition where nothing comes
    world = World(partitions=1)
    world.publish("a", {"x": [1, 0]})
    world.run_to_end(auto_offset_reset="latest")

    # When events come while no worker is there, and the store is lost
    world.publish("a", {"x": [2, 0]})
    world.store.flush()
    world.run_to_end(auto_offset_reset="latest")

    # Then they are predicted
    assert world.report().predictions == 1


def test_another_model_meets_an_idle_partition_of_its_predecessor() -> None:
    # Given a group that has begun, and has seen no event
    world = World(partitions=1)
    world.run_to_end()
    assert [
        mark.split()[1]
        for _, mark in MemoryLog(world.broker, world.settings()).committed().values()
    ] == ["model=00000000000000aa"]

    # When another model takes over with zeros, the commit records that before any event comes
    world.model = small_model(1, fingerprint="00000000000000bb")
    world.run_to_end(on_new_model="zeros")
    world.store.flush()
    world.run_to_end()
    assert [
        mark.split()[1]
        for _, mark in MemoryLog(world.broker, world.settings()).committed().values()
    ] == ["model=00000000000000bb"]


def test_history_accepted_as_missing_is_committed_and_not_asked_about_again() -> None:
    # Given a log whose unread events are gone
    rng = random.Random(0)
    world = World(partitions=1)
    world.publish_random(rng, 10)
    world.run_to_end()
    world.publish_random(rng, 10)
    world.broker.delete_records("events", 0, world.broker.bounds("events", 0)[1])

    # When that is accepted once, then the next worker continues without being told
    world.run_to_end(accept_missing_history=True)
    world.run_to_end()


def test_the_store_is_read_before_the_commit_so_that_a_successor_in_between_is_not_a_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a worker, and another one that commits and saves between the two looks of its recovery
    torch.manual_seed(0)
    world = World(partitions=1)
    world.publish_random(random.Random(0), 6)
    world.run_to_end()
    is_overtaken = False

    def overtaken_after(original: Callable[..., Any]) -> Callable[..., Any]:
        def read(*arguments: Any) -> Any:
            nonlocal is_overtaken
            found = original(*arguments)
            if not is_overtaken:
                is_overtaken = True
                world.publish_random(random.Random(1), 6)
                world.run_to_end()
            return found

        return read

    monkeypatch.setattr(MemoryStore, "describe", overtaken_after(MemoryStore.describe))
    monkeypatch.setattr(MemoryLog, "committed", overtaken_after(MemoryLog.committed))

    # When it recovers, then it does not take the other's progress for offsets that were reset
    run_to_end(world.start())
    assert is_overtaken


def test_what_a_replay_skips_is_saved_again_since_the_store_may_have_lost_it_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a worker that dies between two chunks of a save, and a copy of the store before it
    world = World(partitions=1)
    world.store = MemoryStore(save_keys_max=2)
    for i in range(4):
        world.publish(f"k{i}", {"x": [1, i]})
    world.run_to_end()
    behind = world.store.copy()
    for i in range(4):
        world.publish(f"k{i}", {"x": [2, i]})
    with monkeypatch.context() as patch:
        crash_at(patch, "write", "after", 1)
        with pytest.raises(Crash):
            world.run_to_end()

    # When the next one has skipped, in its replay, what the first chunk holds, and then the store
    # fails over to that copy
    load = Cycle.load

    def load_and_fail_over(cycle: Cycle, batch: Batch, *, is_replay: bool) -> States:
        states = load(cycle, batch, is_replay=is_replay)
        if is_replay:
            assert len(batch.records) == 2
            world.store.restore(behind)
        return states

    with monkeypatch.context() as patch:
        patch.setattr(Cycle, "load", load_and_fail_over)
        world.run_to_end()

    # Then no key has lost an event
    for i in range(4):
        world.publish(f"k{i}", {"x": [3, i]})
    world.run_to_end()
    world.assert_truth()
