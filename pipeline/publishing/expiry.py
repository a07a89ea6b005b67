"""Find events that Kafka deletes soon after they are published, because of their timestamps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.engine.retention import limit_text
from livestep.pipeline.kafka.kafka_tools import alter_command

#: Keeps events of any age.
_KEEPING = {"retention.ms": "-1"}


class Expiry:
    """Counts sent events that are older than the topic's retention.

    Args:
        topic: Topic of the events.
        bootstrap_servers: Kafka brokers, for the command that is shown.
        settings: Settings of the topic, by Kafka's names; empty if unknown.
        say: Shows a warning.
        clock_ms: Returns the current time in milliseconds since 1970.
    """

    def __init__(
        self,
        topic: str,
        bootstrap_servers: str,
        settings: Mapping[str, str],
        say: Callable[[str], None],
        clock_ms: Callable[[], float] = lambda: time.time() * 1000,
    ) -> None:
        self._topic = topic
        self._bootstrap_servers = bootstrap_servers
        self._retention_ms = retention_ms_of(settings)
        self._say = say
        self._clock_ms = clock_ms
        self._sent_count = 0
        self._old_count = 0

    def note_sent(self, records: Sequence[EventRecord]) -> None:
        """Note sent events; warn about the first one that Kafka will delete."""
        self._sent_count += len(records)
        if self._retention_ms is None:
            return
        oldest_ms = self._clock_ms() - self._retention_ms
        for record in records:
            timestamp_ms = record.timestamp_ms
            if timestamp_ms is not None and timestamp_ms < oldest_ms:
                self._old_count += 1
                if self._old_count == 1:
                    self._warn(record.line, timestamp_ms)

    def _warn(self, line: int, timestamp_ms: int) -> None:
        self._say(
            f"line {line}: the time {_shown(timestamp_ms)} is older than the retention of "
            f"topic {self._topic!r} ({self._limit}). Kafka deletes events by their own "
            "timestamps: soon after they are published, and a worker may never see them. To "
            f"keep them: {alter_command(self._bootstrap_servers, self._topic, _KEEPING)}; or "
            "create a new topic: livestep topics create NEW --config retention.ms=-1"
        )

    def report(self) -> None:
        """Warn about the number of events that Kafka will delete, if any."""
        if self._old_count:
            self._say(
                f"{self._old_count:,} of {self._sent_count:,} sent events are older than the "
                f"retention of topic {self._topic!r} ({self._limit}): Kafka will delete them"
            )

    @property
    def _limit(self) -> str:
        return limit_text("retention.ms", str(self._retention_ms))


def retention_ms_of(settings: Mapping[str, str]) -> int | None:
    """Return the age at which a topic's events are deleted by their timestamps; None for never.

    Example:
        >>> retention_ms_of({"retention.ms": "1000", "cleanup.policy": "compact,delete"})
        1000
        >>> retention_ms_of({"retention.ms": "1000", "cleanup.policy": "compact"}) is None
        True
    """
    is_by_event_time = settings.get("message.timestamp.type", "CreateTime") == "CreateTime"
    is_deleting = "delete" in settings.get("cleanup.policy", "delete")
    retention_ms = int(settings.get("retention.ms", -1))
    return retention_ms if is_by_event_time and is_deleting and retention_ms >= 0 else None


def _shown(timestamp_ms: int) -> str:
    moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}Z"
