"""The rules of the store: the same assertions on the one in memory and on Redis."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from livestep import MemoryStore
from livestep.pipeline.errors import StoreError
from livestep.pipeline.state.redis_address import read_address
from livestep.pipeline.state.redis_connection import make_client
from livestep.pipeline.state.store import (
    CLOCK_KEY,
    LOAD_KEYS_MAX,
    SAVE_KEYS_MAX,
    RedisStore,
    SaveRefusedError,
    Store,
)
from livestep.pipeline.state.stored_partition import DamagedPartition, StoredPartition
from tests.conftest import TopicNames

#: Makes a store that sees what the other ones of the same test have written.
Connect = Callable[[], Store]

#: Changes a field of a partition's hash as somebody else might; None takes it away.
Change = Callable[[int, bytes, bytes | None], None]


@pytest.fixture
def topic_id() -> str:
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(params=["memory", "redis", "cluster"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Where the store is; None is this process."""
    if request.param == "cluster":
        return str(request.getfixturevalue("redis_cluster").url)
    return request.getfixturevalue("redis_url") if request.param == "redis" else None


@pytest.fixture
def connect(url: str | None, topic_id: str) -> Iterator[Connect]:
    if url is None:
        one = MemoryStore()
        yield lambda: one
        return
    made: list[RedisStore] = []

    def connect_redis() -> RedisStore:
        made.append(RedisStore(url, topic_id=topic_id, fingerprint="aa", group="g", wait_s=10))
        return made[-1]

    yield connect_redis
    for store in made:
        store.close()
    with make_client(read_address(url)) as client:
        for name in client.scan_iter(f"livestep:{{{topic_id}:*"):
            client.delete(name)


@pytest.fixture
def change(store: Store, url: str | None, topic_id: str) -> Iterator[Change]:
    if isinstance(store, MemoryStore):
        yield store.change
        return
    assert url is not None
    client = make_client(read_address(url))

    def change_redis(partition: int, field: bytes, value: bytes | None) -> None:
        (name,) = client.scan_iter(f"livestep:{{{topic_id}:{partition}}}:*")
        if value is None:
            client.hdel(name, field)
        else:
            client.hset(name, field, value)

    yield change_redis
    client.close()


@pytest.fixture
def store(connect: Connect) -> Store:
    """A store in which partition 0 has begun at offset 10."""
    store = connect()
    store.begin(0, expected=None, applied=10, start=10, partitions=4)
    return store


def record(offset: int, state: bytes = b"state", timesteps: int = 1) -> bytes:
    """Write a record as `StateRecords.write` does; no store looks at its checksum."""
    return (
        offset.to_bytes(8, "little", signed=True)
        + timesteps.to_bytes(8, "little", signed=True)
        + state
    )


def save(store: Store, expected: int, applied: int, records: dict[bytes, bytes]) -> None:
    keys, values = list(records), list(records.values())
    store.save(0, expected=expected, applied=applied, keys=keys, records=values)


def scanned(store: Store, partition: int) -> dict[bytes, bytes]:
    return {key: found for some in store.scan(partition) for key, found in some.items()}


def about(store: Store, partition: int = 0) -> Any:
    return store.describe([partition])[partition]


def test_nothing_is_held_of_a_partition_that_has_not_begun(store: Store) -> None:
    assert store.describe([7, 0, 8])[7] is None
    assert store.load(7, [b"a"]) == (None, [None])


def test_what_has_begun_is_described(store: Store) -> None:
    found = about(store)
    assert (found.applied, found.start, found.partitions, found.has_states) == (10, 10, 4, False)


def test_saved_records_come_back_in_the_order_asked_for(store: Store) -> None:
    save(store, 10, 15, {b"a": record(11), b"b": record(14, b"other"), b"": record(12)})
    assert store.load(0, [b"b", b"x", b"a", b""]) == (
        15,
        [record(14, b"other"), None, record(11), record(12)],
    )
    assert (about(store).applied, about(store).start, about(store).has_states) == (15, 10, True)


