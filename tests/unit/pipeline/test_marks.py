"""Marks: read from headers, kept in pack, and what they make of a key's events."""

import numpy as np
import pytest

from livestep import Category, Feedback, Generation, Number, SequenceRules
from livestep.pipeline.batch.codec import Float32Codec, JsonCodec
from livestep.pipeline.batch.marks import BARE, END, FORGET, START, marks_of
from livestep.pipeline.batch.packing import pack
from livestep.pipeline.batch.sequences import split
from livestep.pipeline.columns.log_records import records_of
from livestep.pipeline.errors import DecodeError
from livestep.pipeline.memory.memory_broker import MemoryRecord

LABELS = ("a", "stop")
GENERATING = SequenceRules(
    "encode-decode",
    feedback=(Feedback("label", "before"),),
    generation=Generation(5, "label", "stop"),
)
INPUTS = [Number("x"), Category("before", LABELS, optional=True)]
OUTPUTS = [Category("label", LABELS)]
PLAIN = JsonCodec([Number("x")], [Number("y")])


def record(offset, key, value, headers=(), time_ms=0):
    return MemoryRecord(("events", 0, offset), (key, value), time_ms, list(headers))


def packed(values, codec=PLAIN, key=b"k", **options):
    records = []
    for offset, value in enumerate(values):
        value, headers, *time = value if isinstance(value, tuple) else (value, ())
        records.append(record(offset, key, value, headers, *time))
    return pack(records_of("events", records), codec, key_bytes_max=99, value_bytes_max=99)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], (0, 0)),
        ([("sequence", b"start")], (START, 0)),
        ([("sequence", b"end")], (END, 0)),
        ([("sequence", b"start,end"), ("steps-max", b"12")], (START | END, 12)),
        ([("sequence", b"start"), ("sequence", b"end")], (END, 0)),
        ([("trace", b"\xff"), ("start", b"1")], (0, 0)),
    ],
)
def test_marks_stand_in_headers(headers, expected):
    assert marks_of(headers) == expected


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (("sequence", b"END"), "bad-mark"),
        (("sequence", b"end,start"), "bad-mark"),
        (("sequence", b""), "bad-mark"),
        (("sequence", None), "bad-mark"),
        (("steps-max", b"0"), "bad-steps-max"),
        (("steps-max", b"-1"), "bad-steps-max"),
        (("steps-max", b"1e3"), "bad-steps-max"),
        (("steps-max", None), "bad-steps-max"),
        (("steps-max", b"9" * 5000), "bad-steps-max"),
    ],
)
def test_a_header_that_is_not_a_mark_is_refused(header, reason):
    with pytest.raises(DecodeError) as caught:
        marks_of([header])
    assert caught.value.reason == reason


def test_members_and_headers_mean_the_same():
    end = [("sequence", b"end")]
    batch = packed(
        [
            b'{"x": 1, "end": true}',
            (b'{"x": 1}', end),
            (b'{"x": 1, "start": true}', end),
            b'{"end": true}',
            (b"", end),
            b'{"start": true, "end": false}',
            None,
        ]
    )
    assert batch.dead == []
    assert batch.marks.tolist() == [
        END,
        END,
        START | END,
        END | BARE,
        END | BARE,
        START | BARE,
        FORGET | BARE,
    ]
    assert batch.inputs.ravel().tolist() == [1, 1, 1, 0, 0, 0, 0]


def test_a_null_value_forgets_whatever_its_headers_say():
    for headers in ([("sequence", b"end")], [("sequence", b"start,end")]):
        for codec in (PLAIN, Float32Codec([Number("x")], [Number("y")])):
            batch = packed([(None, headers)], codec)
            assert batch.marks.tolist()[0] & (FORGET | END | START) == FORGET


END_HEADER = [("sequence", b"end")]


@pytest.mark.parametrize(
    "value",
    [
        b'{"end": true}',
        b'{"x": null, "end": true}',
        (b'{"x": null}', END_HEADER),
        (b'{"x": null, "end": false}', END_HEADER),
        (b"{}", END_HEADER),
        (b"", END_HEADER),
    ],
)
@pytest.mark.parametrize("required", [[], [Number("must")]], ids=["all optional", "one required"])
def test_an_event_whose_features_are_absent_or_null_is_a_bare_mark_however_it_is_written(
    required, value
):
    codec = JsonCodec([*required, Number("x", optional=True)], [Number("y")])
    batch = packed([value, b'{"x": 1, "must": 1}' if required else b'{"x": 1}'], codec)
    assert batch.dead == []
    assert batch.marks.tolist() == [END | BARE, 0]


def test_a_start_in_the_headers_and_an_end_among_the_members_are_both_kept():
    codec = JsonCodec([Number("x", optional=True)], [Number("y")])
    start = [("sequence", b"start")]
    batch = packed([(b'{"end": true}', start), (b'{"x": 2, "end": true}', start)], codec)
    assert batch.marks.tolist() == [START | END | BARE, START | END]


