"""Reading the value of a prediction, letting no other form pass than the one agreed on."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from deploy.unrolled import Floats
from models import Category, Field, LoadedModel
from pipeline.errors import DecodeError


def read_outputs(value: bytes | None, model: LoadedModel) -> tuple[list[float], list[int]]:
    """Read a prediction's value.

    Args:
        value: Of the record.
        model: Says codec and outputs.

    Returns:
        numbers: H_out of them; probabilities for a category.
        labels: For each category the index of its label.

    Raises:
        DecodeError: If it has another form.
    """
    if value is None:
        raise DecodeError("value", "there is no value")
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
        raise DecodeError("value", f"{value[:80]!r} can't be read: {error}") from None
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
    else:
        elements = [member] if output.size == 1 else member
        if not isinstance(elements, list) or len(elements) != output.size:
            raise ValueError(f"{output.name} is no list of {output.size} numbers")
    for element in elements:
        if not isinstance(element, int | float) or isinstance(element, bool):
            raise ValueError(f"{output.name} has {element!r} in place of a number")
        numbers.append(element)


def labels_fit(
    labels: list[int], expected: Floats, outputs: tuple[Field, ...], limit: float
) -> bool:
    """Whether each label is the most probable value; of two within the tolerance, either is.

    Args:
        labels: For each category the index of its label.
        expected: (H_out,), activated.
        outputs: The model's.
        limit: The tolerance.
    """
    start = 0
    chosen = iter(labels)
    for output in outputs:
        block = expected[start : start + output.width]
        start += output.width
        # Both probabilities may be off by the tolerance, one up and one down.
        if labels and isinstance(output, Category):
            if block[next(chosen)] < block.max() - 2 * limit:
                return False
    return True
