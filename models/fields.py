"""Fields: what the columns of a model's inputs and outputs mean.

A model sees (N, H_in) and gives (N, H_out). A field names some neighbouring columns: a `Number`,
or a `Category` (one column for each of its values). Fields lie side by side in the order in which
they are listed. This file turns events (JSON objects, one member a field) into arrays and back.
"""

from __future__ import annotations

import functools
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt

from models.errors import FieldError, FieldReason

FloatArray = npt.NDArray[np.floating[Any]]

#: From here on a number becomes infinite when it is rounded to float32: the largest float32 and
#: half the step to the next power of two (IEEE 754, round to nearest, ties to even).
FLOAT32_LIMIT = 2.0**128 - 2.0**103


class Number(msgspec.Struct, frozen=True, tag="number", forbid_unknown_fields=True):
    """One number, or a list of `size` numbers.

    In an event it is a JSON number if `size` is 1, else a list of exactly `size` numbers.

    Attributes:
        name: The member's name in an event.
        size: How many numbers, and columns.

    Raises:
        ValueError: If the name is empty or the size less than 1.

    Example:
        >>> Number("x", size=12).width
        12
    """

    name: str
    size: int = 1

    def __post_init__(self) -> None:
        """Check what the types don't say."""
        _check_name(self.name)
        if self.size < 1:
            raise ValueError(f"the size of number {self.name!r} has to be at least 1")

    @property
    def width(self) -> int:
        """How many columns the field takes."""
        return self.size


class Category(msgspec.Struct, frozen=True, tag="category", forbid_unknown_fields=True):
    """One of a fixed list of values, each a column of its own.

    In an event it is a string, or an integer that counts as its decimal text. An optional one may
    be absent or null, which gives zeros. As an output the columns are logits.

    Attributes:
        name: The member's name in an event.
        values: The values, in the order of their columns.
        optional: Whether an event may leave it out; without meaning in an output.

    Raises:
        ValueError: If the name is empty, or the values are none or not distinct.

    Example:
        >>> Category("weather", ("sunny", "rainy")).width
        2
    """

    name: str
    values: tuple[str, ...]
    optional: bool = False

    def __post_init__(self) -> None:
        """Check what the types don't say."""
        _check_name(self.name)
        if not self.values:
            raise ValueError(f"category {self.name!r} has no values")
        if len(set(self.values)) != len(self.values):
            raise ValueError(f"category {self.name!r} lists a value twice")

    @property
    def width(self) -> int:
        """How many columns the field takes."""
        return len(self.values)


Field = Number | Category


def total_width(fields: Sequence[Field]) -> int:
    """Count the columns of some fields.

    Example:
        >>> total_width([Number("x", 3), Category("weather", ("sunny", "rainy"))])
        5
    """
    return sum(field.width for field in fields)


def encode(fields: Sequence[Field], events: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float32]:
    """Turn events into rows, checking everything.

    This is the careful road, for offline use and for the exact reason why an event can't be used;
    `encode_columns` is the fast one and gives the same array.

    Args:
        fields: The model's inputs.
        events: n objects, one member a field, as decoded from JSON.

    Returns:
        rows: (n, H_in) float32, all finite.

    Raises:
        FieldError: If an event doesn't fit; names the reason, the first such event and the field.

    Example:
        >>> fields = [Number("degrees"), Category("weather", ("sunny", "rainy"))]
        >>> encode(fields, [{"degrees": 21.5, "weather": "rainy"}])
        array([[21.5,  0. ,  1. ]], dtype=float32)
        >>> encode(fields, [{"degrees": 21.5, "weather": "snow"}])
        Traceback (most recent call last):
        models.errors.FieldError: event 0: feature 'weather' has no category 'snow'
    """
    names = {field.name for field in fields}
    for index, event in enumerate(events):
        if not isinstance(event, Mapping):
            _refuse("not-an-object", f"an event is an object, not {_kind(event)}", index)
        for name in event:
            if name not in names:
                _refuse("unknown-feature", f"the model has no feature {name!r}", index)
        for field in fields:
            _check_value(field, event, index)
    return encode_columns(fields, [[event.get(field.name) for event in events] for field in fields])


