"""Events from CSV and JSON lines."""

import pytest

from pipeline.commands.event_files import EventColumns, LineError, read_csv, read_json_lines
from pipeline.commands.publish import ended

KEY = EventColumns("flat")


def csv_events(text, columns=KEY):
    return list(read_csv(lines_of(text), columns, "days.csv"))


def json_events(text, columns=KEY):
    return list(read_json_lines(lines_of(text), columns, "days.jsonl"))


def lines_of(text):
    return (text if isinstance(text, bytes) else text.encode()).splitlines(keepends=True)


def test_numbers_become_numbers_empty_cells_are_left_out_and_the_key_is_taken_out():
    events = csv_events("flat,weather,degrees,dish\n7,rainy,-1.5e1,\nb,sunny,21,2\n")
    assert [event.key for event in events] == [b"7", b"b"]
    assert events[0].value == {"weather": "rainy", "degrees": -15.0}
    assert events[1].value == {"weather": "sunny", "degrees": 21, "dish": 2}
    assert [event.line for event in events] == [2, 3]


@pytest.mark.parametrize("cell", ["007", "nan", "inf", "+49", "0x1f", "1_000", "1,5"])
def test_what_json_would_not_call_a_number_stays_text(cell):
    (event,) = csv_events(f'flat,a\n1,"{cell}"\n')
    assert event.value == {"a": cell}


def test_an_integer_beyond_64_bits_becomes_a_float():
    (event,) = csv_events("flat,a\n1,123456789012345678901234567890\n")
    assert event.value == {"a": pytest.approx(1.2345678901234568e29)}


@pytest.mark.parametrize("cell", ["9" * 5000, "-" + "9" * 5000, "1e999"])
def test_a_number_that_no_float_holds_is_named_with_its_line(cell):
    with pytest.raises(LineError, match=r"days.csv, line 3: .* is a number that no float holds"):
        csv_events(f"flat,a\n1,2\n1,{cell}\n")


def test_columns_choose_and_order_the_members():
    (event,) = csv_events("a,b,flat,c\n1,2,k,3\n", EventColumns("flat", values=("c", "a")))
    assert list(event.value.items()) == [("c", 3), ("a", 1)]


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("1700000000123", 1_700_000_000_123),
        ("2023-11-14T22:13:20.123Z", 1_700_000_000_123),
        ("2023-11-14T23:13:20.123+01:00", 1_700_000_000_123),
        ("2023-11-14 22:13:20", 1_700_000_000_000),
        ("1970-01-02", 86_400_000),
    ],
)
def test_a_timestamp_is_milliseconds_or_iso_8601_and_leaves_the_value(text, expected_ms):
    columns = EventColumns("flat", timestamp="when")
    (event,) = csv_events(f"when,flat,a\n{text},k,1\n", columns)
    assert event.timestamp_ms == expected_ms
    assert event.value == {"a": 1}


def test_a_byte_order_mark_is_no_part_of_the_first_name():
    (event,) = csv_events(b"\xef\xbb\xbfflat,a\nk,1\n")
    assert event.key == b"k"


def test_a_cell_of_several_lines_counts_them():
    with pytest.raises(LineError, match="line 4: 1 cells"):
        csv_events('flat,a\nk,"one\ntwo"\nk\n')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the file is empty"),
        ("a,b\n1,2\n", "line 1: there is no column 'flat', only a, b"),
        ("flat,a,a\n", "line 1: a column stands there twice"),
        ("flat,a\nk,1\nk\n", "line 3: 1 cells, but the header has 2 columns"),
        ("flat,a\nk,1\nk,1,2\n", "line 3: 3 cells"),
        ("flat,a\nk,1\n,1\n", "line 3: no key in 'flat'"),
        ('flat,a\nk,"1\n', "no CSV"),
        (b"flat,a\nk,1\nk,\xff\n", "line 3: not UTF-8"),
    ],
)
def test_a_csv_that_cant_be_read_says_where_and_why(text, message):
    with pytest.raises(LineError, match=message):
        csv_events(text)


def test_all_lines_before_a_bad_one_are_given_out_and_nothing_of_it():
    events = read_csv(lines_of("flat,a\nk,1\nk,2\nk\n"), KEY, "days.csv")
    assert [next(events).value, next(events).value] == [{"a": 1}, {"a": 2}]
    with pytest.raises(LineError, match="days.csv, line 4"):
        next(events)


