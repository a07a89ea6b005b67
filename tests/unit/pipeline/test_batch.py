"""pack and rank: records become arrays, each key's events in its order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestep import Number
from livestep.pipeline.batch.codec import JsonCodec
from livestep.pipeline.batch.packing import pack, rank
from livestep.pipeline.columns.log_records import records_of
from livestep.pipeline.memory.memory_broker import MemoryRecord

CODEC = JsonCodec([Number("x")], [Number("y")])


def record(offset, key=b"a", value=b'{"x": 1}', partition=0):
    return MemoryRecord(("events", partition, offset), (key, value))


def packed(records, **limits):
    limits = {"key_bytes_max": 10, "value_bytes_max": 50, **limits}
    return pack(records_of("events", records), CODEC, **limits)


keys = st.lists(st.integers(0, 6), min_size=1, max_size=60)


@given(keys)
def test_ranks_are_a_packed_sequence_of_each_keys_events_in_order(key_index):
    ranks = rank(np.array(key_index))

    # Keys stand longest first, and as many as have an event of a rank make up its batch size.
    counts = [key_index.count(row) for row in ranks.rows]
    assert counts == sorted(counts, reverse=True)
    assert set(ranks.rows) == set(key_index)
    assert ranks.batch_sizes.tolist() == [
        sum(count > t for count in counts) for t in range(counts[0])
    ]

    # Packed position (rank t, place i) holds the t-th event of the key in place i.
    at = iter(ranks.events.tolist())
    for t, size in enumerate(ranks.batch_sizes.tolist()):
        for row in ranks.rows[:size]:
            of_key = [i for i, key in enumerate(key_index) if key == row]
            assert next(at) == of_key[t]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([b"a", b"b", b"c"])), max_size=40))
def test_pack_keeps_each_keys_events_in_the_order_of_their_offsets(places):
    records = [
        record(offset, key, b'{"x": %d}' % offset, partition)
        for offset, (partition, key) in enumerate(places)
    ]
    batch = packed(records)

    assert list(batch.records) == list(records_of("events", records))
    assert batch.offsets.tolist() == list(range(len(places)))
    assert [batch.keys[i] for i in batch.key_index] == places
    assert len(set(batch.keys)) == len(list(batch.keys))
    assert batch.inputs.dtype == np.float32
    assert batch.inputs[:, 0].tolist() == batch.offsets.tolist()


def test_the_same_bytes_in_two_partitions_are_two_keys():
    batch = packed([record(0, partition=0), record(0, partition=1)])
    assert list(batch.keys) == [(0, b"a"), (1, b"a")]


def test_next_offsets_point_behind_the_last_record_of_each_partition_bad_ones_too():
    batch = packed([record(3), record(9, partition=1), record(7), record(12, value=b"bad")])
    assert batch.next_offsets == {0: 13, 1: 10}


@pytest.mark.parametrize(
    ("key", "value", "reason", "detail"),
    [
        (None, b'{"x": 1}', "no-key", "the record has no key"),
        (b"", b'{"x": 1}', "no-key", "the record has no key"),
        (b"k" * 11, b'{"x": 1}', "key-too-long", "11 bytes; the limit is 10"),
        (b"a", b"", "empty-value", "empty"),
        (b"a", b" " * 51, "value-too-long", "51 bytes; the limit is 50"),
        (b"a", b"{", "not-json", "truncated"),
        (
            b"a",
            b'{"x": 1e39}',
            "not-finite",
            "input 0 is NaN, infinite, or out of range for float32",
        ),
    ],
)
def test_a_record_that_cant_be_used_is_dead_and_its_neighbours_are_not(key, value, reason, detail):
    bad = record(1, key, value)
    batch = packed([record(0), bad, record(2)])

    (letter,) = batch.dead
    assert (letter.record, letter.reason) == (records_of("events", [bad])[0], reason)
    assert detail in letter.detail
    assert batch.offsets.tolist() == [0, 2]
    assert batch.inputs.tolist() == [[1.0], [1.0]]
    assert [batch.keys[i] for i in batch.key_index] == [(0, b"a")] * 2
    assert len(batch.records) == 2


def test_the_longest_key_and_value_that_are_allowed_are_good():
    batch = packed([record(0, b"k" * 10, b'{"x": 1}'.ljust(50))])
    assert not batch.dead


def test_a_batch_of_invalid_records_has_no_events_and_moves_past_them():
    batch = packed([record(0, None), record(1, value=b"[]")])
    assert (len(batch.dead), len(batch.records), batch.inputs.shape) == (2, 0, (0, 1))
    assert batch.next_offsets == {0: 2}
