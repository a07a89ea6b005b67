"""Events to arrays, and arrays to predictions, by the fields of `field_types.py`.

An event is a JSON object with one member per input field; a prediction has one per output field.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from livestep.models.fields.event_checks import check_event, refuse_first
from livestep.models.fields.field_types import (
    NO_INDEX,
    Category,
    Field,
    Number,
    OutputField,
    Text,
    field_blocks,
    is_int_text,
    total_width,
)

__all__ = [  # the types, too: who encodes needs them
    "Category",
    "Field",
    "Number",
    "OutputField",
    "Text",
    "activate",
    "decode",
    "encode",
    "encode_columns",
    "total_width",
]

FloatArray = npt.NDArray[np.floating[Any]]
Float32Array = npt.NDArray[np.float32]


def encode(
    fields: Sequence[Field], events: Sequence[Mapping[str, Any]], fed: Collection[str] = ()
) -> Float32Array:
    """Turn events into rows, checking everything.

    This is the careful path, for offline use and for the exact reason why an event is invalid;
    `encode_columns` is the fast path and returns the same array.

    Args:
        fields: The model's inputs.
        events: n objects, one member per field, as decoded from JSON.
        fed: Names of the inputs that are NaN if absent, so that feedback fills them.

    Returns:
        rows: (n, H_in) float32, all finite except for `fed`.

    Raises:
        FieldError: If an event doesn't fit; with the reason, the first such event, and the field.

    Example:
        >>> fields = [Number("degrees"), Category("weather", ("sunny", "rainy"))]
        >>> encode(fields, [{"degrees": 21.5, "weather": "rainy"}])
        array([[21.5,  0. ,  1. ]], dtype=float32)
        >>> encode(fields, [{"degrees": 21.5, "weather": "snow"}])
        Traceback (most recent call last):
        livestep.models.model_errors.FieldError: event 0: feature 'weather' has no category 'snow'
    """
    for index, event in enumerate(events):
        check_event(fields, event, index)
    columns = [[event.get(field.name) for event in events] for field in fields]
    return encode_columns(fields, columns, fed)


def encode_columns(
    fields: Sequence[Field], columns: Sequence[Sequence[Any]], fed: Collection[str] = ()
) -> Float32Array:
    """Turn columns of type-checked values into rows: the fast path of `encode`.

    Works column by column, without a loop over events in Python. Numbers are not checked one by
    one: NaN, infinity, numbers too large for float32, and None in place of a number become
    non-finite cells, which the caller can find with one `numpy.isfinite`.

    Args:
        fields: The model's inputs.
        columns: One sequence per field, each with the n values of that field; None means absent.
        fed: Names of the inputs that are NaN if absent, so that feedback fills them.

    Returns:
        rows: (n, H_in) float32, C-contiguous.

    Raises:
        ValueError: If the number of columns is not that of the fields, or their lengths differ.
        FieldError: If a value is not a category of its field, a list has the wrong length, or a
            text is too long or has a character that is not in its alphabet.

    Example:
        >>> fields = [Number("x", 2), Category("dish", ("1", "2", "3"), optional=True)]
        >>> encode_columns(fields, [[[1.5, 2], [3, 4]], ["2", None]])
        array([[1.5, 2. , 0. , 1. , 0. ],
               [3. , 4. , 0. , 0. , 0. ]], dtype=float32)
    """
    if len(columns) != len(fields) or len({len(column) for column in columns}) > 1:
        lengths = [len(column) for column in columns]
        raise ValueError(f"expected {len(fields)} columns of one length, not {lengths}")
    event_count = len(columns[0]) if columns else 0
    rows = np.zeros((event_count, total_width(fields)), np.float32)
    if event_count == 0:
        return rows
    for field, block, column in zip(fields, field_blocks(fields), columns, strict=True):
        rows[:, block] = _encode_column(field, column)
        if field.name in fed:
            rows[[value is None for value in column], block] = np.nan
    return rows


def activate(fields: Sequence[Field], outputs: FloatArray) -> FloatArray:
    """Turn the logits of category fields into probabilities; numbers are unchanged.

    Args:
        fields: The model's outputs.
        outputs: (n, H_out). As the model returned them; not written to.

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
    for field, block in zip(fields, field_blocks(fields), strict=True):
        if isinstance(field, Category):
            activated[:, block] = _softmax(outputs[:, block])
    return activated


