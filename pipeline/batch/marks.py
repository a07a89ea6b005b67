"""Marks: what an event says of its key's sequence, beside its features.

They stand in JSON members (`start`, `end`, `steps_max`) or in the record's headers (`sequence`,
`steps-max`), which work with any codec.  An event with `start` or `end` whose features are all
absent or null is a bare mark, which is not stepped, whichever way the mark is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from livestep.pipeline.errors import DecodeError
from livestep.pipeline.records import SEQUENCE_HEADER, STEPS_MAX_HEADER

#: Bits of an event's marks.
START = 1  #: its key begins at zeros before it
END = 2  #: its sequence ends with it
BARE = 4  #: it has no features
FORGET = 8  #: a tombstone: its key is forgotten, nothing is answered
GAP = 16  #: stands before an event that came too late for the sequence before it

#: An event with one of these is not stepped.
NOT_STEPPED = BARE | FORGET

#: After an event with one of these nothing is open.
CLOSING = END | FORGET

_BY_TEXT = {b"start": START, b"end": END, b"start,end": START | END}


def marks_of(headers: Sequence[tuple[str, Any]]) -> tuple[int, int]:
    """Read the marks in a record's headers; the last header of a name counts.

    Returns:
        marks: Bits.
        steps_max: How many steps are asked for; 0 if the headers don't say.

    Raises:
        DecodeError: If a header of these names can't be read.

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
                raise DecodeError("bad-steps-max", f"header {name!r} is {value!r}, no number >= 1")
            steps_max = int(value)
    return marks, steps_max