@pytest.mark.parametrize("key", [b"applied", b"start", b"partitions", b"\x00\xff\n", b"k" * 1000])
def test_any_bytes_may_be_a_key(store: Store, key: bytes) -> None:
    save(store, 10, 15, {key: record(11)})
    assert store.load(0, [key]) == (15, [record(11)])
    assert about(store).applied == 15


def test_a_save_moves_applied_also_without_states(store: Store) -> None:
    save(store, 10, 15, {})
    assert (about(store).applied, about(store).has_states) == (15, False)


@pytest.mark.parametrize("expected", [9, 11])
def test_a_save_that_expects_another_applied_is_refused_and_writes_nothing(
    store: Store, expected: int
) -> None:
    with pytest.raises(SaveRefusedError, match="applied is 10") as caught:
        save(store, expected, 15, {b"a": record(11)})
    assert caught.value.partition == 0
    assert store.load(0, [b"a"]) == (10, [None])


def test_a_save_into_what_is_lost_is_refused(store: Store) -> None:
    with pytest.raises(SaveRefusedError, match="applied is None"):
        store.save(3, expected=10, applied=15, keys=[b"a"], records=[record(11)])
    assert store.load(3, [b"a"]) == (None, [None])


def test_a_save_whose_answer_was_lost_may_be_sent_again(store: Store) -> None:
    for _ in range(2):
        save(store, 10, 15, {b"a": record(14)})
    assert store.load(0, [b"a"]) == (15, [record(14)])


def test_a_state_never_goes_back(store: Store) -> None:
    # Given a state that is newer than applied: what a crash between two chunks leaves
    save(store, 10, 10, {b"a": record(20, b"newer"), b"b": record(11)})
    # When replay saves what it has seen up to there
    save(store, 10, 15, {b"a": record(12, b"older"), b"b": record(14), b"c": record(13)})
    # Then the newer one stays
    assert store.load(0, [b"a", b"b", b"c"]) == (
        15,
        [record(20, b"newer"), record(14), record(13)],
    )


def test_offsets_are_compared_as_signed_numbers_of_64_bits(store: Store) -> None:
    save(store, 10, 15, {b"a": record(255), b"b": record(-1)})
    save(store, 15, 300, {b"a": record(256), b"b": record(0)})
    assert store.load(0, [b"a", b"b"]) == (300, [record(256), record(0)])


def test_the_same_offset_is_not_newer(store: Store) -> None:
    save(store, 10, 15, {b"a": record(14, b"first")})
    save(store, 15, 16, {b"a": record(14, b"again")})
    assert store.load(0, [b"a"]) == (16, [record(14, b"first")])


def test_a_state_that_has_ended_is_not_kept(store: Store) -> None:
    # Given the states of two keys
    save(store, 10, 20, {b"a": record(15), b"b": record(16)})

    # When one of them has ended, at a later offset
    save(store, 20, 30, {b"a": record(25, timesteps=-1)})

    # Then there is nothing of it, until it has seen something again
    assert store.load(0, [b"a", b"b"]) == (30, [None, record(16)])
    save(store, 30, 40, {b"a": record(35), b"b": record(36, timesteps=-1)})
    assert store.load(0, [b"a", b"b"]) == (40, [record(35), None])


def test_a_state_that_has_begun_and_stepped_nothing_yet_is_kept(store: Store) -> None:
    save(store, 10, 20, {b"a": record(15, timesteps=0)})
    assert store.load(0, [b"a"]) == (20, [record(15, timesteps=0)])


def test_an_older_end_does_not_take_a_newer_state(store: Store) -> None:
    save(store, 10, 20, {b"a": record(18)})
    save(store, 20, 30, {b"a": record(15, timesteps=-1)})
    assert store.load(0, [b"a"]) == (30, [record(18)])


def test_starting_over_drops_what_was_stored(store: Store) -> None:
    save(store, 10, 15, {b"a": record(14)})
    store.begin(0, expected=15, applied=30, start=30, partitions=5)
    found = about(store)
    assert (found.applied, found.start, found.partitions, found.has_states) == (30, 30, 5, False)
    assert store.load(0, [b"a"]) == (30, [None])


