"""What the headers of a batch's records mean: marks, requested steps, and errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from livestep.pipeline.batch.marks import marks_of
from livestep.pipeline.columns.log_records import HeadersOrError
from livestep.pipeline.errors import DecodeError


@dataclass(slots=True)
class EventHeaders:
    """The headers of the few records that have some; each attribute is by index of the record.

    Attributes:
        marks: START and END.
        steps_max: Requested number of steps.
        errors: Why headers are invalid.
    """

    marks: dict[int, int] = field(default_factory=dict)
    steps_max: dict[int, int] = field(default_factory=dict)
    errors: dict[int, DecodeError] = field(default_factory=dict)


def read_headers(headers: Mapping[int, HeadersOrError], steps_limit: int) -> EventHeaders:
    """Parse the headers of a batch.

    Args:
        headers: `Records.headers`.
        steps_limit: `Codec.steps_limit`.

    Example:
        >>> found = read_headers({3: [("sequence", b"end")], 5: [("steps-max", b"9")]}, 4)
        >>> found.marks, found.errors[5].detail
        ({3: 2}, '9 steps; the limit is 4')
    """
    found = EventHeaders()
    for event, one in headers.items():
        try:
            if isinstance(one, str):
                raise DecodeError("bad-header", one)
            marks, steps_max = marks_of(one)
            _check_steps(steps_max, steps_limit)
        except DecodeError as error:
            found.errors[event] = error
            continue
        if marks:
            found.marks[event] = marks
        if steps_max:
            found.steps_max[event] = steps_max
    return found


def _check_steps(steps_max: int, limit: int) -> None:
    if steps_max > limit:
        detail = f"{steps_max} steps; the limit is {limit}"
        if not limit:
            detail = "this model does not generate sequences"
        raise DecodeError("bad-steps-max", detail)
