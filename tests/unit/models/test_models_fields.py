"""Fields turn events into arrays and arrays into predictions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestep import (
    Category,
    Field,
    FieldError,
    Number,
    Text,
    activate,
    decode,
    encode,
    total_width,
)
from livestep.models.fields.encoding import encode_columns

FIELDS = (
    Number("degrees"),
    Number("x", 2),
    Category("weather", ("sunny", "rainy")),
    Category("yesterday", ("1", "2", "3"), optional=True),
)
GOOD = {"degrees": 1.5, "x": [2, 3.5], "weather": "rainy", "yesterday": 2}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


def test_fields_are_side_by_side_in_their_order() -> None:
    assert total_width(FIELDS) == 8
    assert encode(FIELDS, [GOOD]).tolist() == [[1.5, 2, 3.5, 0, 1, 0, 1, 0]]


@pytest.mark.parametrize("event", [without("yesterday"), {**GOOD, "yesterday": None}])
def test_an_optional_category_that_is_absent_or_null_is_encoded_as_zeros(
    event: dict[str, Any],
) -> None:
    assert encode(FIELDS, [event])[0, 5:].tolist() == [0, 0, 0]


@pytest.mark.parametrize("number", [Number("n", 1, optional=True), Number("n", 2, optional=True)])
def test_an_optional_number_that_is_absent_or_null_is_encoded_as_zeros(number: Number) -> None:
    value = 1.5 if number.size == 1 else [1.5, 2.5]
    rows = encode([number], [{}, {"n": None}, {"n": value}])
    assert rows.tolist() == [[0.0] * number.size] * 2 + [np.atleast_1d(value).tolist()]
    with pytest.raises(FieldError, match="not a string"):
        encode([number], [{}, {"n": "x"}])


def test_an_integer_counts_as_its_decimal_text() -> None:
    field = [Category("code", ("-1", "1", "01"))]
    assert encode(field, [{"code": 1}, {"code": -1}]).argmax(axis=1).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("event", "reason", "detail"),
    [
        ([1, 2], "not-an-object", "not a list"),
        ("text", "not-an-object", "not a string"),
        (None, "not-an-object", "not null"),
        (without("degrees"), "missing-feature", "'degrees'"),
        (without("x"), "missing-feature", "'x'"),
        (without("weather"), "missing-feature", "'weather'"),
        ({**GOOD, "wind": 1}, "unknown-feature", "'wind'"),
        ({**GOOD, "degrees": "1.5"}, "wrong-kind", "not a string"),
        ({**GOOD, "degrees": True}, "wrong-kind", "not a boolean"),
        ({**GOOD, "degrees": None}, "wrong-kind", "not null"),
        ({**GOOD, "degrees": [1.5]}, "wrong-kind", "not a list"),
        ({**GOOD, "x": 1.5}, "wrong-kind", "list of 2 numbers, not a number"),
        ({**GOOD, "x": {"0": 1}}, "wrong-kind", "not an object"),
        ({**GOOD, "x": [1, "2"]}, "wrong-kind", "not a string"),
        ({**GOOD, "x": [1, None]}, "wrong-kind", "not null"),
        ({**GOOD, "x": [1, 2, 3]}, "wrong-length", "3 numbers instead of 2"),
        ({**GOOD, "x": []}, "wrong-length", "0 numbers instead of 2"),
        ({**GOOD, "weather": None}, "wrong-kind", "not null"),
        ({**GOOD, "weather": 1.0}, "wrong-kind", "not a number"),
        ({**GOOD, "weather": False}, "wrong-kind", "not a boolean"),
        ({**GOOD, "weather": "snow"}, "unknown-category", "'snow'"),
        ({**GOOD, "yesterday": 4}, "unknown-category", "'4'"),
        ({**GOOD, "degrees": math.nan}, "not-finite", "'degrees'"),
        ({**GOOD, "degrees": -math.inf}, "not-finite", "'degrees'"),
        ({**GOOD, "degrees": 1e39}, "not-finite", "'degrees'"),
        ({**GOOD, "x": [0, 10**400]}, "not-finite", "'x'"),
    ],
)
def test_an_event_that_does_not_fit_is_refused_with_its_reason(
    event: Any, reason: str, detail: str
) -> None:
    with pytest.raises(FieldError) as raised:
        encode(FIELDS, [GOOD, event, GOOD])
    assert raised.value.reason == reason
    assert detail in raised.value.detail
    assert raised.value.event_index == 1


def test_the_largest_float32_passes_and_the_next_is_refused() -> None:
    largest = float(np.finfo(np.float32).max)
    assert np.isfinite(encode([Number("x")], [{"x": largest}])).all()
    with pytest.raises(FieldError):
        encode([Number("x")], [{"x": 2.0**128 - 2.0**103}])


def test_numbers_of_numpy_are_numbers() -> None:
    event = {**GOOD, "degrees": np.float32(1.5), "x": np.array([2, 3.5])}
    assert encode(FIELDS, [event]).tolist() == encode(FIELDS, [GOOD]).tolist()


events = st.fixed_dictionaries(
    {
        "degrees": st.floats(width=32, allow_nan=False, allow_infinity=False),
        "x": st.lists(st.integers(-1000, 1000), min_size=2, max_size=2),
        "weather": st.sampled_from(["sunny", "rainy"]),
    },
    optional={"yesterday": st.sampled_from(["1", 2, "3", None])},
)


@given(st.lists(events, max_size=5))
def test_many_events_in_one_call_have_the_rows_of_each_alone(some: list[dict[str, Any]]) -> None:
    columns = [[event.get(field.name) for event in some] for field in FIELDS]
    rows = encode_columns(FIELDS, columns)
    assert rows.shape == (len(some), 8)
    assert rows.dtype == np.float32
    for row, event in zip(rows, some, strict=True):
        x = [event["degrees"], *event["x"]]
        weather = [event["weather"] == value for value in ("sunny", "rainy")]
        yesterday = [str(event.get("yesterday")) == value for value in ("1", "2", "3")]
        assert row.tolist() == [*x, *weather, *yesterday]


@pytest.mark.parametrize(
    ("column_index", "value", "reason"),
    [
        (1, [1.0], "wrong-length"),
        (1, 1.0, "wrong-kind"),
        (2, "snow", "unknown-category"),
        (2, None, "wrong-kind"),
        (2, ["sunny"], "wrong-kind"),
        (0, 10**400, "not-finite"),
    ],
)
def test_the_fast_path_reports_the_event_that_it_cannot_encode(
    column_index: int, value: Any, reason: str
) -> None:
    columns: list[list[Any]] = [[1.0] * 3, [[1.0, 2.0]] * 3, ["sunny"] * 3, [None] * 3]
    columns[column_index][2] = value
    with pytest.raises(FieldError) as raised:
        encode_columns(FIELDS, columns)
    assert (raised.value.reason, raised.value.event_index) == (reason, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e39, None])
def test_the_fast_path_encodes_a_missing_number_as_not_finite(value: Any) -> None:
    rows = encode_columns([Number("x")], [[1.0, value, 3.0]])
    assert np.isfinite(rows[:, 0]).tolist() == [True, False, True]


@pytest.mark.parametrize("columns", [[], [[1.0]], [[1.0], [], ["sunny"], [None]]])
def test_columns_that_do_not_fit_each_other_are_refused(columns: list[list[Any]]) -> None:
    with pytest.raises(ValueError, match="4 columns of one length"):
        encode_columns(FIELDS, columns)


def test_without_events_there_are_no_rows_and_no_predictions() -> None:
    assert encode(FIELDS, []).shape == (0, 8)
    assert decode(FIELDS, np.zeros((0, 8), np.float32)) == []


def test_outputs_become_numbers_lists_and_labels_with_probabilities() -> None:
    outputs = np.array([[1.5, 2, 3, 0, math.log(3)]], np.float32)
    fields = [Number("a"), Number("b", 2), Category("dish", ("1", "2"))]
    (prediction,) = decode(fields, outputs)
    probabilities = prediction["dish"].pop("probabilities")
    assert prediction == {"a": 1.5, "b": [2.0, 3.0], "dish": {"label": "2"}}
    assert probabilities == pytest.approx({"1": 0.25, "2": 0.75})


def test_probabilities_of_huge_logits_add_up_to_one() -> None:
    fields = [Category("dish", ("1", "2", "3"))]
    outputs = np.array([[1e30, -1e30, 0], [1e30, 1e30, -1e30]], np.float32)
    probabilities = activate(fields, outputs)
    assert probabilities.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]


def test_activate_returns_the_probabilities_of_decode_and_keeps_numbers_and_its_input() -> None:
    outputs = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    before = outputs.copy()
    activated = activate(FIELDS, outputs)
    assert activated.dtype == np.float32
    assert (outputs == before).all()
    assert (activated[:, :3] == outputs[:, :3]).all()
    for row, prediction in zip(activated, decode(FIELDS, outputs), strict=True):
        expected = [prediction[name]["probabilities"].values() for name in ("weather", "yesterday")]
        assert row[3:].tolist() == [value for values in expected for value in values]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Number(""), "must have a name"),
        (lambda: Number("x", 0), "at least 1"),
        (lambda: Category("", ("1",)), "must have a name"),
        (lambda: Category("dish", ()), "no values"),
        (lambda: Category("dish", ("1", "2", "1")), "twice"),
    ],
)
def test_an_invalid_field_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


WEATHER = Category("weather", ("sunny", "rainy"), encoding="index")
WORD = Text("word", "abc", length=4)


def test_a_category_can_be_one_column_with_its_index() -> None:
    optional = Category("dish", ("1", "2", "3"), optional=True, encoding="index")
    events = [{"weather": "rainy", "dish": 3}, {"weather": "sunny"}, {"weather": "rainy"}]
    assert encode([WEATHER, optional], events).tolist() == [[1, 2], [0, -1], [1, -1]]
    with pytest.raises(FieldError, match="no category 'snow'"):
        encode([WEATHER], [{"weather": "snow"}])


def test_a_text_is_the_indices_of_its_characters_and_minus_one_after_its_end() -> None:
    events = [{"word": "cab"}, {"word": ""}, {"word": "abca"}]
    assert encode([Number("x"), WORD], [{"x": 7, **event} for event in events]).tolist() == [
        [7, 2, 0, 1, -1],
        [7, -1, -1, -1, -1],
        [7, 0, 1, 2, 0],
    ]


def test_an_optional_text_that_is_absent_or_null_is_empty() -> None:
    optional = Text("word", "abc", length=2, optional=True)
    rows = encode([optional], [{}, {"word": None}, {"word": "b"}])
    assert rows.tolist() == [[-1, -1], [-1, -1], [1, -1]]


@pytest.mark.parametrize(
    ("event", "reason", "detail"),
    [
        ({}, "missing-feature", "'word'"),
        ({"word": None}, "wrong-kind", "not null"),
        ({"word": 1}, "wrong-kind", "not a number"),
        ({"word": ["a", "b"]}, "wrong-kind", "not a list"),
        ({"word": "abz"}, "unknown-character", "'z'"),
        ({"word": "a\n"}, "unknown-character", r"'\n'"),
        ({"word": "abcab"}, "text-too-long", "5 characters, the limit is 4"),
    ],
)
def test_a_text_that_does_not_fit_is_refused_with_its_reason(
    event: dict[str, Any], reason: str, detail: str
) -> None:
    with pytest.raises(FieldError) as careful:
        encode([WORD], [{"word": "a"}, event])
    with pytest.raises(FieldError) as fast:
        encode_columns([WORD], [["a", event.get("word")]])
    for raised in (careful, fast):
        assert raised.value.event_index == 1
    assert (careful.value.reason, detail in careful.value.detail) == (reason, True)
    if event:  # to the fast path, which has no names, absent is null
        assert fast.value.reason == reason


@pytest.mark.parametrize(
    ("kind", "value", "row"),
    [
        (Number("n", optional=True), 2, [2]),
        (Number("n", 2, optional=True), [2, 3], [2, 3]),
        (Category("n", ("a", "b"), optional=True), "b", [0, 1]),
        (Category("n", ("a", "b"), optional=True, encoding="index"), "b", [1]),
        (Text("n", "ab", 2, optional=True), "b", [1, -1]),
    ],
)
def test_a_fed_input_that_is_absent_is_nan_in_all_its_columns(
    kind: Field, value: Any, row: list[float]
) -> None:
    fields = [Number("x"), kind, Number("other", optional=True)]
    events = [{"x": 1}, {"x": 1, "n": value}, {"x": 1, "n": None}]
    rows = encode(fields, events, fed={"n"})
    assert rows[1].tolist() == [1, *row, 0]
    for absent in (rows[0], rows[2]):
        assert np.isnan(absent[1:-1]).all()
        assert absent[[0, -1]].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "ab", 1), "must have a name"),
        (("word", "", 1), "no characters"),
        (("word", "aba", 1), "a character twice"),
        (("word", "ab", 0), "at least 1"),
    ],
)
def test_an_invalid_text_field_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Text(*arguments)


@given(st.lists(st.text("abc", max_size=4), max_size=6))
def test_many_texts_in_one_call_have_the_rows_of_each_alone(words: list[str]) -> None:
    rows = encode_columns([WORD], [words])
    for row, word in zip(rows, words, strict=True):
        assert row.tolist() == [*map("abc".index, word), *[-1] * (4 - len(word))]


def test_a_list_of_values_is_converted_to_a_tuple() -> None:
    field = Category("c", ["a", "b"])  # type: ignore[arg-type]
    assert field == Category("c", ("a", "b"))
    assert encode([field], [{"c": "b"}]).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Number("x", "1"), "size of number 'x' must be an integer of at least 1"),
        (lambda: Number("x", 1.0), "size of number 'x' must be an integer"),
        (lambda: Number("x", True), "size of number 'x' must be an integer"),
        (lambda: Number(3), "the name of a field must be a string, not 3"),
        (lambda: Text("t", "ab", "2"), "length of text 't' must be an integer"),
        (lambda: Category("c", (1, 2)), "values of category 'c' must be a tuple of strings"),
        (lambda: Category("c", "ab"), "values of category 'c' must be a tuple of strings"),
    ],
)
def test_a_field_with_arguments_of_the_wrong_type_is_refused(
    make: Callable[[], Field], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()
