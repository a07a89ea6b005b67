"""Rows are sent exactly or not at all: nothing is rounded, hidden or truncated."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import click
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestep import GRU, Number, save_model
from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.publishing.columns import BadRow, EventColumns
from livestep.pipeline.publishing.files import LineError
from livestep.pipeline.publishing.json_lines import read_object
from livestep.pipeline.publishing.limits import TopicLimits
from livestep.pipeline.publishing.setup import columns_of, open_source

KEY = EventColumns(("k",))


def records_of(
    text: str, columns: EventColumns = KEY, codec: str | None = None, model: str | None = None
) -> list[EventRecord | BadRow]:
    file_format = "jsonl" if text.lstrip("\ufeff").startswith("{") else "csv"
    blocks = [io.BytesIO(text.encode()).readlines()]
    source = open_source(blocks, "file", file_format, columns, model, codec)
    return [one for batch in source.batches(TopicLimits()) for one in batch]


def told(records: list[EventRecord | BadRow]) -> list[Any]:
    """Return values as they are read, and the reasons of bad rows."""
    return [
        one.reason if isinstance(one, BadRow) else orjson.loads(one.value or b"null")
        for one in records
    ]


def reason_of(record: EventRecord | BadRow) -> str:
    assert isinstance(record, BadRow), record
    return record.reason


# ---- integers


@pytest.mark.parametrize(
    "number", ["9223372036854775808", "12345678901234567890", str(2**64 - 1), str(-(2**63))]
)
def test_an_integer_of_64_bits_keeps_its_digits(number: str) -> None:
    for text in (f"k,a\nx,{number}\n", f'{{"k":"x","a":{number}}}'):
        (record,) = records_of(text)
        assert isinstance(record, EventRecord)
        assert record.value == b'{"a":%b}' % number.encode()


@pytest.mark.parametrize("number", [str(2**64), str(-(2**63) - 1), "9" * 30])
def test_an_integer_of_more_than_64_bits_is_refused_not_rounded(number: str) -> None:
    for text in (
        f"k,a\nx,{number}\n",
        f'{{"k":"x","a":{number}}}',
        f'{{"k":"x","a":[{{"b":{number}}}]}}',
    ):
        (row,) = records_of(text)
        assert reason_of(row).startswith(f"{number!r} is an integer of more than 64 bits")
        assert "in quotes" in reason_of(row)
    assert told(records_of(f'{{"k":"x","a":"{number}"}}')) == [{"a": number}]


@pytest.mark.parametrize("number", [str(2**64), str(-(2**63) - 1), "9" * 30, "7" * 19])
def test_a_key_keeps_its_digits(number: str) -> None:
    for text in (f"k,a\n{number},1\n", f'{{"k":{number},"a":1}}'):
        (record,) = records_of(text)
        assert isinstance(record, EventRecord)
        assert (record.key, record.value) == (number.encode(), b'{"a":1}')


def test_an_integer_that_python_refuses_to_parse_is_a_bad_row() -> None:
    (row,) = records_of('{"k":"x","a":' + "9" * 5000 + "}")
    assert isinstance(row, BadRow)


@pytest.mark.parametrize("codec", ["json", "float32"])
def test_numbers_of_a_model_are_float32_whatever_their_digits(tmp_path: Any, codec: Any) -> None:
    save_model(GRU(1, 2, 1), tmp_path, [Number("a")], [Number("y")], codec)
    for number in (2**64, 10**30):
        for text in (f"k,a\nx,{number}\n", f'{{"k":"x","a":{number}}}'):
            (record,) = records_of(text, model=str(tmp_path))
            assert isinstance(record, EventRecord), record
    for number in (10**60, 10**400):
        for text in (f"k,a\nx,{number}\n", f'{{"k":"x","a":{number}}}'):
            (row,) = records_of(text, model=str(tmp_path))
            assert isinstance(row, BadRow)


def test_a_vector_accepts_an_integer_of_more_than_64_bits_as_float32() -> None:
    number = 2**70
    for text in (f"k,a\nx,{number}\n", f'{{"k":"x","a":[{number}]}}'):
        (record,) = records_of(text, codec="float32")
        assert isinstance(record, EventRecord)
        assert np.frombuffer(record.value or b"", "<f4").tolist() == [float(number)]
    (row,) = records_of('{"k":"x","a":' + str(10**400) + "}", codec="float32")
    assert "number is infinity" in reason_of(row)


# ---- members of JSON


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('{"k":"x","a":1,"a":2}', "a"),
        ('{"k":"x","a":1,"b":2, "a" : 2}', "a"),
        ('{"k":"x","a":{"b":1,"b":1}}', "b"),
        ('{"k":"x","a":[[{"b":"1:2","b":1}]],"c":{}}', "b"),
        ('{"k":"x","k":"x"}', "k"),
        ('{"k":"x","a":"1:2","\\u0061":1}', "a"),
    ],
)
def test_two_members_with_the_same_name_are_a_bad_row(line: str, name: str) -> None:
    (row,) = records_of(line)
    assert reason_of(row) == f"two members have the same name: {name!r}"


members = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text(':"{}[], \\k1')
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(':"k '), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(':"k ab'), members, max_size=4),
    st.sampled_from([(",", ":"), (", ", ": "), (" ,", "\t:\t")]),
)
def test_an_object_is_parsed_exactly(value: dict[str, Any], separators: tuple[str, str]) -> None:
    line = json.dumps(value, separators=separators).encode()
    assert read_object(line) == value
    if value:
        pairs = line[1:-1]
        with pytest.raises(ValueError, match="two members have the same name"):
            read_object(b"{" + pairs + b"," + pairs + b"}")


def test_a_byte_order_mark_is_not_part_of_the_first_line() -> None:
    assert told(records_of('\ufeff{"k":"x","a":1}\n{"k":"x","a":2}')) == [{"a": 1}, {"a": 2}]


def test_the_line_ends_of_an_old_mac_are_reported() -> None:
    blocks = [[b'{"k":"x"}\r{"k":"y"}\r']]
    ((row,),) = open_source(blocks, "f", "jsonl", KEY, None, None).batches(TopicLimits())
    assert "a carriage return without a line feed" in reason_of(row)


# ---- chosen members


def test_a_chosen_member_that_the_first_event_lacks_is_an_error() -> None:
    columns = EventColumns(("k",), values=("a", "w"))
    with pytest.raises(LineError, match=r"line 1: member 'w' is missing; the first event has k, a"):
        records_of('{"k":"x","a":1}\n{"k":"x","a":1,"w":2}', columns)


def test_a_chosen_member_may_be_missing_later_and_in_a_row_with_marks_only() -> None:
    columns = EventColumns(("k",), values=("a", "w"), has_marks=True, forget="gone")
    text = '{"k":"x","gone":true}\n{"k":"x","start":true}\n{"k":"x","a":1,"w":2}\n{"k":"x","a":1}'
    assert told(records_of(text, columns)) == [None, None, {"a": 1, "w": 2}, {"a": 1}]


def test_an_optional_input_may_be_missing(tmp_path: Any) -> None:
    save_model(GRU(2, 2, 1), tmp_path, [Number("a"), Number("w", optional=True)], [Number("y")])
    columns = EventColumns(("k",), values=("a", "w"))
    assert told(records_of('{"k":"x","a":1}', columns, model=str(tmp_path))) == [{"a": 1}]
    columns = replace(columns, values=("a", "w", "z"))
    with pytest.raises(LineError, match="member 'z' is missing"):
        records_of('{"k":"x","a":1}', columns, model=str(tmp_path))


# ---- missing values


def test_a_number_that_means_missing_is_compared_as_a_number() -> None:
    columns = EventColumns(("k",), missing=("-999", "NA"))
    cells = ["-999", "-999.0", "-9.99e2", " -999 ", "NA"]
    text = "k,a,b\n" + "".join(f"x,{cell},1\n" for cell in cells)
    assert told(records_of(text, columns)) == [{"b": 1}] * len(cells)
    members = ["-999", "-999.0", "-9.99e2", '"-999.0"', '"NA"']
    text = "\n".join(f'{{"k":"x","a":{member},"b":1}}' for member in members)
    assert told(records_of(text, columns)) == [{"b": 1}] * len(members)
    # And other numbers, and identifiers, remain
    assert told(records_of("k,a\nx,-0999\nx,-999.5\n", columns)) == [
        {"a": "-0999"},
        {"a": -999.5},
    ]
    assert told(records_of("k,a\nx,-999.0\n", EventColumns(("k",), missing=("NA",)))) == [
        {"a": -999.0}
    ]


def test_a_number_of_a_vector_may_be_missing_from_the_first_line_on() -> None:
    columns = EventColumns(("k",), missing=("-999",))
    lines = [
        '{"k":"x","a":-999,"b":2}',
        '{"k":"x","b":2,"a":1}',
        '{"k":"x","a":1,"b":-999.0}',
        '{"k":"x","b":3}',
    ]
    first, second, third, fourth = records_of("\n".join(lines), columns, "float32")
    assert reason_of(first).startswith("'a' is missing: --codec float32 needs every number")
    assert isinstance(second, EventRecord)
    assert np.frombuffer(second.value or b"", "<f4").tolist() == [1, 2]
    assert reason_of(third).startswith("'b' is missing")
    assert reason_of(fourth).startswith("'a' is missing")


# ---- cells, times, options


def test_a_long_cell_is_read_and_an_unclosed_one_is_reported(monkeypatch: Any) -> None:
    text = "y" * 200_000
    assert told(records_of(f"k,a\nx,{text}\n")) == [{"a": text}]
    monkeypatch.setattr("livestep.pipeline.publishing.files._CELL_CHARACTERS_MAX", 1_000)
    row, good = records_of(f"k,a\nx,{text}\nx,1\n")
    assert reason_of(row).startswith(
        "a cell of more than 1,000 characters: is the closing quote missing"
    )
    assert isinstance(good, EventRecord)


def test_empty_lines_before_the_header_are_skipped() -> None:
    (record,) = records_of("\n\n  \nk,a\nx,1\n")
    assert isinstance(record, EventRecord)
    assert (record.number, record.line, record.key) == (1, 5, b"x")


@pytest.mark.parametrize(
    ("time", "is_doubtful"),
    [
        ("1700000000", True),
        ("20240101", True),
        ("1", True),
        ("1700000000000", False),
        ("1975-01-01", False),
        ("315532800000", False),
    ],
)
def test_an_integer_before_1980_is_a_doubtful_time(time: str, is_doubtful: bool) -> None:
    (record,) = records_of(f"k,t,a\nx,{time},1\n", EventColumns(("k",), timestamp="t"))
    assert isinstance(record, EventRecord)
    assert record.is_time_doubtful == is_doubtful


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": ("a", "b", "a")}, "--key: 'a' is given twice"),
        ({"columns": "a,b,a"}, "--columns: 'a' is given twice"),
        ({"columns": ""}, "--columns is empty"),
        ({"columns": " "}, "--columns is empty"),
    ],
)
def test_repeated_and_empty_names_are_wrong_usage(options: dict[str, Any], message: str) -> None:
    given_options: dict[str, Any] = {
        "key": ("k",),
        "key_separator": "/",
        "key_value": None,
        "key_row": False,
        "columns": None,
        "missing": (),
        "timestamp": None,
        "marks": False,
        "forget": None,
        **options,
    }
    with pytest.raises(click.UsageError, match=message):
        columns_of(**given_options)
