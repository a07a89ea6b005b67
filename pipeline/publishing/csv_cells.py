"""Parse cells and members: numbers, booleans, times.

Every function raises ValueError with one sentence that names the column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

#: A decimal number in any common form: `12`, `-1.5e3`, `.5`, `5.`, `+5`, `007`.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

#: Leading zeros indicate an identifier (a postal code, an account): `00012` is not 12.
_IDENTIFIER = re.compile(r"[+-]?0[0-9]")

#: Integers that JSON writers and readers keep exactly.
_INTEGERS = range(-(2**63), 2**64)

#: Python limits the length of integers that it parses.
_DIGITS_MAX = 4_000

#: 1980-01-01: earlier times that are integers are probably seconds or dates, not milliseconds.
EARLY_MS = 315_532_800_000

#: Length limit of a cell in an error message.
_SHOWN = 80


def cell_value(cell: str) -> int | float | str:
    """Parse a CSV cell without knowing its role.

    Example:
        >>> cell_value("12"), cell_value(".5"), cell_value("+5"), cell_value("-1.5e3")
        (12, 0.5, 5, -1500.0)
        >>> cell_value("00012"), cell_value("nan"), cell_value("rainy")
        ('00012', 'nan', 'rainy')

    Raises:
        ValueError: If it is a number that JSON can't keep exactly.
    """
    text = cell.strip()
    if not _NUMBER.fullmatch(text) or _IDENTIFIER.match(text):
        return cell
    number = _number(text)
    if isinstance(number, float) and text.lstrip("+-").isdigit():
        raise ValueError(integer_problem(text))
    return number


def integer_problem(text: str) -> str:
    """Describe the problem with an integer of more than 64 bits."""
    return (
        f"{_short(text)} is an integer of more than 64 bits, which a JSON number does not keep "
        "exactly: write it as text (in JSON, in quotes)"
    )


def is_exact(number: int) -> bool:
    """Return whether a JSON number keeps an integer exactly."""
    return number in _INTEGERS


def number_of(name: str, value: Any) -> Any:
    """Parse a number for a model, which uses float32.

    Returns:
        number: `value` unchanged if it is not text.

    Raises:
        ValueError: If text is not a number.

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
    is_integer = text.lstrip("+-").isdigit() and len(text) <= _DIGITS_MAX
    if is_integer and is_exact(integer := int(text)):
        return integer
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{_short(text)} is too large for a float")
    return number


def _short(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."


class Missing:
    """Recognizes cells and members without a value.

    Args:
        texts: Texts that mean no value; a number stands for all of its spellings.

    Example:
        >>> missing = Missing(["NA", "-999"])
        >>> [missing.has(value) for value in ("NA", " -999.0", -999.0, "-0999", [1], None)]
        [True, True, True, False, False, False]
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(text.strip() for text in texts)
        self._numbers = frozenset(filter(_is_number, map(_number_or_text, self._texts)))

    def has(self, value: Any) -> bool:
        """Return whether a cell, or a member in JSON, has no value."""
        if isinstance(value, str):
            text = value.strip()
            return text in self._texts or (
                bool(self._numbers) and _number_or_text(text) in self._numbers
            )
        return _is_number(value) and (value in self._numbers or str(value) in self._texts)


def _number_or_text(text: str) -> int | float | str:
    try:
        return cell_value(text)
    except ValueError:  # a number that is too large
        return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def flag_of(name: str, value: Any) -> bool:
    """Parse a boolean; spreadsheets write TRUE, pandas True.

    Raises:
        ValueError: If it is neither true, false nor missing.
    """
    word = value.strip().lower() if isinstance(value, str) else value
    if word is True or word == "true":
        return True
    if word is None or word is False or word in ("", "false"):
        return False
    raise ValueError(f"{name!r} is {value!r}, neither true nor false")


def mark_of(name: str, value: Any) -> bool | int:
    """Parse a mark of the sequence; False if it is not set.

    Raises:
        ValueError: If it is invalid.
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
    """Return whether a worker, or a person, would read a member of this name as a mark.

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
    """Parse an event time: milliseconds since 1970, or ISO 8601, in UTC if it has no time zone.

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


def is_early(value: Any, timestamp_ms: int) -> bool:
    """Return whether an event time is an integer that is probably not in milliseconds.

    Example:
        >>> is_early("1700000000", 1_700_000_000), is_early("1975-01-01", 157_766_400_000)
        (True, False)
    """
    return 0 < timestamp_ms < EARLY_MS and str(value).strip().isdecimal()
