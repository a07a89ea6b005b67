"""Events that Kafka deletes soon after they are published, since it goes by their own times."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from livestep.pipeline.engine.retention import limit_text
from livestep.pipeline.kafka.kafka_tools import alter_command

#: Keeps events of any age.
_KEEPING = {"retention.ms": "-1"}


class Expiry:
    """Counts the events sent that are older than their topic keeps them.

    Args:
        topic: Where to.
        bootstrap_servers: Of its brokers, for the command that is shown.
        settings: Of the topic, by Kafka's names; none if they are not known.
        say: Takes what the user should know.
        clock_ms: The time now, milliseconds since 1970.
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

    def note_sent(self, line: int, timestamp_ms: int | None) -> None:
        """Note an event that is sent; the first one that will vanish is named.

        Args:
            line: Of the file.
            timestamp_ms: Its event time; None for the time of sending.
        """
        self._sent_count += 1
        if timestamp_ms is None or self._retention_ms is None:
            return
        if self._clock_ms() - timestamp_ms <= self._retention_ms:
            return
        self._old_count += 1
        if self._old_count == 1:
            self._say(
                f"line {line}: the time {_shown(timestamp_ms)} is older than topic {self._topic!r} "
                f"keeps events ({self._limit}). Kafka deletes by the events' own times, soon after "
                f"they are published, and a worker may never see them. "
                f"{alter_command(self._bootstrap_servers, self._topic, _KEEPING)} keeps them; so "
                "does a new topic: livestep topics create NEW --config retention.ms=-1"
            )

    def report(self) -> None:
        """Say how many of the events sent will vanish, if any."""
        if self._old_count:
            self._say(
                f"{self._old_count:,} of the {self._sent_count:,} events sent are older than topic "
                f"{self._topic!r} keeps them ({self._limit}): they will vanish"
            )

    @property
    def _limit(self) -> str:
        return limit_text("retention.ms", str(self._retention_ms))


def retention_ms_of(settings: Mapping[str, str]) -> int | None:
    """Give the age at which a topic's events are deleted by their own times; None for never.

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
