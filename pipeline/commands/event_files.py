"""Reading events from CSV and JSON lines: each line checked whole before its event is given out."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from models.rules import MARKS
from pipeline.errors import EngineError
from pipeline.records import key_bytes

#: What counts as a number in a CSV cell: JSON's numbers, so that `007`, `nan` and `+49` stay text.
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")

#: From here on JSON writers refuse integers.
_INTEGER_LIMIT = 2**63


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a file.

    Attributes:
        key: Whose.
        value: Its members, without the marks of the sequence.
        timestamp_ms: Event time; None if the file has none.
        line: Of the file, from 1; the last one if it takes several.
        marks: Those that are set, by name: `start`, `end`, `steps_max`.
        is_forget: Whether the key is to be forgotten; there is no value then, and no mark.
    """

    key: bytes
    value: dict[str, Any]
    timestamp_ms: int | None
    line: int
    marks: dict[str, Any] = field(default_factory=dict)
    is_forget: bool = False


@dataclass(frozen=True, slots=True)
class EventColumns:
    """Which columns (CSV) or members (JSON lines) mean what.

    Attributes:
        key: Column of the key; taken out of the value.
        timestamp: Column of the event time (milliseconds since 1970, or ISO 8601, UTC if it names
            no zone); taken out of the value. None for the time of publishing.
        values: Columns of the value, in this order; empty for all others.
        forget: Column that says by `true` that the key is to be forgotten; taken out of the value.
    """

    key: str
    timestamp: str | None = None
    values: tuple[str, ...] = ()
    forget: str | None = None

    @property
    def marks(self) -> tuple[str, ...]:
        """Columns that are marks of the sequence: by their names, if they mean nothing else."""
        others = (self.key, self.timestamp, self.forget, *self.values)
        return tuple(mark for mark in MARKS if mark not in others)


class LineError(EngineError):
    """Raised if a line can't be read; nothing of that line was given out.

    Args:
        name: Of the file.
        line: From 1.
        problem: One sentence without its full stop.
    """

    def __init__(self, name: str, line: int, problem: str) -> None:
        super().__init__(f"{name}, line {line}: {problem}")


def read_csv(lines: Iterable[bytes], columns: EventColumns, name: str) -> Iterator[Event]:
    """Read events from CSV with a header line.

    A cell that is a number becomes one, an empty cell is left out. Columns `start`, `end` and
    `steps_max` are marks of the sequence (see `EventColumns.marks`).

    Args:
        lines: Of the file, UTF-8.
        columns: What they mean.
        name: Of the file, for errors.

    Raises:
        LineError: If a line can't be read.
    """
    rows = csv.reader(_text(lines, name), strict=True)
    header = _row(rows, name)
    if header is None:
        raise LineError(name, 1, "the file is empty; its first line should name the columns")
    _check_header(header, columns, name)
    while (row := _row(rows, name)) is not None:
        if not row:
            continue
        if len(row) != len(header):
            problem = f"{len(row)} cells, but the header has {len(header)} columns"
            raise LineError(name, rows.line_num, problem)
        cells = {column: cell for column, cell in zip(header, row, strict=True) if cell.strip()}
        yield _event(cells, columns, name, rows.line_num, _cell_value)