def decode(fields: Sequence[Field], outputs: FloatArray) -> list[dict[str, Any]]:
    """Turn the outputs of a model into predictions that can be written as JSON.

    Args:
        fields: The model's outputs.
        outputs: (n, H_out). As the model returned them: logits for a category, not yet activated.

    Returns:
        predictions: n objects, one member per field: a float (number of size 1), a list of floats,
            or `{"label": ..., "probabilities": {value: float}}` (category; the first maximum wins).

    Example:
        >>> decode([Number("x"), Category("dish", ("1", "2"))], np.array([[7.0, 0.0, 0.0]]))
        [{'x': 7.0, 'dish': {'label': '1', 'probabilities': {'1': 0.5, '2': 0.5}}}]
    """
    columns: list[list[Any]] = []
    for field, block in zip(fields, field_blocks(fields), strict=True):
        values = outputs[:, block]
        if isinstance(field, Category):
            columns.append(_category_predictions(field, values))
        else:
            columns.append((values[:, 0] if field.width == 1 else values).tolist())
    names = [field.name for field in fields]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _encode_column(field: Field, column: Sequence[Any]) -> npt.NDArray[Any]:
    """Turn n values of one field into (n, width)."""
    if isinstance(field, Number):
        return _number_column(field, column)
    if isinstance(field, Text):
        return _text_column(field, column)
    indices = _category_column(field, column)
    if field.encoding == "index":
        return indices.reshape(-1, 1)
    one_hot = np.zeros((len(column), field.width), np.float32)
    present = np.flatnonzero(indices != NO_INDEX)
    one_hot[present, indices[present]] = 1.0
    return one_hot


def _number_column(field: Number, column: Sequence[Any]) -> Float32Array:
    """Turn n values into (n, size)."""
    if field.optional and any(value is None for value in column):
        nothing: Any = 0.0 if field.size == 1 else [0.0] * field.size
        column = [nothing if value is None else value for value in column]
    try:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, as documented
            values = np.array(column, np.float32)
        return values.reshape(len(column), field.size)
    except (ValueError, TypeError, OverflowError):
        refuse_first(field, column)


def _category_column(field: Category, column: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Turn n values into their indices; `NO_INDEX` for an absent one."""
    try:
        indices = map(_index_by_value(field).__getitem__, column)
        return np.fromiter(indices, np.int64, len(column))
    except (KeyError, TypeError):
        refuse_first(field, column)


@functools.lru_cache(maxsize=1024)
def _index_by_value(field: Category) -> dict[Any, int]:
    """Map each spelling of a value to its column: the text, the integer, None if optional."""
    table: dict[Any, int] = {None: NO_INDEX} if field.optional else {}
    for index, value in enumerate(field.values):
        table[value] = index
        if is_int_text(value):
            table[int(value)] = index
    return table


def _text_column(field: Text, column: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Turn n texts into (n, length) indices, `NO_INDEX` after each end."""
    if field.optional:
        column = ["" if text is None else text for text in column]
    try:
        characters = "".join(column)  # of all texts at once, separated again by their lengths
        indices = map(_index_by_character(field).__getitem__, characters)
        flat = np.fromiter(indices, np.int64, len(characters))
        counts = np.fromiter(map(len, column), np.int64, len(column))
    except (KeyError, TypeError):
        refuse_first(field, column)
    if counts.max() > field.length:
        refuse_first(field, column)
    is_inside = np.arange(field.length) < counts[:, np.newaxis]  # (n, length)
    table = np.full(is_inside.shape, NO_INDEX, np.int64)
    table[is_inside] = flat
    return table


@functools.lru_cache(maxsize=1024)
def _index_by_character(field: Text) -> dict[str, int]:
    return {character: index for index, character in enumerate(field.alphabet)}


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
    """Turn logits (n, values) into probabilities, each row relative to its maximum."""
    # In this order of memory, each row is summed by itself, in the same order whatever n is.
    logits = np.ascontiguousarray(logits)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