def test_an_event_of_absent_inputs_without_a_start_or_an_end_is_stepped():
    codec = JsonCodec([Number("x", optional=True)], [Number("y")])
    batch = packed([b"{}", b'{"x": null, "end": false}'], codec)
    assert batch.marks.tolist() == [0, 0]


def test_a_null_of_an_input_that_is_not_optional_is_a_dead_letter_with_a_mark_too():
    codec = JsonCodec([Number("must"), Number("x", optional=True)], [Number("y")])
    batch = packed([b'{"must": null, "end": true}', (b'{"must": null}', END_HEADER)], codec)
    assert [letter.reason for letter in batch.dead] == ["wrong-kind"] * 2


def test_raw_numbers_that_are_all_left_to_the_feedback_are_bare_with_a_mark():
    rules = SequenceRules(feedback=(Feedback("y", "x"),))
    nothing = np.full(1, np.nan, "<f4").tobytes()
    codec = Float32Codec([Number("x", optional=True)], [Number("y")], rules)
    batch = packed([(nothing, END_HEADER), (b"", END_HEADER), nothing], codec)
    assert batch.marks.tolist() == [END | BARE, END | BARE, 0]


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (b'{"x": 1, "end": 1}', (), "bad-mark"),
        (b'{"x": 1, "start": null}', (), "bad-mark"),
        (b'{"end": false}', (), "missing-feature"),
        (b"", (), "empty-value"),
        (b"", [("steps-max", b"3")], "empty-value"),
        (b'{"x": 1, "steps_max": 0}', (), "bad-steps-max"),
        (b'{"x": 1, "steps_max": 6}', (), "bad-steps-max"),
        (b'{"x": 1, "steps_max": 2.5}', (), "bad-steps-max"),
        (b'{"x": 1, "steps_max": true}', (), "bad-steps-max"),
        (b'{"x": 1}', [("steps-max", b"6")], "bad-steps-max"),
        (b'{"x": 1, "before": "b"}', (), "unknown-category"),
    ],
)
def test_a_bad_mark_is_a_dead_letter_and_its_neighbours_are_not(value, headers, reason):
    codec = JsonCodec(INPUTS, OUTPUTS, GENERATING)
    batch = packed([b'{"x": 1, "steps_max": 5}', (value, headers), b'{"x": 2}'], codec)
    assert [letter.reason for letter in batch.dead] == [reason]
    assert batch.inputs[:, 0].tolist() == [1, 2]
    assert batch.steps_max.tolist() == [5, 0]


def test_a_model_that_generates_nothing_accepts_no_bound():
    batch = packed([b'{"x": 1, "steps_max": 2}', (b'{"x": 1}', [("steps-max", b"2")])])
    assert [letter.reason for letter in batch.dead] == ["bad-steps-max"] * 2


def test_what_is_left_to_the_feedback_is_not_a_number_and_passes():
    # Given a model that feeds its label back, in both codecs
    rules = SequenceRules(feedback=(Feedback("label", "before"),))
    nan = float("nan")
    raw = [[1, nan, nan], [2, 0, 1], [3, nan, 1], [nan, nan, nan]]
    values = [np.array(row, "<f4").tobytes() for row in raw]

    # When events leave the label to it, or bring it
    from_json = packed(
        [b'{"x": 1}', b'{"x": 2, "before": "stop"}'], JsonCodec(INPUTS, OUTPUTS, rules)
    )
    from_raw = packed(values, Float32Codec(INPUTS, OUTPUTS, rules))

    # Then absent is NaN in all its columns, and any other NaN is a dead letter
    for batch in (from_json, from_raw):
        assert np.isnan(batch.inputs[0, 1:]).all()
        assert batch.inputs[1].tolist() == [2, 0, 1]
    assert [letter.reason for letter in from_raw.dead] == ["not-finite"] * 2


def test_sequences_begin_and_end_at_marks():
    # Given x x(end) x(start) null x, and another key's event between
    values = [b'{"x":1}', b'{"x":1,"end":true}', b'{"x":1,"start":true}', None, b'{"x":1}']
    batch = packed(values)
    sequences = split(batch, SequenceRules())

    # Then the first continues from the key's state, and only the last may leave one behind
    assert sequences.of_event.tolist() == [0, 0, 1, 1, 2]
    assert sequences.is_continued.tolist() == [True, False, False]
    assert sequences.closing.tolist() == [1, 3, -1]
    assert sequences.is_last.tolist() == [False, False, True]


def test_a_start_mark_does_not_continue_from_the_state():
    sequences = split(packed([b'{"x":1,"start":true}', b'{"x":1}']), SequenceRules())
    assert sequences.is_continued.tolist() == [False]


def test_each_event_of_a_model_without_states_is_a_sequence():
    batch = packed([b'{"x":1}', b'{"x":1,"start":true}', None])
    sequences = split(batch, SequenceRules("one-to-one"))
    assert sequences.of_event.tolist() == [0, 1, 2]
    assert sequences.closing.tolist() == [0, 1, -1]
    assert not sequences.is_continued.any()