def encode_columns(
    fields: Sequence[Field], columns: Sequence[Sequence[Any]]
) -> npt.NDArray[np.float32]:
    """Turn columns of values that are already type-checked into rows: the fast road of `encode`.

    Works column by column, without a loop over events in Python. Numbers are not looked at one by
    one: NaN, infinity, what is too large for float32, and None in place of a number come out as
    non-finite cells, which `numpy.isfinite` finds for the whole array at once.

    Args:
        fields: The model's inputs.
        columns: One sequence a field, each with the n values of that field; None means absent.

    Returns:
        rows: (n, H_in) float32, C-contiguous.

    Raises:
        ValueError: If there are not as many columns as fields, or they differ in length.
        FieldError: If a value is no category of its field, or a list has the wrong length.

    Example:
        >>> fields = [Number("x", 2), Category("dish", ("1", "2", "3"), optional=True)]
        >>> encode_columns(fields, [[[1.5, 2], [3, 4]], ["2", None]])
        array([[1.5, 2. , 0. , 1. , 0. ],
               [3. , 4. , 0. , 0. , 0. ]], dtype=float32)
    """
    if len(columns) != len(fields) or len({len(column) for column in columns}) > 1:
        lengths = [len(column) for column in columns]
        raise ValueError(f"{len(fields)} columns of one length are needed, not {lengths}")
    event_count = len(columns[0]) if columns else 0
    rows = np.zeros((event_count, total_width(fields)), np.float32)
    if event_count == 0:
        return rows
    for field, block, column in zip(fields, _blocks(fields), columns, strict=True):
        if isinstance(field, Number):
            rows[:, block] = _number_column(field, column)
        else:
            value_indices = _category_column(field, column)
            present = np.flatnonzero(value_indices >= 0)
            rows[present, block.start + value_indices[present]] = 1.0
    return rows


def activate(fields: Sequence[Field], outputs: FloatArray) -> FloatArray:
    """Turn the logits of category fields into probabilities; numbers stay as they are.

    Args:
        fields: The model's outputs.
        outputs: (n, H_out). As the model gave them; not written to.

    Returns:
        activated: (n, H_out), the same dtype. `outputs` itself if no field is a category.

    Example:
        >>> fields = [Number("x"), Category("dish", ("1", "2"))]
        >>> activate(fields, np.array([[7.0, 0.0, 0.0]]))
        array([[7. , 0.5, 0.5]])
    """
    if all(isinstance(field, Number) for field in fields):
        return outputs
    activated = outputs.copy()
    for field, block in zip(fields, _blocks(fields), strict=True):
        if isinstance(field, Category):
            activated[:, block] = _softmax(outputs[:, block])
    return activated


def decode(fields: Sequence[Field], outputs: FloatArray) -> list[dict[str, Any]]:
    """Turn what the model gave into predictions that can be written as JSON.

    Args:
        fields: The model's outputs.
        outputs: (n, H_out). As the model gave them: logits for a category, not yet activated.

    Returns:
        predictions: n objects, one member a field: a float (number of size 1), a list of floats, or
            `{"label": ..., "probabilities": {value: float}}` (category; the first of equals wins).

    Example:
        >>> decode([Number("x"), Category("dish", ("1", "2"))], np.array([[7.0, 0.0, 0.0]]))
        [{'x': 7.0, 'dish': {'label': '1', 'probabilities': {'1': 0.5, '2': 0.5}}}]
    """
    columns: list[list[Any]] = []
    for field, block in zip(fields, _blocks(fields), strict=True):
        values = outputs[:, block]
        if isinstance(field, Category):
            columns.append(_category_predictions(field, values))
        else:
            columns.append((values[:, 0] if field.size == 1 else values).tolist())
    names = [field.name for field in fields]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _blocks(fields: Sequence[Field]) -> Iterator[slice]:
    """Give the columns of each field."""
    start = 0
    for field in fields:
        yield slice(start, start + field.width)
        start += field.width


