"""Parse one line of JSON exactly: no integer is rounded, and no member hides another.

orjson is fast, but converts integers of more than 64 bits to floats, and keeps the last of two
members with the same name. Both are rare: a cheap test finds lines that may have them, and only
those are parsed again with care.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

#: Maps all digits to 0, to search for long integers.
_ZEROS = bytes.maketrans(b"123456789", b"000000000")

#: Integers with fewer digits have 64 bits.
_LONG = b"0" * 19

_CONTAINERS = (dict, list)

_WHITESPACE = b" \t\r\n"


def has_long_integer(text: bytes) -> bool:
    """Return whether a text may have an integer of more than 64 bits."""
    return _LONG in text.translate(_ZEROS)


def read_object(line: bytes) -> dict[str, Any]:
    """Parse a line that contains one JSON object.

    Returns:
        members: Integers of any size are exact.

    Raises:
        ValueError: If it is not a JSON object, or has two members with the same name.
    """
    try:
        members = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"invalid JSON: {error}") from None
    if not isinstance(members, dict):
        raise ValueError(f"a {type(members).__name__}, not a JSON object")
    try:
        # Each member has a colon: with as many colons as members, none is hidden.
        is_whole = line.count(b":") == len(members) or has_all_members(line, members)
        if is_whole and not has_long_integer(line):
            return members
        exact: dict[str, Any] = json.loads(line, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return exact


def has_all_members(line: bytes, members: dict[str, Any]) -> bool:
    """Return whether a line certainly has no other members, even with colons in its texts."""
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
        raise ValueError(f"two members have the same name: {twice!r}")
    return members
