"""Columns of bytes and the columns made of them, native and in Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestep.pipeline.columns.byte_column import ByteColumn, PythonByteColumn
from livestep.pipeline.columns.log_records import LogRecord, records_of
from livestep.pipeline.columns.outgoing_columns import (
    OutgoingColumns,
    python_decimal_column,
    python_source_column,
)
from livestep.pipeline.memory.memory_broker import MemoryRecord
from livestep.pipeline.native import native
from livestep.pipeline.records import Source

COLUMNS = [pytest.param(PythonByteColumn, id="Python")]
TEXTS = [pytest.param((python_decimal_column, python_source_column), id="Python")]
if native is not None:
    COLUMNS.append(pytest.param(native.ByteColumn, id="native"))
    TEXTS.append(pytest.param((native.decimal_column, native.source_column), id="native"))

values = st.lists(st.none() | st.binary(max_size=30), max_size=40)
numbers = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)


@pytest.mark.parametrize("column", COLUMNS)
@given(values=values)
def test_a_column_has_the_strings_that_it_was_made_of(column, values):
    made = column(values)
    assert made.to_list() == list(made) == values
    assert [made[i] for i in range(len(made))] == values
    assert made.lengths().tolist() == [-1 if v is None else len(v) for v in values]
    assert made.lengths().dtype == np.int64


@pytest.mark.parametrize("column", COLUMNS)
@given(values=values.filter(bool), data=st.data())
def test_rows_are_taken_in_any_order_and_as_often_as_named(column, values, data):
    rows = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=30))
    taken = column(values).take(np.array(rows, dtype=np.int64))
    assert taken.to_list() == [values[row] for row in rows]


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("values", [[None], [None, b"a"], [b"a", None], [None, None, b""]])
def test_a_missing_string_is_not_an_empty_one_wherever_it_is(column, values):
    assert column(values).to_list() == values


@pytest.mark.parametrize("column", COLUMNS)
def test_a_row_that_does_not_exist_is_an_error(column):
    with pytest.raises(IndexError):
        column([b"a"])[1]
    with pytest.raises(IndexError):
        column([b"a"]).take(np.array([0, 1]))


@pytest.mark.skipif(native is None, reason="the native loops are not built")
@pytest.mark.parametrize("value", ["text", 1, bytearray(b"a")])
def test_anything_but_bytes_or_none_is_refused_by_the_native_column(value):
    with pytest.raises(TypeError):
        native.ByteColumn([value])


@pytest.mark.parametrize("texts", TEXTS)
@given(numbers=numbers)
def test_numbers_are_written_as_python_writes_them(texts, numbers):
    decimal_column, _ = texts
    column = decimal_column(np.array(numbers, dtype=np.int64))
    assert column.to_list() == [b"%d" % number for number in numbers]


@pytest.mark.parametrize("texts", TEXTS)
@given(places=st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1))))
def test_sources_are_written_as_their_class_writes_them(texts, places):
    _, source_column = texts
    partitions = np.array([partition for partition, _ in places], dtype=np.int64)
    offsets = np.array([offset for _, offset in places], dtype=np.int64)
    column = source_column("wétter".encode(), partitions, offsets)
    assert column.to_list() == [Source("wétter", *place).to_bytes() for place in places]


def test_records_are_taken_with_their_headers():
    messages = [
        MemoryRecord(("events", i % 2, i), (b"k%d" % i, None), 10 + i, [("n", b"x")] * (i % 3))
        for i in range(6)
    ]
    records = records_of("events", messages)
    taken = records.take(np.array([5, 0, 4]))
    assert list(taken) == [records[5], records[0], records[4]]
    assert records[4] == LogRecord("events", 0, 4, 14, b"k4", None, [("n", b"x")])
    assert (taken[1].headers, len(taken[0].headers)) == ([], 2)
    assert records.ends() == {0: 5, 1: 6}


def test_a_record_has_the_headers_of_the_columns_that_have_one_for_it():
    columns = OutgoingColumns(
        keys=ByteColumn([b"a", b"b"]),
        values=ByteColumn([b"1", None]),
        partitions=np.array([3, 0]),
        timestamps_ms=np.array([7, 8]),
        headers=[("every", b"x"), ("some", ByteColumn([None, b"y"]))],
    )
    assert list(columns) == [
        (b"a", b"1", 3, 7, [("every", b"x")]),
        (b"b", None, 0, 8, [("every", b"x"), ("some", b"y")]),
    ]