@pytest.mark.parametrize("expected", [None, 9])
def test_beginning_what_another_has_begun_is_refused(store: Store, expected: int | None) -> None:
    save(store, 10, 15, {b"a": record(14)})
    with pytest.raises(SaveRefusedError, match="applied is 15"):
        store.begin(0, expected=expected, applied=30, start=30, partitions=4)
    assert store.load(0, [b"a"]) == (15, [record(14)])


def test_beginning_what_is_lost_meanwhile_is_refused(store: Store) -> None:
    with pytest.raises(SaveRefusedError, match="applied is None"):
        store.begin(3, expected=10, applied=30, start=30, partitions=4)
    assert about(store, 3) is None


def test_beginning_twice_with_the_same_offset_is_one_begin(store: Store) -> None:
    store.begin(0, expected=None, applied=10, start=10, partitions=4)
    assert about(store).applied == 10


def test_partitions_do_not_see_each_other(store: Store) -> None:
    store.begin(1, expected=None, applied=0, start=0, partitions=4)
    save(store, 10, 15, {b"a": record(14)})
    assert store.load(1, [b"a"]) == (0, [None])
    assert about(store, 1).has_states is False


def test_a_save_and_a_load_of_many_keys_are_whole(store: Store) -> None:
    # Given more keys than one call takes
    count = max(2 * SAVE_KEYS_MAX, LOAD_KEYS_MAX) + 1
    records = {b"%d" % n: record(11 + n, b"%d" % n) for n in range(count)}
    save(store, 10, 50_000, records)
    # Then all are there, and a refused one leaves none
    assert store.load(0, list(records)) == (50_000, list(records.values()))
    with pytest.raises(SaveRefusedError):
        save(store, 10, 60_000, dict.fromkeys(records, record(59_999)))
    assert store.load(0, list(records)) == (50_000, list(records.values()))


def test_two_workers_see_each_others_saves_and_the_slower_one_is_refused(connect: Connect) -> None:
    first, second = connect(), connect()
    first.begin(0, expected=None, applied=10, start=10, partitions=4)
    save(second, 10, 15, {b"a": record(14)})
    with pytest.raises(SaveRefusedError, match="applied is 15"):
        save(first, 10, 12, {b"a": record(11)})
    assert first.load(0, [b"a"]) == (15, [record(14)])


def test_a_save_whose_first_chunk_was_lost_on_the_way_is_refused(connect: Connect) -> None:
    # Given a save of several chunks, and a store that is flushed and reset between two of them
    store = connect()
    store.begin(0, expected=None, applied=10, start=10, partitions=4)

    class Forgotten(list[bytes]):
        """Records; taking the second chunk of them makes the store forget the first."""

        def __getitem__(self, part: Any) -> Any:
            if isinstance(part, slice) and part.start:
                store.begin(0, expected=10, applied=10, start=10, partitions=4)
            return super().__getitem__(part)

    keys = [b"%d" % i for i in range(SAVE_KEYS_MAX + 1)]
    records = Forgotten(record(10) for _ in keys)

    # When its last chunk arrives, then it is refused: `applied` would cover what is not there
    with pytest.raises(SaveRefusedError):
        store.save(0, expected=10, applied=11, keys=keys, records=records)
    assert about(store).applied == 10


def test_a_save_with_a_clock_is_one_save_and_its_times_can_be_read(store: Store) -> None:
    # Given more states than one call takes, each with a time at its end, and a clock
    count = SAVE_KEYS_MAX * 2 + 1
    keys = [b"%d" % i for i in range(count)]
    records = [record(i, b"s" + (1_000 + i).to_bytes(8, "little")) for i in range(count)]
    assert list(scanned(store, 0)) == []

    # When they are saved
    store.save(0, expected=10, applied=count, keys=keys, records=records, clock=record(9, b"clock"))

    # Then all of them are there, and the clock, which is not a key
    assert store.load(0, [CLOCK_KEY, b"0", keys[-1]])[1] == [
        record(9, b"clock"),
        records[0],
        records[-1],
    ]
    assert scanned(store, 0) == dict(zip(keys, records, strict=True))
    assert scanned(store, 1) == {}


