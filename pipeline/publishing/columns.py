"""Convert a row to a record: the roles of columns, and what is sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from livestep.models.sequences.rules import MARKS
from livestep.pipeline.clients.event_encoding import mark_headers
from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.publishing.csv_cells import (
    Missing,
    flag_of,
    is_early,
    is_like_mark,
    mark_of,
    timestamp_ms_of,
)
from livestep.pipeline.publishing.files import LineError, Lines, Row
from livestep.pipeline.publishing.values import Values
from livestep.pipeline.records import key_bytes, key_text


@dataclass(frozen=True, slots=True)
class EventColumns:
    """The roles of columns (CSV) or members (JSON Lines), other than those of the value.

    Attributes:
        key: Columns of the key, joined by `key_separator`; empty if `fixed_key` or the row number
            is the key.
        key_separator: Not allowed within a part: two different keys could become equal.
        fixed_key: The key of every event.
        timestamp: Column of the event time; None for the time of publishing.
        forget: Column that is `true` if the key is to be forgotten.
        has_marks: Whether columns `start`, `end` and `steps_max` are marks of the sequence, unless
            they have another role here.
        values: Columns chosen for the value; empty for the default.
        missing: Texts of cells without a value, in addition to the empty one; a number stands for
            all of its spellings.
    """

    key: tuple[str, ...] = ()
    key_separator: str = "/"
    fixed_key: str | None = None
    timestamp: str | None = None
    forget: str | None = None
    has_marks: bool = False
    values: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        """Columns that are marks of the sequence."""
        if not self.has_marks:
            return ()
        return tuple(mark for mark in MARKS if mark not in {*self.named, *self.values})

    @property
    def named(self) -> tuple[str, ...]:
        """Columns that options name, except those of the value."""
        others = (self.timestamp, self.forget)
        return (*self.key, *(column for column in others if column is not None))

    @property
    def taken_out(self) -> frozenset[str]:
        """Columns that are not in the value unless they were chosen for it."""
        return frozenset({*self.named, *self.marks})

    def check_header(self, columns: Sequence[str], name: str, line: int = 1) -> None:
        """Check that a CSV file has the columns.

        Raises:
            LineError: If one is missing.
        """
        for column in (*self.named, *self.values):
            if column not in columns:
                raise missing_column(column, columns, name, line)

    def check_first_event(self, row: Row, name: str, optional: Collection[str] = ()) -> bool:
        """Check that the first event of a file of JSON Lines has the chosen members.

        Args:
            row: A row of the file.
            name: Name of the file.
            optional: Members that may be missing.

        Returns:
            is_event: Whether the row is an event; rows with marks only are not.

        Raises:
            LineError: If it lacks one, as a CSV header might.
        """
        bare = (*self.marks, *(() if self.forget is None else (self.forget,)))
        if not row.members or any(map(row.members.get, bare)):
            return False
        for member in self.values:
            if member not in row.members and member not in optional:
                raise LineError(
                    name,
                    row.line,
                    f"member {member!r} is missing; the first event has {', '.join(row.members)}",
                )
        return True


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that can't be sent.

    Attributes:
        number: Row number, from 1.
        line: Line number in the file.
        key: Key of the row, as text; None if unknown.
        reason: One sentence.
    """

    number: int
    line: int
    key: str | None
    reason: str


#: Rows that are converted and sent at once; a signal waits for so many.
BATCH_ROWS = 2_000

#: Consecutive rows, which are converted and sent at once.
Batch = Sequence[EventRecord | BadRow]


def missing_column(
    column: str, columns: Sequence[str], name: str, line: int, what: str = ""
) -> LineError:
    """Create the error for a column that a CSV file lacks."""
    return LineError(
        name, line, f"column {column!r}{what} is missing; the file has {', '.join(columns)}"
    )


class RowConverter:
    """Converts rows to records.

    Args:
        columns: Roles of the columns.
        values: Encodes the value.
        check: Raises ValueError for a record that can't be sent.
    """

    def __init__(
        self,
        columns: EventColumns,
        values: Values,
        check: Callable[[EventRecord], None] = lambda record: None,
    ) -> None:
        self._columns = columns
        self._values = values
        self._check = check
        self._missing = Missing(columns.missing) if columns.missing else None

    def record_of(self, row: Row) -> EventRecord | BadRow:
        """Convert a row to a record, or to a bad row with the reason."""
        if row.problem:
            return BadRow(row.number, row.line, None, row.problem)
        key: bytes | None = None
        try:
            members = row.members if self._missing is None else _without(self._missing, row.members)
            key = _key(row.number, members, self._columns)
            record = _record(row, key, members, self._columns, self._values)
            self._check(record)
        except ValueError as error:
            known = None if key is None else key_text(key)
            return BadRow(row.number, row.line, known, str(error))
        return record


