"""Encode events and their marks as the value and headers of a record, for any Kafka client."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from livestep.pipeline.records import SEQUENCE_HEADER, STEPS_MAX_HEADER

#: Name of the member if plain numbers are published as a JSON event.
VECTOR_MEMBER = "x"


def mark_headers(
    *, start: bool = False, end: bool = False, steps_max: int | None = None
) -> list[tuple[str, bytes]]:
    """Encode the marks of a sequence as headers of a record.

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
    """Encode an event as JSON.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON does not support.
        TypeError: If a value can't be encoded in JSON.

    Example:
        >>> encode_json({"weather": "sunny", "degrees": 21.5}), encode_json([1, 2.5])
        (b'{"weather":"sunny","degrees":21.5}', b'{"x":[1,2.5]}')
    """
    members = event if isinstance(event, Mapping) else {VECTOR_MEMBER: event}
    value = orjson.dumps(members, option=orjson.OPT_SERIALIZE_NUMPY)
    # orjson silently writes NaN and infinity as null; null is rare, so this check is cheap.
    if b"null" in value:
        _refuse_non_finite(members)
    return value


def encode_float32(event: Mapping[str, Any] | Sequence[float | None]) -> bytes:
    """Encode a vector as raw little-endian float32.

    None is written as NaN: the model's feedback fills in that number.

    Raises:
        ValueError: If a number is NaN or beyond float32.
        TypeError: If the event is not a flat sequence of numbers.

    Example:
        >>> encode_float32([1.0, -2.0]).hex()
        '0000803f000000c0'
        >>> np.frombuffer(encode_float32([1.0, None]), "<f4")
        array([ 1., nan], dtype=float32)
    """
    if isinstance(event, Mapping):
        raise TypeError("codec float32 accepts a sequence of numbers, not members with names")
    with np.errstate(over="ignore"):  # too large becomes infinite, which is refused below
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
                raise ValueError(f"feature {name!r} is {element}, which JSON does not support")
