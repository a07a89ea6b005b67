"""Why an event is invalid: checks each value on its own, slowly, and returns a sentence.

The fast path, `encoding.encode_columns`, calls this only to explain a value that it rejects.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from livestep.models.fields.field_types import Category, Field, Number, Text, is_int_text
from livestep.models.model_errors import FieldError, FieldReason

#: From here on, rounding to float32 yields infinity: the largest float32 plus half the step to the
#: next power of two (IEEE 754, round to nearest, ties to even).
FLOAT32_LIMIT = 2.0**128 - 2.0**103

#: Characters of a value that an error shows.
_SHOWN = 80


def check_event(fields: Sequence[Field], event: Any, index: int) -> None:
    """Raise FieldError unless an event fits the fields.

    Args:
        fields: The model's inputs.
        event: As decoded from JSON.
        index: Its position in the call, for the error.
    """
    if not isinstance(event, Mapping):
        _refuse("not-an-object", f"an event must be an object, not {_kind(event)}", index)
    names = {field.name for field in fields}
    for name in event:
        if name not in names:
            _refuse("unknown-feature", f"the model has no feature {name!r}", index)
    for field in fields:
        _check_value(field, event, index)


def refuse_first(field: Field, column: Sequence[Any]) -> NoReturn:
    """Raise FieldError for the first value of a column that its field rejects."""
    for index, value in enumerate(column):
        _check_value(field, {field.name: value}, index)
    raise AssertionError(f"encode_columns rejected a column of {field.name!r} that encode accepts")


def _check_value(field: Field, event: Mapping[str, Any], index: int) -> None:
    """Raise FieldError unless the event has a valid value for the field."""
    value = event.get(field.name)
    if value is None and field.optional:
        return
    if field.name not in event:
        _refuse("missing-feature", f"feature {field.name!r} is missing", index)
    if isinstance(field, Category):
        _check_category(field, value, index)
    elif isinstance(field, Text):
        _check_text(field, value, index)
    else:
        _check_numbers(field, value, index)


def _check_category(field: Category, value: Any, index: int) -> None:
    if not isinstance(value, str | numbers.Integral) or isinstance(value, bool):
        detail = f"feature {field.name!r} must be a string or an integer, not {_kind(value)}"
        _refuse("wrong-kind", detail, index)
    text = str(value)
    if text not in field.values or not (isinstance(value, str) or is_int_text(text)):
        detail = f"feature {field.name!r} has no category {text[:_SHOWN]!r}"
        _refuse("unknown-category", detail, index)


def _check_text(field: Text, value: Any, index: int) -> None:
    if not isinstance(value, str):
        _refuse("wrong-kind", f"feature {field.name!r} must be a string, not {_kind(value)}", index)
    if len(value) > field.length:
        detail = f"feature {field.name!r} has {len(value)} characters, the limit is {field.length}"
        _refuse("text-too-long", detail, index)
    for character in value:
        if character not in field.alphabet:
            detail = f"feature {field.name!r} has no character {character!r} in its alphabet"
            _refuse("unknown-character", detail, index)


def _check_numbers(field: Number, value: Any, index: int) -> None:
    if field.size == 1:
        _check_number(field.name, value, index)
    elif not isinstance(value, list | tuple | np.ndarray):
        detail = (
            f"feature {field.name!r} must be a list of {field.size} numbers, not {_kind(value)}"
        )
        _refuse("wrong-kind", detail, index)
    elif len(value) != field.size:
        detail = f"feature {field.name!r} has {len(value)} numbers instead of {field.size}"
        _refuse("wrong-length", detail, index)
    else:
        for element in value:
            _check_number(field.name, element, index)


def _check_number(name: str, value: Any, index: int) -> None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        _refuse("wrong-kind", f"feature {name!r} requires numbers, not {_kind(value)}", index)
    try:
        is_held = abs(float(value)) < FLOAT32_LIMIT  # False for NaN
    except OverflowError:  # an integer too large even for float64
        is_held = False
    if not is_held:
        _refuse("not-finite", f"feature {name!r} has a number that float32 can't hold", index)


def _kind(value: Any) -> str:
    """Return the JSON type of a value, for an error."""
    for kinds, word in (
        (type(None), "null"),
        (bool, "a boolean"),
        (str, "a string"),
        (numbers.Real, "a number"),
        (Mapping, "an object"),
        (list | tuple, "a list"),
    ):
        if isinstance(value, kinds):
            return word
    return type(value).__name__


def _refuse(reason: FieldReason, detail: str, event_index: int) -> NoReturn:
    raise FieldError(reason, detail, event_index)