#: What `applied`, `start` and `partitions` may not be, and what is said of it.
BAD_FIELDS = {
    "no number": ({"applied": b"ten"}, "field `applied` is b'ten'"),
    "a number with a space": ({"applied": b" 10"}, "field `applied` is b' 10'"),
    "a number with a zero before it": ({"applied": b"010"}, "field `applied`"),
    "negative": ({"applied": b"-1"}, "field `applied`"),
    "beyond an int64": ({"applied": b"9" * 19}, "field `applied`"),
    "very long": ({"applied": b"1" * 5_000}, "field `applied`"),
    "empty": ({"applied": b""}, "field `applied` is b''"),
    "missing": ({"applied": None}, "field `applied` is missing"),
    "no start": ({"start": None}, "field `start` is missing"),
    "start no number": ({"start": b"\xff"}, "field `start`"),
    "start beyond applied": (
        {"start": b"11"},
        "field `start` is 11, larger than `applied`",
    ),
    "partitions no number": ({"partitions": b"4.0"}, "field `partitions`"),
}


@pytest.mark.parametrize(("changes", "detail"), BAD_FIELDS.values(), ids=list(BAD_FIELDS))
def test_an_invalid_field_is_named_and_the_partition_can_start_over(
    store: Store, change: Change, changes: dict[str, bytes | None], detail: str
) -> None:
    # Given a field that somebody has changed
    save(store, 10, 10, {b"a": record(9)})
    for name, value in changes.items():
        change(0, name.encode(), value)

    # When it is described, then it is named, and a load takes it for none
    found = about(store)
    assert isinstance(found, DamagedPartition)
    assert detail in found.detail
    assert found.has_states
    if "applied" in changes:
        assert store.load(0, [b"a"]) == (None, [record(9)])
        with pytest.raises(SaveRefusedError):
            save(store, 10, 15, {})

    # And the partition starts over, by a worker that has seen those bytes
    with pytest.raises(SaveRefusedError):
        store.begin(0, expected=b"others", applied=3, start=3, partitions=4)
    store.begin(0, expected=found.applied, applied=3, start=3, partitions=4)
    assert about(store) == StoredPartition(3, 3, 4, has_states=False)


@pytest.mark.parametrize("old", [b"", b"short", record(99)[:15]])
def test_bytes_too_short_for_a_record_are_replaced_by_a_record(
    store: Store, change: Change, old: bytes
) -> None:
    change(0, b"ka", old)
    change(0, b"kb", old)
    save(store, 10, 15, {b"a": record(11), b"b": record(12, timesteps=-1)})
    assert store.load(0, [b"a", b"b"]) == (15, [record(11), None])


def test_fields_that_are_none_of_ours_are_passed_over(store: Store, change: Change) -> None:
    save(store, 10, 15, {b"a": record(11)})
    change(0, b"other", b"?")
    assert scanned(store, 0) == {b"a": record(11)}
    assert about(store).applied == 15


def test_a_key_that_holds_no_hash_is_named(
    redis_url: str, redis_client: redis.Redis, topic_names: TopicNames
) -> None:
    # Given a string where the states of partition 1 should be
    name = topic_names("t")
    key = f"livestep:{{{name}:1}}:aa:g"
    redis_client.set(key, "mine")
    store = RedisStore(redis_url, topic_id=name, fingerprint="aa", group="g", wait_s=10)

    # When anything is done with them, then the error names it and says what to do
    attempts: list[Callable[[], object]] = [
        lambda: store.describe([0, 1]),
        lambda: store.load(1, [b"a"]),
        lambda: list(store.scan(1)),
        lambda: store.begin(1, expected=None, applied=3, start=3, partitions=4),
        lambda: store.save(1, expected=1, applied=3, keys=[b"a"], records=[record(1)]),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match="partition 1.*Delete the key") as caught:
            attempt()
        assert key in str(caught.value)
    assert redis_client.get(key) == b"mine"
    store.close()
    redis_client.delete(key)