def csv_batches(rows: Iterable[Row], lines: Lines, converter: RowConverter) -> Iterator[Batch]:
    """Convert rows in batches, so that none waits for lines that can't be read yet.

    Args:
        rows: Rows of a file.
        lines: The lines that they are read from.
        converter: Converts a row.
    """
    batch: list[EventRecord | BadRow] = []
    for row in rows:
        batch.append(converter.record_of(row))
        if not lines.left_count or len(batch) >= BATCH_ROWS:
            yield batch
            batch = []
    yield batch


def with_ends(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Pass on records, then end the sequence of each key that is still open."""
    number = 0
    open_keys: dict[bytes, tuple[int, int | None]] = {}  # line and time of the last event
    for batch in batches:
        for record in batch:
            number = record.number
            if isinstance(record, EventRecord):
                # Move the key to the end: sequences are ended in the order of their last events.
                open_keys.pop(record.key, None)
                if not record.is_closing:
                    open_keys[record.key] = record.line, record.timestamp_ms
        yield batch
    yield [
        EventRecord(place, line, key, b"", timestamp_ms, mark_headers(end=True), True)
        for place, (key, (line, timestamp_ms)) in enumerate(open_keys.items(), start=number + 1)
    ]


def _without(missing: Missing, members: Mapping[str, Any]) -> Mapping[str, Any]:
    """Drop members without a value; null in JSON remains."""
    return {column: value for column, value in members.items() if not missing.has(value)}


def _key(number: int, members: Mapping[str, Any], columns: EventColumns) -> bytes:
    if columns.fixed_key is not None:
        return key_bytes(columns.fixed_key)
    if not columns.key:
        return b"%d" % number
    parts = []
    for column in columns.key:
        part = members.get(column)
        if not isinstance(part, str | int) or isinstance(part, bool) or part == "":
            raise ValueError(f"invalid key in {column!r}: {part!r}")
        if len(columns.key) > 1 and columns.key_separator in str(part):
            raise ValueError(
                f"{column!r} is {part!r}, which contains the key separator "
                f"{columns.key_separator!r}: choose another with --key-separator"
            )
        parts.append(str(part))
    return key_bytes(columns.key_separator.join(parts))


def _record(
    row: Row, key: bytes, members: Mapping[str, Any], columns: EventColumns, values: Values
) -> EventRecord:
    timestamp_ms, is_doubtful = None, False
    if columns.timestamp is not None:
        time = members.get(columns.timestamp)
        timestamp_ms = timestamp_ms_of(columns.timestamp, time)
        is_doubtful = is_early(time, timestamp_ms)
    if values.is_json:
        _refuse_marks_unasked(members, columns)
    features = values.features(members)
    marks: dict[str, Any] = {}
    for name in columns.marks:
        if name in members and (set_to := mark_of(name, members[name])):
            marks[name] = set_to
    forget = columns.forget
    if forget is not None and flag_of(forget, members.get(forget)):
        others = [name for name in (*features, *marks) if name not in columns.named]
        if others:
            raise ValueError(
                "a row that forgets a key may have only the key and its time, but this one has "
                f"{', '.join(others)}"
            )
        return EventRecord(row.number, row.line, key, None, timestamp_ms, (), True, is_doubtful)
    is_bare = all(value is None for value in features.values()) and (
        "start" in marks or "end" in marks
    )
    value = b"" if is_bare else values.encode(features, marks.get("steps_max"), row.members)
    headers = mark_headers(**marks) or ()
    is_closing = "end" in marks
    return EventRecord(
        row.number, row.line, key, value, timestamp_ms, headers, is_closing, is_doubtful
    )


def _refuse_marks_unasked(members: Mapping[str, Any], columns: EventColumns) -> None:
    """Refuse a member that would act as a mark without --marks.

    A date in a column `end` is an ordinary value; `true` there would end a sequence.
    """
    for name in MARKS:
        is_sent = name in columns.values if columns.values else name not in columns.taken_out
        if is_sent and is_like_mark(name, members.get(name)):
            raise ValueError(
                f"{name!r} is {members[name]!r}, which would act as a mark of the sequence: use "
                "--marks to send it as one, or --columns to choose the columns of the value"
            )
