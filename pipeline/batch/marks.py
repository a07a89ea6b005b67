"""Marks: where sequences start and end, and how many steps to generate.

Marks are JSON members (`start`, `end`, `steps_max`) or record headers (`sequence`, `steps-max`);
headers work with any codec.  An event with `start` or `end` whose features are all absent or null
is a bare mark, which is not stepped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from livestep.pipeline.errors import DecodeError
from livestep.pipeline.records import SEQUENCE_HEADER, STEPS_MAX_HEADER

#: Bits of an event's marks.
START = 1  #: the key's state is reset before this event
END = 2  #: the key's sequence ends with this event
BARE = 4  #: the event has no features
FORGET = 8  #: a tombstone: the key's state is deleted, and there is no answer
GAP = 16  #: inserted before an event whose time ended a sequence by a session gap

#: An event with one of these is not stepped.
NOT_STEPPED = BARE | FORGET

#: After an event with one of these, the key has no open sequence.
CLOSING = END | FORGET

_BY_TEXT = {b"start": START, b"end": END, b"start,end": START | END}


def marks_of(headers: Sequence[tuple[str, Any]]) -> tuple[int, int]:
    """Parse the marks in a record's headers; the last header of a name counts.

    Returns:
        marks: Bits.
        steps_max: Requested number of steps; 0 if there is no such header.

    Raises:
        DecodeError: If one of these headers is invalid.

    Example:
        >>> marks_of([("sequence", b"end"), ("trace", b"7f")])
        (2, 0)
    """
    marks = steps_max = 0
    for name, value in headers:
        if name == SEQUENCE_HEADER:
            if value not in _BY_TEXT:
                raise DecodeError(
                    "bad-mark", f"header {name!r} is {value!r}, not start, end or start,end"
                )
            marks = _BY_TEXT[value]
        elif name == STEPS_MAX_HEADER:
            if not value or not value.isdigit() or len(value) > 9 or not int(value):
                detail = f"header {name!r} is {value!r}, not a number >= 1"
                raise DecodeError("bad-steps-max", detail)
            steps_max = int(value)
    return marks, steps_max
