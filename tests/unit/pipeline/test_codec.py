"""Codecs: every reason for a dead letter, and both roads give the same numbers."""

import json
import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestep import Category, FieldError, Number, activate, decode, encode
from livestep.pipeline.batch.codec import Float32Codec, JsonCodec
from livestep.pipeline.columns.byte_column import ByteColumn
from tests.support.loops import LIBRARIES

WEATHER = Category("weather", ("sunny", "rainy"))
DISH = Category("dish", ("1", "2", "3"), optional=True)
INPUTS = [Number("x"), Number("pair", 2), WEATHER, DISH]
OUTPUTS = [Number("y"), Number("z", 3), DISH]
GOOD = {"x": 1, "pair": [2, 3.5], "weather": "rainy", "dish": 2}


@pytest.fixture(params=LIBRARIES)
def codec(request):
    return JsonCodec(INPUTS, OUTPUTS, library=request.param)


def read(codec, *values):
    return codec.read(ByteColumn(values), np.ones(len(values), bool), {})


def refused(codec, value):
    decoded = read(codec, value)
    assert list(decoded.errors) == [0]
    assert not decoded.inputs.any()
    return decoded.errors[0].reason


def rows(codec, *events):
    decoded = read(codec, *map(orjson.dumps, events))
    assert not decoded.errors
    return decoded.inputs


def without(name):
    return {other: value for other, value in GOOD.items() if other != name}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (without("x"), "missing-feature"),
        (without("pair"), "missing-feature"),
        (without("weather"), "missing-feature"),
        ({**GOOD, "y": 1}, "unknown-feature"),
        ({**GOOD, "x": "1"}, "wrong-kind"),
        ({**GOOD, "x": True}, "wrong-kind"),
        ({**GOOD, "x": None}, "wrong-kind"),
        ({**GOOD, "x": [1]}, "wrong-kind"),
        ({**GOOD, "pair": 1}, "wrong-kind"),
        ({**GOOD, "pair": [1, "2"]}, "wrong-kind"),
        ({**GOOD, "weather": None}, "wrong-kind"),
        ({**GOOD, "weather": ["sunny"]}, "wrong-kind"),
        ({**GOOD, "dish": 1.5}, "wrong-kind"),
        ({**GOOD, "dish": True}, "wrong-kind"),
        ({**GOOD, "pair": [1]}, "wrong-length"),
        ({**GOOD, "pair": [1, 2, 3]}, "wrong-length"),
        ({**GOOD, "weather": "snow"}, "unknown-category"),
        ({**GOOD, "dish": 4}, "unknown-category"),
        ([GOOD], "not-an-object"),
        ("text", "not-an-object"),
        (1, "not-an-object"),
        (None, "not-an-object"),
    ],
)
def test_json_that_is_not_an_event_of_the_model_is_refused_with_the_reason(codec, event, reason):
    assert refused(codec, json.dumps(event).encode()) == reason


@pytest.mark.parametrize(
    "value",
    [
        b"{",
        b'{"x": 1}}',
        b"\x00\x01",
        b"\xff",
        b'{"x": "\xff"}',
        b'\xef\xbb\xbf{"x": 1}',
        b'{"x": NaN}',
        b'{"x": Infinity}',
        b"{'x': 1}",
        b'{"weather": "\\ud800"}',
        b"[" * 100_000,
        b'{"x": ' + b"[" * 100_000,
        b'{"new": ' + b'{"a":' * 100_000,
    ],
    ids=lambda value: repr(value[:20]),
)
def test_invalid_json_is_reported_however_deep_it_is_nested(codec, value):
    assert refused(codec, value) == "not-json"


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "value",
    [b'{"weather": "\xff"}', b'{"\xff": 1}', b'{"a\\"b": ' + b"[" * 100_000],
    ids=lambda value: repr(value[:20]),
)
def test_bytes_that_fail_deep_inside_are_not_an_event(library, value):
    codec = JsonCodec([Number("x"), WEATHER], OUTPUTS, library=library)
    assert refused(codec, value) in {"not-json", "unknown-feature"}


