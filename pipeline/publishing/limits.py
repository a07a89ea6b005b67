"""Find what the broker would refuse, before anything is sent."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.publishing.csv_cells import EARLY_MS

#: Bytes of a batch in addition to its records (message format 2).
BATCH_OVERHEAD_BYTES = 61

#: Bytes of a record in addition to its key and value: the length of each as a varint.
_RECORD_OVERHEAD_BYTES_MAX = 64

_MINUTE_MS = 60_000

#: Kafka's default for `max.message.bytes`.
DEFAULT_MAX_MESSAGE_BYTES = 1_048_588

#: The value that means "no limit" to a broker, and the latest timestamp of Kafka.
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """Limits of a topic.

    Attributes:
        max_message_bytes: `max.message.bytes`, for a whole batch; None if unknown, or if
            compression makes the size of batches unpredictable.
        after_max_ms: `message.timestamp.after.max.ms`; None for no limit.
        before_max_ms: `message.timestamp.before.max.ms`; None for no limit.
        clock_ms: Returns the current time in milliseconds since 1970.
    """

    max_message_bytes: int | None = None
    after_max_ms: int | None = None
    before_max_ms: int | None = None
    clock_ms: Callable[[], float] = lambda: time.time() * 1000

    @classmethod
    def of(cls, settings: Mapping[str, str], *, is_compressed: bool = False) -> TopicLimits:
        """Read the limits from a topic's settings; older brokers lack some of them.

        Args:
            settings: Settings of the topic, by Kafka's names.
            is_compressed: Whether batches are sent compressed.
        """
        is_own_time = settings.get("message.timestamp.type", "CreateTime") == "CreateTime"

        def limit(name: str) -> int | None:
            value = int(settings.get(name, _INT64_MAX))
            return value if is_own_time and value < _INT64_MAX else None

        return cls(
            None if is_compressed else int(settings["max.message.bytes"]),
            limit("message.timestamp.after.max.ms"),
            limit("message.timestamp.before.max.ms"),
        )

    @property
    def sure_bytes(self) -> int:
        """Bytes of key and value that a record without headers may certainly have."""
        if self.max_message_bytes is None:
            return sys.maxsize
        return self.max_message_bytes - BATCH_OVERHEAD_BYTES - _RECORD_OVERHEAD_BYTES_MAX

    def sure_times_ms(self) -> tuple[int, int]:
        """Return the first and the last event time that are certainly right, at present."""
        clock_ms = int(self.clock_ms())
        before_max_ms = self.before_max_ms
        earliest_ms = EARLY_MS if before_max_ms is None else clock_ms - before_max_ms + _MINUTE_MS
        after_max_ms = self.after_max_ms
        latest_ms = _INT64_MAX if after_max_ms is None else clock_ms + after_max_ms
        return max(earliest_ms, EARLY_MS), latest_ms

    def check(self, record: EventRecord) -> None:
        """Check one record.

        Raises:
            ValueError: If the broker would refuse it; names the setting.
        """
        if record.timestamp_ms is not None:
            self._check_timestamp(record.timestamp_ms)
        size = batch_bytes(record)
        if self.max_message_bytes is not None and size > self.max_message_bytes:
            raise ValueError(
                f"the record has {size:,} bytes, but the topic's max.message.bytes is "
                f"{self.max_message_bytes:,}"
            )

    def _check_timestamp(self, timestamp_ms: int) -> None:
        if timestamp_ms <= 0:
            raise ValueError(
                f"the timestamp is {timestamp_ms}: Kafka needs times after 1970-01-01T00:00:00Z"
            )
        shown = shown_time(timestamp_ms)
        if timestamp_ms > _INT64_MAX:
            raise ValueError(f"the timestamp {shown} has more than 64 bits")
        ahead_ms = timestamp_ms - self.clock_ms()
        if self.after_max_ms is not None and ahead_ms > self.after_max_ms:
            raise ValueError(
                f"the timestamp {shown} is in the future: the topic's "
                f"message.timestamp.after.max.ms is {self.after_max_ms:,} (is it in milliseconds?)"
            )
        if self.before_max_ms is not None and -ahead_ms > self.before_max_ms:
            raise ValueError(
                f"the timestamp {shown} is too old: the topic's "
                f"message.timestamp.before.max.ms is {self.before_max_ms:,}"
            )


def batch_bytes(record: EventRecord) -> int:
    """Return the size in bytes of an uncompressed batch with one record.

    Source: https://kafka.apache.org/documentation/#messageformat
    """
    body = 1 + 1 + 1 + _field_bytes(record.key) + _field_bytes(record.value)
    body += _varint_bytes(len(record.headers))
    for name, value in record.headers:
        body += _field_bytes(name.encode()) + _field_bytes(value)
    return BATCH_OVERHEAD_BYTES + _varint_bytes(body) + body


def _field_bytes(field: bytes | None) -> int:
    if field is None:
        return 1
    return _varint_bytes(len(field)) + len(field)


def _varint_bytes(number: int) -> int:
    """Return the size in bytes of a zigzag varint; numbers here are not negative."""
    return max((2 * number).bit_length() + 6, 7) // 7


def shown_time(timestamp_ms: int) -> str:
    """Format an event time as a number and as a date."""
    try:
        moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(timestamp_ms)
    return f"{timestamp_ms} ({moment.isoformat(timespec='seconds')})"
