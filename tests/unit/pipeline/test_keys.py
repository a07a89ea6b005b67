"""Keys as columns, and their grouping, native and in Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestep.pipeline.columns.byte_column import PythonByteColumn
from livestep.pipeline.columns.keys import Keys, python_group
from livestep.pipeline.native import native

KITS = [pytest.param((PythonByteColumn, python_group), id="Python")]
if native is not None:
    KITS.append(pytest.param((native.ByteColumn, native.group), id="native"))

a_key = st.tuples(st.integers(0, 3) | st.just(2**31 - 1), st.binary(max_size=40))


def group(kit, keys):
    column, function = kit
    partitions = np.array([partition for partition, _ in keys], dtype=np.int64)
    return function(partitions, column([name for _, name in keys]))


@pytest.fixture(params=KITS)
def kit(request):
    return request.param


def test_keys_are_numbered_in_the_order_of_their_first_event(kit):
    key_index, first = group(kit, [(0, b"b"), (0, b"a"), (1, b"b"), (0, b"b"), (0, b"")])
    assert key_index.tolist() == [0, 1, 2, 0, 3]
    assert first.tolist() == [0, 1, 2, 4]
    assert (key_index.dtype, first.dtype) == (np.int64, np.int64)


def test_no_events_have_no_keys(kit):
    key_index, first = group(kit, [])
    assert (len(key_index), len(first)) == (0, 0)


@pytest.mark.parametrize("kit", KITS)
@given(keys=st.lists(a_key | st.just((0, b"again")), max_size=60))
def test_any_keys_are_grouped_as_a_dictionary_groups_them(kit, keys):
    numbers = {}
    expected = [numbers.setdefault(key, len(numbers)) for key in keys]
    key_index, first = group(kit, keys)
    assert key_index.tolist() == expected
    assert [keys[event] for event in first.tolist()] == list(numbers)


def test_many_keys_are_grouped(kit):
    keys = [(event % 3, b"%d" % (event * 7919 % 5_000)) for event in range(20_000)]
    key_index, first = group(kit, keys)
    assert len(first) == len(set(keys))
    assert [keys[first[number]] for number in key_index.tolist()] == keys


def test_a_missing_name_is_refused(kit):
    with pytest.raises(ValueError, match="key 1 is missing"):
        group(kit, [(0, b"a"), (0, None)])


def test_another_number_of_names_than_partitions_is_refused(kit):
    column, function = kit
    with pytest.raises(ValueError, match="2 partitions for 1 keys"):
        function(np.zeros(2, dtype=np.int64), column([b"a"]))


def test_keys_are_read_and_taken_by_row():
    keys = Keys.of([(5, b"a"), (0, b""), (5, b"c" * 300)])
    assert len(keys) == 3
    assert keys[2] == (5, b"c" * 300)
    assert list(keys.take(np.array([2, 0]))) == [(5, b"c" * 300), (5, b"a")]
    assert keys.names_at(np.array([2, 0])) == [b"c" * 300, b"a"]
    assert len(Keys.of([])) == 0


@given(st.lists(st.integers(0, 5)))
def test_rows_are_grouped_by_partition(partitions):
    keys = Keys.of((partition, b"%d" % row) for row, partition in enumerate(partitions))
    found = {partition: rows.tolist() for partition, rows in keys.by_partition().items()}
    assert found == {
        partition: [row for row, other in enumerate(partitions) if other == partition]
        for partition in set(partitions)
    }


@pytest.mark.parametrize("kit", KITS)
@given(values=st.lists(st.none() | st.binary(max_size=3)))
def test_a_column_holds_what_its_list_holds(kit, values):
    column = kit[0](values)
    assert column.to_list() == [column[row] for row in range(len(values))] == values
    assert column.lengths().tolist() == [-1 if v is None else len(v) for v in values]
    assert column.take(np.arange(len(values))[::-1]).to_list() == values[::-1]