def test_json_lines_keep_their_members_as_they_are():
    events = json_events('{"flat":7,"x":[1,2.5],"dish":null}\n\n{"flat":"b","weather":"sunny"}')
    assert [event.key for event in events] == [b"7", b"b"]
    assert events[0].value == {"x": [1, 2.5], "dish": None}
    assert [event.line for event in events] == [1, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"flat":1}\n{"flat":', "line 2: no JSON"),
        ('{"flat":1}\n[1]', "line 2: a list, not a JSON object"),
        ('{"a":1}', "line 1: no key in 'flat': it is None"),
        ('{"flat":1.5}', "line 1: no key"),
        ('{"flat":true}', "line 1: no key"),
        ('{"flat":1,"a":NaN}', "line 1: no JSON"),
    ],
)
def test_json_lines_that_cant_be_read_say_where_and_why(text, message):
    with pytest.raises(LineError, match=message):
        json_events(text)


def test_a_bad_timestamp_is_named():
    columns = EventColumns("flat", timestamp="when")
    with pytest.raises(LineError, match="line 1: 'when' is 'noon', neither milliseconds"):
        json_events('{"flat":1,"when":"noon"}', columns)
    with pytest.raises(LineError, match="'when' is None"):
        json_events('{"flat":1}', columns)


@pytest.mark.parametrize("true", ["true", "True", " TRUE "])
def test_marks_in_csv_are_taken_out_of_the_value(true):
    events = csv_events(
        f"flat,a,start,end,steps_max\n1,2,{true},false,\n1,3,,{true},5\n1,4,,,\n1,,,{true},\n"
    )
    assert [event.value for event in events] == [{"a": 2}, {"a": 3}, {"a": 4}, {}]
    assert [event.marks for event in events] == [
        {"start": True},
        {"end": True, "steps_max": 5},
        {},
        {"end": True},
    ]


def test_marks_in_json_are_taken_out_of_the_value():
    events = json_events('{"flat":1,"a":2,"start":true,"end":false}\n{"flat":1,"steps_max":3}')
    assert [event.value for event in events] == [{"a": 2}, {}]
    assert [event.marks for event in events] == [{"start": True}, {"steps_max": 3}]


def test_a_column_that_an_option_names_is_no_mark():
    (event,) = csv_events("start,end,a\nk,7,1\n", EventColumns("start", values=("end", "a")))
    assert event.key == b"k"
    assert (event.value, event.marks) == ({"end": 7, "a": 1}, {})
    (event,) = csv_events("flat,start\nk,99\n", EventColumns("flat", timestamp="start"))
    assert (event.timestamp_ms, event.marks) == (99, {})


def test_a_line_can_say_that_its_key_is_forgotten():
    columns = EventColumns("flat", forget="gone")
    events = csv_events("flat,a,gone\nk,1,\nk,,true\nk,2,false\n", columns)
    assert [event.is_forget for event in events] == [False, True, False]
    assert [event.value for event in events] == [{"a": 1}, {}, {"a": 2}]
    assert json_events('{"flat":1,"gone":true}\n{"flat":1,"a":2}', columns)[0].is_forget


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"flat":1,"end":1}', "'end' is 1, neither true nor false"),
        ('{"flat":1,"start":"yes"}', "'start' is 'yes', neither"),
        ('{"flat":1,"end":[]}', "neither"),
        ('{"flat":1,"gone":0}', "'gone' is 0, neither"),
        ('{"flat":1,"steps_max":0}', "'steps_max' is 0, not an integer of at least 1"),
        ('{"flat":1,"steps_max":true}', "'steps_max' is True"),
        ('{"flat":1,"steps_max":2.0}', "'steps_max' is 2.0"),
        ('{"flat":1,"gone":true,"a":1,"end":true}', "nothing but the key and its time.*a, end"),
    ],
)
def test_marks_that_cant_be_read_say_where_and_why(text, message):
    with pytest.raises(LineError, match=f"line 1: .*{message}"):
        json_events(text, EventColumns("flat", forget="gone"))


def test_each_key_that_is_left_open_is_ended_after_the_last_line():
    # Given keys that are open, ended by a mark, and forgotten at the end of the file
    columns = EventColumns("flat", timestamp="when", forget="gone")
    text = (
        "flat,when,a,end,gone\n"
        "b,1,1,,\na,2,1,,\nc,3,1,true,\nd,4,1,,\nd,5,,,true\nb,6,1,,\na,7,1,true,\na,8,1,,\n"
    )
    events = csv_events(text, columns)
    # When the sequences are ended
    all_events = list(ended(iter(events)))
    # Then a bare end follows for each open one, at the time of its last event
    assert all_events[: len(events)] == events
    assert [
        (event.key, event.value, event.marks, event.timestamp_ms)
        for event in all_events[len(events) :]
    ] == [(b"b", {}, {"end": True}, 6), (b"a", {}, {"end": True}, 8)]
