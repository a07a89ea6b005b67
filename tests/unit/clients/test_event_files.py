"""Events from CSV and JSON Lines."""

import io
import re
from dataclasses import replace

import orjson
import pytest

from livestep.pipeline.publishing.columns import (
    BadRow,
    EventColumns,
    RowConverter,
    csv_batches,
    with_ends,
)
from livestep.pipeline.publishing.files import LineError, Lines, read_csv, read_line_blocks
from livestep.pipeline.publishing.json_records import JsonRecords
from livestep.pipeline.publishing.limits import TopicLimits
from livestep.pipeline.publishing.values import JsonValues

KEY = EventColumns(("flat",))
MARKED = EventColumns(("flat",), has_marks=True)


def blocks_of(text):
    return read_line_blocks(io.BytesIO(text if isinstance(text, bytes) else text.encode()))


def csv_records(text, columns=KEY):
    lines = Lines(blocks_of(text))
    file = read_csv(lines, "days.csv")
    columns.check_header(file.columns, "days.csv", file.header_line)
    values = JsonValues(columns.values, columns.taken_out, is_csv=True)
    batches = csv_batches(file.rows, lines, RowConverter(columns, values))
    return [one for batch in batches for one in batch]


def json_records(text, columns=KEY):
    values = JsonValues(columns.values, columns.taken_out, is_csv=False)
    batches = JsonRecords(columns, values, TopicLimits()).batches(blocks_of(text))
    return [one for batch in batches for one in batch]


def value_of(record):
    assert not isinstance(record, BadRow), record
    return orjson.loads(record.value)


def test_numbers_are_parsed_and_empty_cells_and_the_key_are_left_out():
    records = csv_records("flat,weather,degrees,dish\n7,rainy,-1.5e1,\nb,sunny,21,2\n")
    assert [record.key for record in records] == [b"7", b"b"]
    assert value_of(records[0]) == {"weather": "rainy", "degrees": -15.0}
    assert value_of(records[1]) == {"weather": "sunny", "degrees": 21, "dish": 2}
    assert [(record.number, record.line) for record in records] == [(1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("cell", "number"),
    [(".5", 0.5), ("5.", 5.0), ("+5", 5), ("-.5e1", -5.0), ("+0", 0), ("0.50", 0.5), (" 7 ", 7)],
)
def test_a_decimal_number_in_any_common_form_is_a_number(cell, number):
    (record,) = csv_records(f"flat,a\n1,{cell}\n")
    assert value_of(record) == {"a": number}


@pytest.mark.parametrize(
    "cell", ["007", "00012", "-07", "nan", "NA", "inf", "0x1f", "1_000", "1,5", "٣", ".", "+", "1e"]
)
def test_other_cells_and_leading_zeros_remain_text(cell):
    (record,) = csv_records(f'flat,a\n1,"{cell}"\n')
    assert value_of(record) == {"a": cell}


@pytest.mark.parametrize("cell", ["9" * 5000, "-" + "9" * 5000, "1e999"])
def test_a_number_that_is_too_large_is_reported_with_its_line(cell):
    first, second = csv_records(f"flat,a\n1,2\n1,{cell}\n")
    assert value_of(first) == {"a": 2}
    assert (second.line, second.key) == (3, "1")
    assert "is too large for a float" in second.reason


def test_texts_that_mean_missing_are_left_out_of_csv_and_json():
    columns = replace(KEY, missing=("NA", "-999"))
    csv = csv_records("flat,a,b\nk,NA,-999\nk, NA ,0\nNA,1,2\n", columns)
    assert [value_of(record) for record in csv[:2]] == [{}, {"b": 0}]
    assert csv[2].reason == "invalid key in 'flat': None"
    (record,) = json_records('{"flat":"k","a":"NA","b":-999,"c":null,"d":[1]}', columns)
    assert value_of(record) == {"c": None, "d": [1]}


def test_columns_choose_and_order_the_members():
    (record,) = csv_records("a,b,flat,c\n1,2,k,3\n", replace(KEY, values=("c", "a")))
    assert list(value_of(record).items()) == [("c", 3), ("a", 1)]


def test_several_columns_are_one_key():
    columns = EventColumns(("site", "machine"))
    (record,) = csv_records("site,machine,a\nnorth,7,1\n", columns)
    assert (record.key, value_of(record)) == (b"north/7", {"a": 1})
    (record,) = json_records('{"site":"n/o","machine":7}', replace(columns, key_separator="|"))
    assert record.key == b"n/o|7"


def test_a_key_part_that_contains_the_separator_is_refused():
    """Otherwise n/o + 7 and n + o/7 would share one key and one state."""
    (row,) = json_records('{"site":"n/o","machine":7}', EventColumns(("site", "machine")))
    assert "'site' is 'n/o', which contains the key separator '/'" in row.reason


def test_a_key_can_be_constant_or_the_row_number():
    text = "flat,a\nk,1\n\nl,2\n"
    assert [record.key for record in csv_records(text, EventColumns(fixed_key="all"))] == [
        b"all",
        b"all",
    ]
    records = csv_records(text, EventColumns())
    assert [record.key for record in records] == [b"1", b"2"]
    assert value_of(records[1]) == {"flat": "l", "a": 2}


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("1700000000123", 1_700_000_000_123),
        ("2023-11-14T22:13:20.123Z", 1_700_000_000_123),
        ("2023-11-14T23:13:20.123+01:00", 1_700_000_000_123),
        ("2023-11-14 22:13:20", 1_700_000_000_000),
        ("1970-01-02", 86_400_000),
        ("-5", -5),
    ],
)
def test_a_timestamp_is_milliseconds_or_iso_8601_and_not_in_the_value(text, expected_ms):
    columns = replace(KEY, timestamp="when")
    (record,) = csv_records(f"when,flat,a\n{text},k,1\n", columns)
    assert record.timestamp_ms == expected_ms
    assert value_of(record) == {"a": 1}


