"""Writing events and their marks: what a record's value and headers are, before any client."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from livestep.pipeline.records import SEQUENCE_HEADER, STEPS_MAX_HEADER

#: Member that a JSON event gets if it is published as plain numbers.
VECTOR_MEMBER = "x"


def mark_headers(
    *, start: bool = False, end: bool = False, steps_max: int | None = None
) -> list[tuple[str, bytes]]:
    """Write the marks of a sequence as headers of a record.

    Raises:
        ValueError: If `steps_max` is less than 1.

    Example:
        >>> mark_headers(start=True, end=True, steps_max=20)
        [('sequence', b'start,end'), ('steps-max', b'20')]
    """
    if steps_max is not None and (isinstance(steps_max, bool) or steps_max < 1):
        raise ValueError(f"steps_max is {steps_max!r}, not an integer of at least 1")
    marks = [name for name, is_set in ((b"start", start), (b"end", end)) if is_set]
    headers = [(SEQUENCE_HEADER, b",".join(marks))] if marks else []
    if steps_max is not None:
        headers.append((STEPS_MAX_HEADER, b"%d" % steps_max))
    return headers


def encode_json(event: Mapping[str, Any] | Sequence[float | None]) -> bytes:
    """Write an event as JSON.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON doesn't have.
        TypeError: If a value has no place in JSON.

    Example:
        >>> encode_json({"weather": "sunny", "degrees": 21.5}), encode_json([1, 2.5])
        (b'{"weather":"sunny","degrees":21.5}', b'{"x":[1,2.5]}')
    """
    members = event if isinstance(event, Mapping) else {VECTOR_MEMBER: event}
    value = orjson.dumps(members, option=orjson.OPT_SERIALIZE_NUMPY)
    # orjson writes NaN and infinity as null without a word; null is rare, so looking is cheap.
    if b"null" in value:
        _refuse_non_finite(members)
    return value


def encode_float32(event: Mapping[str, Any] | Sequence[float | None]) -> bytes:
    """Write a vector as raw little-endian float32.

    None, for the numbers of an input that is left to the model's feedback, is written as NaN.

    Raises:
        ValueError: If a number is NaN or beyond float32.
        TypeError: If the event is no flat sequence of numbers.

    Example:
        >>> encode_float32([1.0, -2.0]).hex()
        '0000803f000000c0'
        >>> np.frombuffer(encode_float32([1.0, None]), "<f4")
        array([ 1., nan], dtype=float32)
    """
    if isinstance(event, Mapping):
        raise TypeError("codec float32 takes a sequence of numbers, not members with names")
    with np.errstate(over="ignore"):  # too large: infinite, and refused below
        vector = np.asarray(event, dtype="<f4")
    if vector.ndim != 1:
        raise TypeError(f"an event is one vector, not an array of {vector.ndim} dimensions")
    is_number = np.isfinite(vector)
    if not is_number.all() and any(
        event[i] is not None for i in np.flatnonzero(~is_number).tolist()
    ):
        raise ValueError("an event has a number that is NaN or beyond float32")
    return vector.tobytes()


def _refuse_non_finite(event: Mapping[str, Any]) -> None:
    for name, value in event.items():
        elements = value if isinstance(value, list | tuple | np.ndarray) else [value]
        for element in elements:
            if isinstance(element, float | np.floating) and not math.isfinite(element):
                raise ValueError(f"feature {name!r} is {element}: JSON has no such number")
