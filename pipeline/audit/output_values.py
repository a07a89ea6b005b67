"""Parses the value of a prediction strictly, and decides which labels are right.

With free rounding, of two labels whose probabilities differ by less than the tolerance, either is
right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from livestep.models.fields.field_types import Category, Field, Number
from livestep.models.loaded_model import LoadedModel
from livestep.pipeline.audit.input_events import Floats
from livestep.pipeline.errors import DecodeError


def read_outputs(value: bytes | None, model: LoadedModel) -> tuple[list[float], list[int]]:
    """Parse a prediction's value.

    Args:
        value: Of the record.
        model: Defines codec and outputs.

    Returns:
        numbers: H_out numbers; probabilities for a category.
        labels: The index of each category's label.

    Raises:
        DecodeError: If it is malformed.
    """
    if value is None:
        raise DecodeError("value", "the value is missing")
    if model.codec == "float32":
        if len(value) != 4 * model.net.output_size:
            raise DecodeError("value", f"{len(value)} bytes, not {4 * model.net.output_size}")
        return np.frombuffer(value, "<f4").tolist(), []
    try:
        members = orjson.loads(value)
        if members.keys() != {output.name for output in model.outputs}:
            raise DecodeError("value", f"members {list(members)}")
        numbers: list[float] = []
        labels: list[int] = []
        for output in model.outputs:
            _read_member(output, members[output.name], numbers, labels)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DecodeError("value", f"{value[:80]!r} is malformed: {error}") from None
    return numbers, labels


def _read_member(output: Field, member: Any, numbers: list[float], labels: list[int]) -> None:
    if isinstance(output, Category):
        if set(member) != {"label", "probabilities"}:
            raise ValueError(f"{output.name} has {list(member)}")
        probabilities = member["probabilities"]
        if set(probabilities) != set(output.values):
            raise ValueError(f"{output.name} has probabilities of {list(probabilities)}")
        labels.append(output.values.index(member["label"]))
        elements = [probabilities[value] for value in output.values]
    elif isinstance(output, Number):
        elements = [member] if output.size == 1 else member
        if not isinstance(elements, list) or len(elements) != output.size:
            raise ValueError(f"{output.name} is not a list of {output.size} numbers")
    else:
        raise ValueError(f"{output.name} can't be an output")
    for element in elements:
        if not isinstance(element, int | float) or isinstance(element, bool):
            raise ValueError(f"{output.name} has {element!r} instead of a number")
        numbers.append(element)


def categories_of(outputs: Sequence[Field]) -> list[Category]:
    """Return the outputs that are categories."""
    return [output for output in outputs if isinstance(output, Category)]


def only_labels(labels: Sequence[int], outputs: Sequence[Field]) -> list[npt.NDArray[np.bool_]]:
    """Return for each category that one label is right, and no other.

    Args:
        labels: Of each category.
        outputs: The model's.

    Example:
        >>> only_labels([1], [Category("dish", ("soup", "cake"))])
        [array([False,  True])]
    """
    return [
        np.arange(len(output.values)) == label
        for output, label in zip(categories_of(outputs), labels, strict=True)
    ]


def is_most_probable(probabilities: Floats, limit: float) -> npt.NDArray[np.bool_]:
    """Return which labels may be the most probable one.

    Args:
        probabilities: (values,).
        limit: The tolerance.
    """
    # Both probabilities may be off by the tolerance, one up and one down.
    is_label: npt.NDArray[np.bool_] = probabilities >= probabilities.max() - 2 * limit
    return is_label


def is_drawable(
    logits: Floats, temperature: float, draw: float, limit: float
) -> npt.NDArray[np.bool_]:
    """Return which labels a draw may have chosen.

    Args:
        logits: (values,).
        temperature: More than 0.
        draw: In [0, 1).
        limit: The tolerance of each probability.

    Example:
        >>> is_drawable(np.zeros(2, np.float32), 1.0, 0.5, 1e-5)
        array([ True,  True])
        >>> is_drawable(np.zeros(2, np.float32), 1.0, 0.6, 1e-5)
        array([False,  True])
    """
    powers = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    ends = np.cumsum(powers / powers.sum())
    begins = np.concatenate([[0.0], ends[:-1]])
    slack = limit * len(logits)
    is_label: npt.NDArray[np.bool_] = (begins - slack <= draw) & (draw < ends + slack)
    return is_label


def fits(labels: Sequence[int], is_label: Sequence[npt.NDArray[np.bool_]]) -> bool:
    """Whether each label is an allowed one; a codec without labels has none."""
    return all(one[label] for label, one in zip(labels, is_label, strict=False))


def found_labels(
    numbers: Sequence[float], labels: Sequence[int], outputs: Sequence[Field]
) -> list[int]:
    """Return the label of each category, the most probable one where the codec has no labels.

    Args:
        numbers: As from `read_outputs`.
        labels: As from `read_outputs`.
        outputs: The model's.
    """
    if labels:
        return list(labels)
    chosen = []
    start = 0
    for output in outputs:
        if isinstance(output, Category):
            chosen.append(int(np.argmax(numbers[start : start + output.width])))
        start += output.width
    return chosen


def labels_allowed(
    expected: Floats, outputs: Sequence[Field], limit: float
) -> list[npt.NDArray[np.bool_]]:
    """Return for each category which labels may be the most probable one.

    Args:
        expected: (H_out,), activated.
        outputs: The model's.
        limit: The tolerance.
    """
    allowed = []
    start = 0
    for output in outputs:
        if isinstance(output, Category):
            allowed.append(is_most_probable(expected[start : start + output.width], limit))
        start += output.width
    return allowed