@pytest.mark.parametrize("number", ["1e999", "-1e400", "1" + "0" * 400])
def test_a_number_beyond_float64_is_not_finite(codec, number):
    value = json.dumps(GOOD).replace("3.5", number).encode()
    assert refused(codec, value) == "not-finite"


def test_a_number_beyond_float32_becomes_infinite_and_pack_sees_it(codec):
    assert math.isinf(rows(codec, {**GOOD, "x": 1e39})[0, 0])
    assert math.isinf(rows(codec, {**GOOD, "x": -3.4028235677973366e38})[0, 0])
    assert np.isfinite(rows(codec, {**GOOD, "x": 3.4028235e38})).all()


def test_an_integer_category_counts_as_its_text_and_an_absent_one_as_zeros(codec):
    found = rows(codec, GOOD, {**GOOD, "dish": "2"}, {**GOOD, "dish": None}, without("dish"))
    assert found[:, 5:].tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert found[0, :5].tolist() == [1, 2, 3.5, 0, 1]


names = st.sampled_from(["x", "a b", "100%", "%b", "%%", "ü", "☃", "f0", "f1"])
values = st.one_of(names, st.sampled_from(['say "hi"', "back\\slash", "line\nbreak", ""]))


@pytest.mark.parametrize("library", LIBRARIES)
@given(st.lists(names, min_size=1, max_size=4, unique=True), values)
def test_any_name_and_any_category_can_be_read_and_written(library, found, category):
    fields = [*map(Number, found), Category("c %", (category, category + "%b"))]
    codec = JsonCodec(fields, fields, library=library)
    event = {**dict.fromkeys(found, 1.5), "c %": category}
    width = len(found) + 2
    assert rows(codec, event).tolist() == [[1.5] * len(found) + [1, 0]]
    written = orjson.loads(codec.encode(np.zeros((1, width), np.float32)).to_list()[0])
    assert written == decode(fields, np.zeros((1, width), np.float32))[0]
    assert refused(codec, b'{"other": 1}') in {"unknown-feature", "missing-feature"}


#: JSON of all kinds, close to an event: the slow path reads all that the fast one does, equally.
numbers = st.one_of(
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.just(3.4028235677973366e38),
)
anything = st.one_of(
    numbers, st.none(), st.booleans(), st.text(max_size=3), st.lists(numbers, max_size=3)
)
events = st.fixed_dictionaries(
    {"x": numbers, "pair": st.lists(numbers, min_size=2, max_size=2)},
    optional={
        "weather": st.sampled_from(["sunny", "rainy"]),
        "dish": st.one_of(st.none(), st.sampled_from(["1", "2", 3])),
    },
)
near_events = st.one_of(
    events,
    st.builds(
        lambda event, name, value: {**event, name: value},
        events,
        st.sampled_from(["x", "pair", "weather", "dish", "new"]),
        anything,
    ),
)


@pytest.mark.parametrize("library", LIBRARIES)
@given(near_events)
def test_the_fast_path_and_the_careful_one_agree(library, event):
    codec = JsonCodec(INPUTS, OUTPUTS, library=library)
    value = json.dumps(event).encode()
    try:
        careful = encode(INPUTS, [event])
    except FieldError as error:
        # A single number beyond float32 is found in pack, for all rows at once.
        fast = read(codec, value)
        if fast.errors:
            assert fast.errors[0].reason == error.reason
        else:
            assert error.reason == "not-finite"
            assert not np.isfinite(fast.inputs).all()
    else:
        assert read(codec, value).inputs.tobytes() == careful.tobytes()


floats = st.floats(-(2.0**100), 2.0**100, width=32)


