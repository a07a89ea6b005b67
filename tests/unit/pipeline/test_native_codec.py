"""The native codec accepts only what the Python codec accepts, with the same bits."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestep import Category, Feedback, Generation, Number, SequenceRules, Text
from livestep.pipeline.batch.codec import Codec, Float32Codec, JsonCodec
from livestep.pipeline.batch.json_events import native_fields
from livestep.pipeline.columns.byte_column import ByteColumn
from livestep.pipeline.native import NATIVE_VARIABLE, WHY_NOT, native
from tests.hostile.hostile_records import KINDS
from tests.support.fuzzed_values import codec_of, duplicated, values

#: `EXAMPLES=100000 pytest tests/unit/pipeline/test_native_codec.py` for a long run.
EXAMPLES = int(os.environ.get("EXAMPLES", "300"))

needs_native = pytest.mark.skipif(native is None, reason=f"no native loops: {WHY_NOT}")

#: For each kind of model, the native codec and the Python codec.
PAIRS = {name: (codec_of(kind), codec_of(kind, library=None)) for name, kind in KINDS.items()}

#: Every type of field, required and optional, with characters of every length in UTF-8.
FIELDS = [
    Number("x"),
    Number("pair", 2, optional=True),
    Number("long", 70, optional=True),
    Category("weather", ("sunny", "ü", "", "1", "-7", "007"), optional=True),
    Category("place", ("a", "2", "0", "\U0001f600"), encoding="index"),
    Category("before", ("1", "2"), optional=True, encoding="index"),
    Text("word", 'abé ☃\U0001f600"\\\n', 4, optional=True),
]
GENERATING = SequenceRules(shape="encode-decode", generation=Generation(steps_max=9))
EVENT = {
    "x": -1.25e-3,
    "pair": [0.1, 3],
    "long": [i / 7 for i in range(70)],
    "weather": "ü",
    "place": 2,
    "before": "1",
    "word": "☃é a",
    "start": True,
    "end": False,
    "steps_max": 9,
}


def read(codec: Codec, *found: bytes) -> tuple[Any, ...]:
    """Decode values into what can be compared: the bits of all arrays, and the reasons."""
    decoded = codec.read(ByteColumn(found), np.ones(len(found), bool), {})
    return (
        decoded.inputs.shape,
        decoded.inputs.tobytes(),
        decoded.marks.tolist(),
        decoded.steps_max.tolist(),
        [(i, error.reason, error.detail) for i, error in decoded.errors.items()],
    )


@pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not installed")
@pytest.mark.skipif(NATIVE_VARIABLE in os.environ, reason=f"{NATIVE_VARIABLE} is set")
def test_the_native_loops_are_built_where_cargo_is_installed() -> None:
    assert native is not None, WHY_NOT


def is_declined(fields: list[Any], steps_limit: int, value: bytes) -> bool:
    assert native is not None
    decoder = native.JsonDecoder(native_fields(fields, ()), steps_limit)
    declined = decoder.decode(ByteColumn([value]), np.ones(1, bool))[3].tolist()
    return bool(declined[0])


ORDINARY = [
    EVENT,
    dict(reversed(EVENT.items())),
    {"x": 1, "place": "a"},
    {"x": 0, "place": "\U0001f600", "weather": "", "word": ""},
    {"x": -7, "place": 0, "weather": -7, "before": 2},
    {"x": 1e30, "place": "2", "weather": "007", "pair": None, "word": None, "before": None},
    {"x": 1.5, "place": "a", "steps_max": None, "end": True},
    {"end": True},
    {"start": True, "end": True, "steps_max": 3, "pair": None},
]


@needs_native
@pytest.mark.parametrize("event", ORDINARY, ids=lambda event: ",".join(event)[:40])
def test_ordinary_events_are_read_natively_however_they_are_written(event: dict[str, Any]) -> None:
    codec = JsonCodec(FIELDS, [Number("y")], GENERATING, library=None)
    for value in (
        orjson.dumps(event),
        orjson.dumps(event, option=orjson.OPT_INDENT_2),
        json.dumps(event, ensure_ascii=False).encode(),
        b" \t\r\n"
        + json.dumps(event, ensure_ascii=False, separators=(" ,\n", "\t:  ")).encode()
        + b"\n",
    ):
        assert not is_declined(FIELDS, 9, value)
        assert read(JsonCodec(FIELDS, [Number("y")], GENERATING), value) == read(codec, value)


@needs_native
def test_an_event_of_optional_fields_only_may_be_empty() -> None:
    fields = [field for field in FIELDS if field.optional]
    for value in (b"{}", b'{"pair": null}', b' { "end" : false } '):
        assert not is_declined(fields, 0, value)
        expected = read(JsonCodec(fields, [Number("y")], library=None), value)
        assert read(JsonCodec(fields, [Number("y")]), value) == expected


@needs_native
@pytest.mark.parametrize("name", sorted(name for name in KINDS if name != "float32"))
def test_the_good_events_of_each_kind_are_read_natively(name: str) -> None:
    options = KINDS[name].options
    rules = options.get("rules", SequenceRules())
    steps_limit = rules.generation.steps_max if rules.generation else 0
    for value in KINDS[name].good:
        assert not is_declined(list(options["inputs"]), steps_limit, value)


@needs_native
@pytest.mark.parametrize(
    "value",
    [
        b'{"x": "\\u0061"}',
        b'{"\\u0078": 1}',
        b'{"x": 1, "x": 1}',
        b'{"x": 1, "new": 1}',
        b'{"x": 01}',
        b'{"x": +1}',
        b'{"x": 1.}',
        b'{"x": .5}',
        b'{"x": 1e}',
        b'{"x": NaN}',
        b'{"x": -Infinity}',
        b'{"x": 1e39}',
        b'{"x": 1e999}',
        b'{"x": null}',
        b'{"x": "1"}',
        b'{"x": true}',
        b'{"x": [1]}',
        b'{"x": 1,}',
        b'{"x": 1} x',
        b'{"x": 1}{',
        b'{"x": 1',
        b'{"x" 1}',
        b'{"x": 1, "start": 1}',
        b'{"x": 1, "start": null}',
        b'{"x": 1, "steps_max": 1}',
        b'\xef\xbb\xbf{"x": 1}',
        b'{"x": 1}\x00',
        b'{"\xff": 1}',
        b"[1]",
        b"{}",
        b"",
    ],
)
def test_everything_else_is_declined_and_python_reads_it(value: bytes) -> None:
    assert is_declined([Number("x")], 0, value)
    python = JsonCodec([Number("x")], [Number("y")], library=None)
    assert read(JsonCodec([Number("x")], [Number("y")]), value) == read(python, value)


@needs_native
def test_header_marks_and_values_that_are_left_out_mean_the_same_on_both() -> None:
    # Given good and bad values between some that are left out
    fields = [Number("x", 2, optional=True)]
    rules = SequenceRules(feedback=(Feedback("y", "x"),))
    found = [b'{"x":[1,2]}', None, b'{"end":true}', b"", b'{"x":[1]}', b"{}", b'{"x":[3,4]}']
    is_read = np.array([True, False, True, False, True, True, False])
    marks = {0: 1, 1: 2, 4: 1, 5: 2}

    # When both read them
    texts = []
    for library in (native, None):
        for value_codec in (JsonCodec, Float32Codec):
            codec = value_codec(fields, [Number("y", 2)], rules, library=library)
            decoded = codec.read(ByteColumn(found), is_read, marks)
            texts.append(
                (
                    value_codec,
                    decoded.inputs.tobytes(),
                    decoded.marks.tolist(),
                    decoded.errors.keys(),
                )
            )

    # Then they agree
    assert texts[:2] == texts[2:]
    assert texts[0][2] == [1, 4, 6, 4, 4, 6, 4]


@needs_native
@settings(max_examples=EXAMPLES)
@given(values | duplicated())
def test_any_value_is_read_as_in_python(named: tuple[str, bytes]) -> None:
    natively, in_python = PAIRS[named[0]]
    assert read(natively, named[1]) == read(in_python, named[1])


#: Numbers as JSON spells them, and nearly so.
numbers = (
    st.from_regex(r"\A-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,4})?\Z")
    | st.floats(allow_nan=False).map(repr)
    | st.floats(width=32, allow_nan=False).map(lambda number: str(np.float32(number)))
    | st.integers(-(2**70), 2**70).map(str)
    | st.text("0123456789+-.eE", min_size=1, max_size=8)
)
#: Texts as JSON spells them, with and without escapes.
texts = st.text(max_size=6).map(json.dumps) | st.text('abé ☃\U0001f600"\\\n1', max_size=5).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
words = st.sampled_from(["true", "false", "null", '"sunny"', '"ü"', "1", "-7", '"a"', '"2"', "9"])
anything = (
    numbers | texts | words | st.lists(numbers, max_size=3).map(lambda all: f"[{','.join(all)}]")
)
members = st.sampled_from([*EVENT, "new"])
spaces = st.sampled_from(["", "", "", " ", "\n\t "])


#: The same for all types of field, without and with steps that an event may request.
NEAR_PAIRS = [
    tuple(JsonCodec(FIELDS, [Number("y")], rules, library=library) for library in (native, None))
    for rules in (SequenceRules(), GENERATING)
]


@st.composite
def near_events(draw: st.DrawFn) -> bytes:
    """Write an object with most members of an event, in any order and with values of any kind."""
    pairs = {name: draw(anything) for name in draw(st.lists(members, max_size=6))}
    if draw(st.booleans()):
        pairs |= {"x": draw(numbers), "place": draw(words)}
    order = draw(st.permutations(sorted(pairs)))
    space = draw(spaces)
    inner = f"{space},{space}".join(f'"{name}"{space}:{space}{pairs[name]}' for name in order)
    return f"{space}{{{space}{inner}{space}}}{space}".encode(errors="surrogatepass")


@needs_native
@settings(max_examples=EXAMPLES)
@given(near_events())
def test_any_object_near_an_event_is_read_as_in_python(value: bytes) -> None:
    for natively, in_python in NEAR_PAIRS:
        assert read(natively, value) == read(in_python, value)


OUTPUTS = [
    Number("y"),
    Number("%b", 3),
    Category("c", ('say "%d"', "ü", "1")),
    Category("d", ("a",)),
]

rows = st.lists(st.lists(st.floats(width=32), min_size=8, max_size=8), max_size=4)


@needs_native
@settings(max_examples=EXAMPLES)
@given(rows, st.booleans())
def test_any_outputs_are_written_as_in_python(found: list[list[float]], is_drawn: bool) -> None:
    outputs = np.array(found, np.float32).reshape(len(found), 8)
    drawn = {"c": np.arange(len(found)) % 3} if is_drawn else None
    with np.errstate(all="ignore"):
        for kind in (JsonCodec, Float32Codec):
            written = kind(FIELDS, OUTPUTS).encode(outputs, drawn).to_list()
            assert written == kind(FIELDS, OUTPUTS, library=None).encode(outputs, drawn).to_list()
            wide = np.concatenate([outputs, outputs], axis=1)[:, :8]  # not contiguous
            assert kind(FIELDS, OUTPUTS).encode(wide, drawn).to_list() == written


@needs_native
@settings(max_examples=EXAMPLES)
@given(st.integers(0, 2**32 - 1))
def test_any_float32_is_written_with_the_digits_of_python(bits: int) -> None:
    number = np.array([[bits]], np.uint32).view(np.float32)
    fields = [Number("y")]
    written = JsonCodec(fields, fields).encode(number).to_list()
    assert written == JsonCodec(fields, fields, library=None).encode(number).to_list()
    if np.isfinite(number).all():
        assert read(JsonCodec(fields, fields), *written)[1] == number.tobytes()
