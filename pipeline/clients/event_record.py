"""An event as a record to send."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class EventRecord(msgspec.Struct, frozen=True, gc=False):
    """One record to send.

    Attributes:
        number: Its number in a publish, from 1: a row of a file; ends after the last row continue
            the count.
        line: Line number in the file.
        key: Key of the event.
        value: None for a key to be forgotten; empty for marks only.
        timestamp_ms: Event time; None for the time of sending.
        headers: Marks.
        is_closing: Whether the key has no open sequence after it.
        is_time_doubtful: Whether the event time is probably not in milliseconds.
    """

    number: int
    line: int
    key: bytes
    value: bytes | None
    timestamp_ms: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()
    is_closing: bool = False
    is_time_doubtful: bool = False