@pytest.mark.parametrize("library", LIBRARIES)
@given(st.lists(st.lists(floats, min_size=7, max_size=7), max_size=5))
def test_encoded_outputs_equal_the_offline_decode(library, outputs):
    array = np.array(outputs, np.float32).reshape(len(outputs), 7)
    written = [
        orjson.loads(value)
        for value in JsonCodec(INPUTS, OUTPUTS, library=library).encode(array).to_list()
    ]
    offline = decode(OUTPUTS, array)
    assert len(written) == len(offline)
    for found, expected in zip(written, offline, strict=True):
        assert list(found) == list(expected) == ["y", "z", "dish"]
        assert list(found["dish"]["probabilities"]) == ["1", "2", "3"]
        assert found["dish"]["label"] == expected["dish"]["label"]
        # A float32 written with its own digits is that float32 again, bit by bit.
        assert np.float32([found["y"], *found["z"]]).tobytes() == (
            np.float32([expected["y"], *expected["z"]]).tobytes()
        )
        assert np.float32(list(found["dish"]["probabilities"].values())).tobytes() == (
            np.float32(list(expected["dish"]["probabilities"].values())).tobytes()
        )


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_float32_is_written_with_as_many_digits_as_it_has(library):
    (value,) = (
        JsonCodec([], [Number("y")], library=library)
        .encode(np.array([[0.1]], np.float32))
        .to_list()
    )
    assert value == b'{"y":0.1}'


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("width", [64, 65, 10_000])
def test_long_vectors_are_read_and_their_length_is_checked(library, width):
    codec = JsonCodec([Number("x", width)], [Number("y", width)], library=library)
    vector = np.arange(width, dtype=np.float32) / 7
    value = orjson.dumps({"x": vector.tolist()})
    assert np.array_equal(read(codec, value).inputs[0], vector)
    assert np.array_equal(
        np.float32(orjson.loads(codec.encode(vector.reshape(1, -1)).to_list()[0])["y"]), vector
    )
    for wrong in (vector.tolist()[:-1], [*vector.tolist(), 1.0], []):
        assert refused(codec, orjson.dumps({"x": wrong})) == "wrong-length"


@pytest.mark.parametrize("library", LIBRARIES)
def test_raw_float32_is_read_and_written_little_endian(library):
    outputs = [Number("y"), DISH]
    codec = Float32Codec([Number("x", 2)], outputs, library=library)
    value = bytes.fromhex("0000803f000000c0")
    assert read(codec, value).inputs.tolist() == [[1, -2]]
    array = np.array([[0.5, 1, 2, 3], [1, 0, 0, 0]], np.float32)
    expected = activate(outputs, array)
    assert codec.encode(array).to_list() == [row.astype("<f4").tobytes() for row in expected]


@pytest.mark.parametrize("library", LIBRARIES)
def test_raw_float32_of_a_wrong_length_is_refused_with_its_length(library):
    codec = Float32Codec([Number("x", 2)], [Number("y")], library=library)
    assert refused(codec, b"12345") == "not-float32"
    assert refused(codec, b"1234") == "wrong-length"
    assert refused(codec, b"123456789012") == "wrong-length"


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", [JsonCodec, Float32Codec])
@pytest.mark.parametrize("outputs", [[Number("y")], [Number("y", 3)], [DISH]])
def test_no_rows_give_no_values(library, kind, outputs):
    codec = kind([Number("x", 2)], outputs, library=library)
    width = sum(field.width for field in outputs)
    assert read(codec).inputs.shape == (0, 2)
    assert codec.encode(np.zeros((0, width), np.float32)).to_list() == []


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("digits", [19, 20, 5_000])
def test_a_category_of_many_digits_is_a_text_and_no_integer(library, digits):
    # Given a category whose text is an integer beyond int64, or beyond what Python reads
    long = "9" * digits
    fields = [Category("c", (long, "1"))]
    codec = JsonCodec(fields, fields, library=library)

    # When an event has it as a text, then it is known; as an integer it is none, on both roads
    assert rows(codec, {"c": long}).tolist() == [[1, 0]]
    assert encode(fields, [{"c": long}]).tolist() == [[1, 0]]
    reason = refused(codec, b'{"c": %b}' % long.encode())
    assert reason == ("unknown-category" if digits < 4_300 else "not-finite")