@pytest.mark.parametrize("text", ['"noon"', "null", "true", "1.5", '""'])
def test_an_invalid_timestamp_is_reported(text):
    columns = replace(KEY, timestamp="when")
    (row,) = json_records(f'{{"flat":"k","when":{text}}}', columns)
    assert row.key == "k"
    assert "'when' is" in row.reason
    assert "neither milliseconds since 1970 nor an ISO 8601" in row.reason


def test_a_byte_order_mark_is_not_part_of_the_first_name():
    (record,) = csv_records(b"\xef\xbb\xbfflat,a\nk,1\n")
    assert record.key == b"k"


def test_the_lines_of_a_cell_are_counted():
    _, row = csv_records('flat,a\nk,"one\ntwo"\nk\n')
    assert (row.number, row.line) == (2, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the file is empty"),
        ("\n\r\n  \n", "line 1: the file is empty"),
        ("\n\na,b\n1,2\n", "line 3: column 'flat' is missing; the file has a, b"),
        ("flat,a\rk,1\rk,2\r", "line 1: invalid CSV: a carriage return without a line feed"),
        ("a,b\n1,2\n", "line 1: column 'flat' is missing; the file has a, b"),
        ("flat,a,a\n", "line 1: two columns have the same name"),
        (b"flat,\xff\n", "line 1: not UTF-8"),
        ('flat,"a', "line 1: invalid CSV"),
    ],
)
def test_an_invalid_header_is_an_error(text, message):
    with pytest.raises(LineError, match=message):
        csv_records(text)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"k\n", "1 cells, but the header has 2 columns"),
        (b"k,1,2\n", "3 cells, but the header has 2 columns"),
        (b",1\n", "invalid key in 'flat': ''"),
        (b'k,"1"2\n', "invalid CSV: ',' expected after '\"'"),
        (b"k,\xff\n", "not UTF-8"),
        (b"k,1\r2\n", "invalid CSV: a carriage return without a line feed"),
        (b"k,1e999\n", "is too large for a float"),
    ],
)
def test_a_bad_csv_row_has_a_line_and_a_reason_and_the_other_rows_are_read(row, reason):
    records = csv_records(b"flat,a\nk,1\n" + row + b"k,3\n")
    assert [(record.number, record.line) for record in records] == [(1, 2), (2, 3), (3, 4)]
    assert isinstance(records[1], BadRow)
    assert reason in records[1].reason
    assert [value_of(records[0]), value_of(records[2])] == [{"a": 1}, {"a": 3}]


def test_an_unclosed_quote_is_one_bad_row():
    _, row = csv_records('flat,a\nk,1\nk,"2\nk,3\n')
    assert (row.number, row.line) == (2, 4)
    assert "invalid CSV" in row.reason


def test_json_lines_keep_their_members():
    records = json_records('{"flat":7,"x":[1,2.5],"dish":null}\n\n{"flat":"b","a":" 007"}')
    assert [record.key for record in records] == [b"7", b"b"]
    assert [value_of(record) for record in records] == [
        {"x": [1, 2.5], "dish": None},
        {"a": " 007"},
    ]
    assert [(record.number, record.line) for record in records] == [(1, 1), (2, 3)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"flat":', "invalid JSON"),
        ("[1]", "a list, not a JSON object"),
        ('{"a":1}', "invalid key in 'flat': None"),
        ('{"flat":1.5}', "invalid key"),
        ('{"flat":true}', "invalid key"),
        ('{"flat":1,"a":NaN}', "invalid JSON"),
        ('"\xff"', "a str, not"),
    ],
)
def test_a_bad_json_line_has_a_line_and_a_reason_and_the_other_lines_are_read(text, reason):
    records = json_records('{"flat":1}\n' + text + '\n{"flat":3}')
    assert [record.line for record in records] == [1, 2, 3]
    assert reason in records[1].reason
    assert [records[0].key, records[2].key] == [b"1", b"3"]