def _number_column(field: Number, column: Sequence[Any]) -> npt.NDArray[np.float32]:
    """Turn n values into (n, size)."""
    try:
        with np.errstate(over="ignore"):  # too large for float32: infinite, as documented
            values = np.array(column, np.float32)
        return values.reshape(len(column), field.size)
    except (ValueError, TypeError, OverflowError):
        _refuse_first(field, column)


def _category_column(field: Category, column: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Turn n values into their indices; -1 for an absent one."""
    try:
        indices = map(_index_by_value(field).__getitem__, column)
        return np.fromiter(indices, np.int64, len(column))
    except (KeyError, TypeError):
        _refuse_first(field, column)


@functools.lru_cache(maxsize=1024)
def _index_by_value(field: Category) -> dict[Any, int]:
    """Map each spelling of a value to its column: the text, the integer, None if optional."""
    table: dict[Any, int] = {None: -1} if field.optional else {}
    for index, value in enumerate(field.values):
        table[value] = index
        if value.removeprefix("-").isdecimal() and str(int(value)) == value:
            table[int(value)] = index
    return table


def _category_predictions(field: Category, logits: FloatArray) -> list[dict[str, Any]]:
    """Turn (n, values) logits into n labels with their probabilities."""
    values = field.values
    rows = _softmax(logits).tolist()
    labels = logits.argmax(axis=1).tolist()
    return [
        {"label": values[label], "probabilities": dict(zip(values, row, strict=True))}
        for label, row in zip(labels, rows, strict=True)
    ]


def _softmax(logits: FloatArray) -> FloatArray:
    """Turn logits (n, values) into probabilities, each row by its own largest."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _refuse_first(field: Field, column: Sequence[Any]) -> NoReturn:
    """Name the first value of a column that its field doesn't take."""
    for index, value in enumerate(column):
        _check_value(field, {field.name: value}, index)
    raise AssertionError(f"encode_columns refused a column of {field.name!r} that encode accepts")


def _check_value(field: Field, event: Mapping[str, Any], index: int) -> None:
    """Raise FieldError unless the event has a value that the field takes."""
    value = event.get(field.name)
    if isinstance(field, Category):
        _check_category(field, event, index)
    elif field.name not in event:
        _refuse("missing-feature", f"feature {field.name!r} is missing", index)
    elif field.size == 1:
        _check_number(field.name, value, index)
    elif not isinstance(value, list | tuple | np.ndarray):
        detail = f"feature {field.name!r} is a list of {field.size} numbers, not {_kind(value)}"
        _refuse("wrong-kind", detail, index)
    elif len(value) != field.size:
        detail = f"feature {field.name!r} has {len(value)} numbers instead of {field.size}"
        _refuse("wrong-length", detail, index)
    else:
        for element in value:
            _check_number(field.name, element, index)


def _check_category(field: Category, event: Mapping[str, Any], index: int) -> None:
    value = event.get(field.name)
    if value is None and field.optional:
        return
    if field.name not in event:
        _refuse("missing-feature", f"feature {field.name!r} is missing", index)
    if not isinstance(value, str | numbers.Integral) or isinstance(value, bool):
        detail = f"feature {field.name!r} is a string or an integer, not {_kind(value)}"
        _refuse("wrong-kind", detail, index)
    if str(value) not in field.values:
        detail = f"feature {field.name!r} has no category {str(value)[:80]!r}"
        _refuse("unknown-category", detail, index)


def _check_number(name: str, value: Any, index: int) -> None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        _refuse("wrong-kind", f"feature {name!r} needs numbers, not {_kind(value)}", index)
    try:
        is_held = abs(float(value)) < FLOAT32_LIMIT  # False for NaN
    except OverflowError:  # an integer too large even for float64
        is_held = False
    if not is_held:
        _refuse("not-finite", f"feature {name!r} has a number that float32 can't hold", index)


def _check_name(name: str) -> None:
    if not name:
        raise ValueError("a field needs a name")


def _kind(value: Any) -> str:
    """Name a value's kind in JSON's words."""
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
