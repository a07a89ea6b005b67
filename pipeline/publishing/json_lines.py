"""One line of JSON, exactly as it is written: no integer is rounded, no member hides another.

orjson reads fast, but makes floats of integers beyond 64 bits, and of two members with one name
it keeps the last. Both are rare; what shows that a line may have them costs little, and only such
a line is read again with care.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

#: All digits look alike to the search for long ones.
_ZEROS = bytes.maketrans(b"123456789", b"000000000")

#: Integers with fewer digits have 64 bits.
_LONG = b"0" * 19

_CONTAINERS = (dict, list)

_WHITESPACE = b" \t\r\n"


def read_object(line: bytes) -> dict[str, Any]:
    """Read a line that holds one JSON object.

    Returns:
        members: Integers of any size are exact.

    Raises:
        ValueError: If it is not JSON or not an object, or has two members with one name.
    """
    try:
        members = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"invalid JSON: {error}") from None
    if not isinstance(members, dict):
        raise ValueError(f"a {type(members).__name__}, not a JSON object")
    try:
        # Each member has a colon, so as many colons as members means that none is hidden.
        is_whole = line.count(b":") == len(members) or _has_all(line, members)
        if is_whole and _LONG not in line.translate(_ZEROS):
            return members
        exact: dict[str, Any] = json.loads(line, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return exact


def _has_all(line: bytes, members: dict[str, Any]) -> bool:
    """Tell whether a line surely has no more members than were read, with colons in texts too."""
    return line.translate(None, _WHITESPACE).count(b'":') == _member_count(members)


def _member_count(container: Any) -> int:
    is_object = isinstance(container, dict)
    count = len(container) if is_object else 0
    for value in container.values() if is_object else container:
        if isinstance(value, _CONTAINERS):
            count += _member_count(value)
    return count


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in members if names.count(name) > 1)
        raise ValueError(f"two members have one name: {twice!r}")
    return members