@pytest.mark.parametrize("true", ["true", "True", " TRUE "])
def test_marks_become_headers_with_the_option(true):
    records = csv_records(
        f"flat,a,start,end,steps_max\n1,2,{true},false,\n1,3,,{true},5\n1,4,,,\n1,,,{true},\n",
        MARKED,
    )
    assert [record.value for record in records] == [b'{"a":2}', b'{"a":3}', b'{"a":4}', b""]
    assert [record.headers for record in records] == [
        [("sequence", b"start")],
        [("sequence", b"end"), ("steps-max", b"5")],
        (),
        [("sequence", b"end")],
    ]


def test_csv_and_json_lines_send_the_same_marks():
    csv = csv_records("flat,a,start,end,steps_max\n1,2,true,,\n1,,,true,\n1,2,,true,3\n", MARKED)
    json = json_records(
        '{"flat":1,"a":2,"start":true,"end":false}\n{"flat":1,"a":null,"end":true}\n'
        '{"flat":1,"a":2,"end":true,"steps_max":3}',
        MARKED,
    )
    assert [(record.value, record.headers) for record in csv] == [
        (record.value, record.headers) for record in json
    ]


def test_columns_named_start_and_end_are_values_without_the_option():
    expected = {"start": "2024-05-01", "end": "2024-06-01", "steps_max": "many"}
    (record,) = csv_records("flat,start,end,steps_max\nk,2024-05-01,2024-06-01,many\n")
    assert (value_of(record), record.headers) == (expected, ())
    (record,) = json_records(
        '{"flat":"k","start":"2024-05-01","end":"2024-06-01","steps_max":"many"}'
    )
    assert (value_of(record), record.headers) == (expected, ())


@pytest.mark.parametrize(
    "text", ['"end":true', '"start":false', '"end":"TRUE"', '"steps_max":3', '"steps_max":"3"']
)
def test_a_member_that_would_act_as_a_mark_is_refused_without_the_option(text):
    (row,) = json_records('{"flat":"k",' + text + "}")
    assert "would act as a mark of the sequence: use --marks" in row.reason
    chosen = replace(KEY, values=("a",))
    assert value_of(json_records('{"flat":"k","a":1,' + text + "}", chosen)[0]) == {"a": 1}
    chosen = replace(MARKED, values=("start", "end", "steps_max"))
    assert "would act as a mark" in json_records('{"flat":"k",' + text + "}", chosen)[0].reason


def test_a_column_that_an_option_names_is_not_a_mark():
    columns = EventColumns(("start",), values=("end", "a"), has_marks=True)
    (record,) = csv_records("start,end,a\nk,7,1\n", columns)
    assert (record.key, value_of(record), record.headers) == (b"k", {"end": 7, "a": 1}, ())
    (record,) = csv_records("flat,start\nk,99\n", replace(MARKED, timestamp="start"))
    assert (record.timestamp_ms, record.headers) == (99, ())


def test_a_row_can_forget_its_key():
    columns = replace(KEY, forget="gone")
    records = csv_records("flat,a,gone\nk,1,\nk,,true\nk,2,false\n", columns)
    assert [record.value for record in records] == [b'{"a":1}', None, b'{"a":2}']
    assert json_records('{"flat":1,"gone":true}\n{"flat":1,"a":2}', columns)[0].value is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"flat":1,"end":1}', "'end' is 1, neither true nor false"),
        ('{"flat":1,"start":"yes"}', "'start' is 'yes', neither"),
        ('{"flat":1,"end":[]}', "neither"),
        ('{"flat":1,"gone":0}', "'gone' is 0, neither"),
        ('{"flat":1,"steps_max":0}', "'steps_max' is 0, not an integer of at least 1"),
        ('{"flat":1,"steps_max":true}', "'steps_max' is True"),
        ('{"flat":1,"steps_max":2.0}', "'steps_max' is 2.0"),
        (
            '{"flat":1,"gone":true,"a":1,"end":true}',
            "may have only the key and its time, .* a, end",
        ),
    ],
)
def test_invalid_marks_are_reported_with_place_and_reason(text, reason):
    (row,) = json_records(text, replace(MARKED, forget="gone"))
    assert re.search(reason, row.reason)


def test_each_open_sequence_is_ended_after_the_last_row():
    # Given keys that are open, ended by a mark, and forgotten at the end of the file
    columns = replace(MARKED, timestamp="when", forget="gone")
    text = (
        "flat,when,a,end,gone\n"
        "b,1,1,,\na,2,1,,\nc,3,1,true,\nd,4,1,,\nd,5,,,true\nb,6,1,,\na,7,1,true,\na,8,1,,\n"
        "bad\n"
    )
    records = csv_records(text, columns)
    # When the sequences are ended
    all_records = [one for batch in with_ends([records[:4], records[4:]]) for one in batch]
    # Then a bare end follows for each open one, at the time of its last event
    assert all_records[: len(records)] == records
    assert [
        (record.number, record.key, record.value, record.headers, record.timestamp_ms)
        for record in all_records[len(records) :]
    ] == [
        (10, b"b", b"", [("sequence", b"end")], 6),
        (11, b"a", b"", [("sequence", b"end")], 8),
    ]
