"""What a cell or a member says: numbers, truth values, times.

Every function raises ValueError with one sentence that names the column.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

#: A decimal number in any usual form: `12`, `-1.5e3`, `.5`, `5.`, `+5`, `007`.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

#: Leading zeros mark an identifier (a postal code, an account): `00012` is not 12.
_IDENTIFIER = re.compile(r"[+-]?0[0-9]")

#: From here on JSON writers refuse integers.
_INTEGER_LIMIT = 2**63

#: Characters of a cell that an error shows.
_SHOWN = 80


def cell_value(cell: str) -> int | float | str:
    """Read a CSV cell without knowing what it is for.

    Example:
        >>> cell_value("12"), cell_value(".5"), cell_value("+5"), cell_value("-1.5e3")
        (12, 0.5, 5, -1500.0)
        >>> cell_value("00012"), cell_value("nan"), cell_value("rainy")
        ('00012', 'nan', 'rainy')
    """
    text = cell.strip()
    if not _NUMBER.fullmatch(text) or _IDENTIFIER.match(text):
        return cell
    return _number(text)


def number_of(name: str, value: Any) -> Any:
    """Read a number, knowing that it is one: a text that says one is converted.

    Returns:
        number: `value` itself if it is not a text.

    Raises:
        ValueError: If a text is not a number.

    Example:
        >>> number_of("load", " 007 "), number_of("load", "5."), number_of("load", 1.5)
        (7, 5.0, 1.5)
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{name!r} is {value[:_SHOWN]!r}, not a number")
    return _number(text)


def _number(text: str) -> int | float:
    is_short = len(text) <= len(str(-_INTEGER_LIMIT))  # Python reads no endless integers
    if is_short and text.lstrip("+-").isdigit() and abs(int(text)) < _INTEGER_LIMIT:
        return int(text)
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:_SHOWN]!r} is a number that no float holds")
    return number


def flag_of(name: str, value: Any) -> bool:
    """Read a truth value; spreadsheets write TRUE, pandas True.

    Raises:
        ValueError: If it is neither true nor false, nor missing.
    """
    word = value.strip().lower() if isinstance(value, str) else value
    if word is True or word == "true":
        return True
    if word is None or word is False or word in ("", "false"):
        return False
    raise ValueError(f"{name!r} is {value!r}, neither true nor false")


def mark_of(name: str, value: Any) -> bool | int:
    """Read a mark of the sequence; False if it isn't set.

    Raises:
        ValueError: If it can't be one.
    """
    if name != "steps_max":
        return flag_of(name, value)
    if isinstance(value, str) and value.strip():
        value = cell_value(value)
    if value is None or value == "":
        return False
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name!r} is {value!r}, not an integer of at least 1")
    return value


def is_like_mark(name: str, value: Any) -> bool:
    """Tell whether a worker, or a person, would take a member of this name for a mark.

    Example:
        >>> is_like_mark("end", "TRUE"), is_like_mark("end", "2024-05-01")
        (True, False)
    """
    if value is None or value == "":
        return False
    try:
        mark_of(name, value)
    except ValueError:
        return False
    return True


def timestamp_ms_of(name: str, value: Any) -> int:
    """Read an event time: milliseconds since 1970, or ISO 8601, UTC if it names no zone.

    Raises:
        ValueError: If it is neither.
    """
    text = "" if isinstance(value, bool) else str(value).strip()
    try:
        if text.removeprefix("-").isdecimal():
            return int(text)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{name!r} is {value!r}, neither milliseconds since 1970 nor an ISO 8601 date and time"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
