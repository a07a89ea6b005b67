"""Convert lines of JSON to records: plain lines in a tight loop, all others as rows.

A line is plain if nothing in it needs a second look: one key, numbers that JSON keeps, no mark. It
becomes the same record as it would as a row; `RowConverter` also finds what is wrong with the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from orjson import JSONDecodeError, loads

from livestep.models.sequences.rules import MARKS
from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.publishing.columns import (
    BATCH_ROWS,
    BadRow,
    Batch,
    EventColumns,
    RowConverter,
)
from livestep.pipeline.publishing.csv_cells import timestamp_ms_of
from livestep.pipeline.publishing.files import BYTE_ORDER_MARK, Row, json_row
from livestep.pipeline.publishing.json_lines import has_all_members, has_long_integer
from livestep.pipeline.publishing.limits import TopicLimits
from livestep.pipeline.publishing.values import Values
from livestep.pipeline.records import key_bytes


class JsonRecords:
    """Converts the lines of a file of JSON Lines to records.

    Args:
        columns: Roles of the members.
        values: Encodes the value.
        limits: Limits of the topic.
        is_first_event: Checks the first event: raises LineError if it lacks a chosen member, and
            returns False for a row that is not an event.
    """

    def __init__(
        self,
        columns: EventColumns,
        values: Values,
        limits: TopicLimits,
        is_first_event: Callable[[Row], bool] = lambda row: True,
    ) -> None:
        self._columns = columns
        self._limits = limits
        self._value = values.plain
        self._bytes_max = limits.sure_bytes
        self._timestamp = columns.timestamp
        self._key_name = columns.key[0] if columns.key else None
        self._converter = RowConverter(columns, values, limits.check)
        self._is_first_event = is_first_event
        self._is_checked = False
        self._key = None if columns.fixed_key is None else key_bytes(columns.fixed_key)
        self._number = self._line = 0
        #: Members that may be marks; those with another role are not sent.
        self._marks = frozenset(MARKS) - (frozenset(columns.named) - frozenset(columns.values))
        self._may_be_plain = False

    def batches(self, blocks: Iterable[list[bytes]]) -> Iterator[Batch]:
        """Convert lines, in blocks, to records; empty lines are skipped.

        Yields:
            batch: Records, and bad rows with the reason, in order.
        """
        for block in blocks:
            for start in range(0, len(block), BATCH_ROWS):
                yield self._batch(block[start : start + BATCH_ROWS])

    def _batch(self, lines: list[bytes]) -> Batch:
        plain = self._plain
        is_exact = not has_long_integer(b"".join(lines))
        times_ms = self._limits.sure_times_ms()
        batch: list[EventRecord | BadRow] = []
        for line in lines:
            self._line += 1
            record: EventRecord | BadRow | None = None
            if self._may_be_plain and (is_exact or not has_long_integer(line)):
                record = plain(line, times_ms)
            if record is None:
                record = self._row(line)
            if record is not None:
                self._number += 1
                batch.append(record)
        return batch

    def _row(self, line: bytes) -> EventRecord | BadRow | None:
        """Convert a line with all checks; None for an empty line."""
        if self._line == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        row = json_row(self._number + 1, self._line, line)
        if row is None:
            return None
        if not self._is_checked and self._is_first_event(row):
            self._is_checked = True
            columns = self._columns
            is_special = len(columns.key) > 1 or columns.forget is not None or columns.missing
            self._may_be_plain = not is_special
        return self._converter.record_of(row)

    def _plain(self, line: bytes, times_ms: tuple[int, int]) -> EventRecord | None:
        """Convert a line without long integers if it is plain."""
        try:
            members = loads(line)
            if type(members) is not dict or not (
                line.count(b":") == len(members) or has_all_members(line, members)
            ):
                return None
        except (JSONDecodeError, RecursionError):
            return None
        if not self._marks.isdisjoint(members):
            return None
        timestamp_ms = None
        if self._timestamp is not None:
            timestamp_ms = self._time_ms(members, times_ms)
            if timestamp_ms is None:
                return None
        key = self._key
        if key is None:
            part = members.get(self._key_name) if self._key_name is not None else self._number + 1
            if type(part) is str and part:
                key = part.encode()
            elif type(part) is int:
                key = b"%d" % part
            else:
                return None
        value = self._value(members)
        if value is None or len(key) + len(value) > self._bytes_max:
            return None
        return EventRecord(self._number + 1, self._line, key, value, timestamp_ms)

    def _time_ms(self, members: dict[str, Any], times_ms: tuple[int, int]) -> int | None:
        """Return the event time if it is certainly right."""
        assert self._timestamp is not None
        time = members.get(self._timestamp)
        try:
            time_ms = time if type(time) is int else timestamp_ms_of(self._timestamp, time)
        except ValueError:
            return None
        return time_ms if times_ms[0] <= time_ms <= times_ms[1] else None