def read_json_lines(lines: Iterable[bytes], columns: EventColumns, name: str) -> Iterator[Event]:
    """Read events from lines of JSON objects; empty lines are skipped.

    Members `start`, `end` and `steps_max` are marks of the sequence (see `EventColumns.marks`).

    Args:
        lines: Of the file.
        columns: What the members mean.
        name: Of the file, for errors.

    Raises:
        LineError: If a line can't be read.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            members = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise LineError(name, number, f"no JSON: {error}") from None
        if not isinstance(members, dict):
            raise LineError(name, number, f"a {type(members).__name__}, not a JSON object")
        yield _event(members, columns, name, number, _same)


def _event(
    members: Mapping[str, Any],
    columns: EventColumns,
    name: str,
    line: int,
    convert: Any,
) -> Event:
    key = members.get(columns.key)
    if not isinstance(key, str | int) or isinstance(key, bool) or key == "":
        raise LineError(name, line, f"no key in {columns.key!r}: it is {key!r}")
    timestamp_ms = None
    if columns.timestamp is not None:
        timestamp_ms = _timestamp_ms(members.get(columns.timestamp), columns, name, line)
    taken_out = (columns.key, columns.timestamp, columns.forget, *columns.marks)
    wanted = columns.values or [column for column in members if column not in taken_out]
    try:
        value = {column: convert(members[column]) for column in wanted if column in members}
        event = Event(key_bytes(str(key)), value, timestamp_ms, line)
        for mark in columns.marks:
            if mark in members and (set_to := _mark(mark, convert(members[mark]))):
                event.marks[mark] = set_to
        forget = columns.forget
        if forget is not None and _flag(forget, convert(members.get(forget, ""))):
            return _forget(event)
    except ValueError as error:
        raise LineError(name, line, str(error)) from None
    return event


def _mark(name: str, value: Any) -> bool | int:
    """Read a mark; False if it isn't set."""
    if name != "steps_max":
        return _flag(name, value)
    if value is None:
        return False
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name!r} is {value!r}, not an integer of at least 1")
    return value


def _flag(name: str, value: Any) -> bool:
    """Read a truth value; spreadsheets write TRUE, pandas True."""
    word = value.strip().lower() if isinstance(value, str) else value
    if word is True or word == "true":
        return True
    if word is None or word is False or word in ("", "false"):
        return False
    raise ValueError(f"{name!r} is {value!r}, neither true nor false")


def _forget(event: Event) -> Event:
    if event.value or event.marks:
        raise ValueError(
            "a key is forgotten by a line that has nothing but the key and its time, this one has "
            + ", ".join([*event.value, *event.marks])
        )
    return replace(event, is_forget=True)


def _timestamp_ms(value: Any, columns: EventColumns, name: str, line: int) -> int:
    text = str(value).strip()
    try:
        if isinstance(value, int) or text.isdecimal():
            return int(value)
        moment = datetime.fromisoformat(text)
    except ValueError:
        problem = (
            f"{columns.timestamp!r} is {value!r}, "
            "neither milliseconds since 1970 nor an ISO 8601 date and time"
        )
        raise LineError(name, line, problem) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _text(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Decode line by line, so that a bad one has a number."""
    for number, line in enumerate(lines, start=1):
        try:
            # Spreadsheets put a byte order mark at the beginning.
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise LineError(name, number, "not UTF-8") from None


def _row(rows: Any, name: str) -> list[str] | None:
    """Take the next row; None at the end."""
    try:
        return next(rows, None)
    except csv.Error as error:
        raise LineError(name, rows.line_num, f"no CSV: {error}") from None


def _check_header(header: Sequence[str], columns: EventColumns, name: str) -> None:
    if len(set(header)) < len(header):
        raise LineError(name, 1, f"a column stands there twice: {', '.join(header)}")
    for column in (columns.key, columns.timestamp, columns.forget, *columns.values):
        if column is not None and column not in header:
            problem = f"there is no column {column!r}, only {', '.join(header)}"
            raise LineError(name, 1, problem)


def _cell_value(cell: str) -> int | float | str:
    """Read a CSV cell.

    Example:
        >>> _cell_value("12"), _cell_value("-1.5e3"), _cell_value("007"), _cell_value("rainy")
        (12, -1500.0, '007', 'rainy')
    """
    text = cell.strip()
    if not _NUMBER.fullmatch(text):
        return cell
    is_short = len(text) <= len(str(-_INTEGER_LIMIT))  # Python reads no endless integers
    if is_short and text.lstrip("-").isdigit() and abs(int(text)) < _INTEGER_LIMIT:
        return int(text)
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:80]!r} is a number that no float holds")
    return number


def _same(value: Any) -> Any:
    return value
