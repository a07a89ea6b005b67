"""Fields turn events into arrays and arrays into predictions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import (
    Category,
    FieldError,
    Number,
    activate,
    decode,
    encode,
    encode_columns,
    total_width,
)

FIELDS = (
    Number("degrees"),
    Number("x", 2),
    Category("weather", ("sunny", "rainy")),
    Category("yesterday", ("1", "2", "3"), optional=True),
)
GOOD = {"degrees": 1.5, "x": [2, 3.5], "weather": "rainy", "yesterday": 2}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


def test_fields_lie_side_by_side_in_their_order() -> None:
    assert total_width(FIELDS) == 8
    assert encode(FIELDS, [GOOD]).tolist() == [[1.5, 2, 3.5, 0, 1, 0, 1, 0]]


@pytest.mark.parametrize("event", [without("yesterday"), {**GOOD, "yesterday": None}])
def test_an_optional_category_that_is_absent_or_null_gives_zeros(event: dict[str, Any]) -> None:
    assert encode(FIELDS, [event])[0, 5:].tolist() == [0, 0, 0]


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
def test_many_events_in_one_call_give_the_rows_of_each_alone(some: list[dict[str, Any]]) -> None:
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
def test_the_fast_road_names_the_event_that_it_cannot_encode(
    column_index: int, value: Any, reason: str
) -> None:
    columns: list[list[Any]] = [[1.0] * 3, [[1.0, 2.0]] * 3, ["sunny"] * 3, [None] * 3]
    columns[column_index][2] = value
    with pytest.raises(FieldError) as raised:
        encode_columns(FIELDS, columns)
    assert (raised.value.reason, raised.value.event_index) == (reason, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e39, None])
def test_a_number_that_is_none_comes_out_of_the_fast_road_as_not_finite(value: Any) -> None:
    rows = encode_columns([Number("x")], [[1.0, value, 3.0]])
    assert np.isfinite(rows[:, 0]).tolist() == [True, False, True]


@pytest.mark.parametrize("columns", [[], [[1.0]], [[1.0], [], ["sunny"], [None]]])
def test_columns_that_do_not_belong_together_are_refused(columns: list[list[Any]]) -> None:
    with pytest.raises(ValueError, match="4 columns of one length"):
        encode_columns(FIELDS, columns)


def test_no_events_give_no_rows_and_no_predictions() -> None:
    assert encode(FIELDS, []).shape == (0, 8)
    assert decode(FIELDS, np.zeros((0, 8), np.float32)) == []


def test_outputs_become_numbers_lists_and_labels_with_probabilities() -> None:
    outputs = np.array([[1.5, 2, 3, 0, math.log(3)]], np.float32)
    fields = [Number("a"), Number("b", 2), Category("dish", ("1", "2"))]
    (prediction,) = decode(fields, outputs)
    probabilities = prediction["dish"].pop("probabilities")
    assert prediction == {"a": 1.5, "b": [2.0, 3.0], "dish": {"label": "2"}}
    assert probabilities == pytest.approx({"1": 0.25, "2": 0.75})


def test_huge_logits_give_probabilities_that_add_up() -> None:
    fields = [Category("dish", ("1", "2", "3"))]
    outputs = np.array([[1e30, -1e30, 0], [1e30, 1e30, -1e30]], np.float32)
    probabilities = activate(fields, outputs)
    assert probabilities.tolist() == [[1, 0, 0], [0.5, 0.5, 0]]


def test_activate_gives_the_probabilities_of_decode_and_leaves_numbers_and_its_input() -> None:
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
        (lambda: Number(""), "needs a name"),
        (lambda: Number("x", 0), "at least 1"),
        (lambda: Category("", ("1",)), "needs a name"),
        (lambda: Category("dish", ()), "no values"),
        (lambda: Category("dish", ("1", "2", "1")), "twice"),
    ],
)
def test_a_field_without_meaning_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
