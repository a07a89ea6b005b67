"""What retention has deleted from the beginning of a log, described for an operator."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from livestep.pipeline.engine.log import Log
from livestep.pipeline.engine.recovery import Decision, Situation
from livestep.pipeline.errors import BrokerError
from livestep.pipeline.settings import Settings

_log = logging.getLogger("livestep.engine")

#: Settings of a topic that let Kafka delete records.
RETENTION_SETTINGS = ("retention.ms", "retention.bytes")

_UNLIMITED = "-1"
_DAY_MS = 24 * 3600 * 1000

#: Partitions that the text names.
_PARTITIONS_NAMED_MAX = 5


def compaction_warning(topic: str, policy: str) -> str | None:
    """Describe what a compacted input topic costs, and how to avoid it.

    Args:
        topic: Its name.
        policy: Its `cleanup.policy`.

    Returns:
        text: None if the topic is not compacted.

    Example:
        >>> compaction_warning("readings", "delete") is None
        True
    """
    if "compact" not in policy.split(","):
        return None
    return (
        f"topic {topic} is compacted (cleanup.policy={policy}): should Redis lose states, a replay "
        "could not bring back what compaction has removed, and nothing would show that it is "
        "missing; set cleanup.policy=delete"
    )


def retention_of(topic: str, read: Callable[[str, str], str]) -> dict[str, str]:
    """Read a topic's `RETENTION_SETTINGS`; none if this client may not, which is logged.

    Args:
        topic: Its name.
        read: Returns one setting of a topic, such as `Log.topic_setting`.
    """
    try:
        return {name: read(topic, name) for name in RETENTION_SETTINGS}
    except BrokerError as error:
        _log.warning("the retention of topic %s is not known: %s", topic, error)
        return {}


class Beginnings:
    """Warns once of all partitions that a first run finds without their first records.

    Args:
        settings: Topic, and whether the beginning is wanted at all.
        log: Returns the topic's settings.
    """

    def __init__(self, settings: Settings, log: Log) -> None:
        self._topic = settings.input_topic
        self._is_wanted = settings.auto_offset_reset == "earliest"
        self._log = log
        self._bounds: dict[int, tuple[int, int]] = {}

    def note(self, situation: Situation, decision: Decision) -> None:
        """Note a partition that is taken over."""
        if decision.is_first_run and self._is_wanted and situation.log_start > 0:
            self._bounds[situation.partition] = (situation.log_start, situation.log_end)

    def warn(self) -> None:
        """Log what `missing_beginning` reports for the partitions since the last warning."""
        if self._bounds:
            settings = retention_of(self._topic, self._log.topic_setting)
            _log.warning("%s", missing_beginning(self._topic, self._bounds, settings))
            self._bounds = {}


def missing_beginning(
    topic: str, bounds: Mapping[int, tuple[int, int]], settings: Mapping[str, str]
) -> str | None:
    """Describe which first records a topic no longer has, why, and what can be done.

    Args:
        topic: Its name.
        bounds: For each partition the first offset that the log has, and the one after its last.
        settings: The topic's `RETENTION_SETTINGS`; one that is unknown may be left out.

    Returns:
        text: None if every partition begins at offset 0.

    Example:
        >>> text = missing_beginning("readings", {0: (10320, 10320)}, {"retention.ms": "604800000"})
        >>> text[:86]
        'topic readings no longer has its first records: partition 0 begins at offset 10,320 an'
    """
    gone = {partition: found for partition, found in sorted(bounds.items()) if found[0] > 0}
    if not gone:
        return None
    parts = [
        f"partition {partition} begins at offset {start:,}"
        + (" and is empty" if start >= end else "")
        for partition, (start, end) in gone.items()
    ]
    more = len(parts) - _PARTITIONS_NAMED_MAX
    named = ", ".join(parts[:_PARTITIONS_NAMED_MAX]) + (f", and {more} more" if more > 0 else "")
    total = sum(start for start, _ in gone.values())
    return (
        f"topic {topic} no longer has its first records: {named} ({total:,} offsets are gone). "
        f"{_cause(topic, settings)} What is gone gets no prediction, and keys begin at timestep 0 "
        "with what is left"
    )


def _cause(topic: str, settings: Mapping[str, str]) -> str:
    limits = [
        limit_text(name, settings[name])
        for name in RETENTION_SETTINGS
        if settings.get(name, _UNLIMITED) != _UNLIMITED
    ]
    if not limits and settings.keys() >= set(RETENTION_SETTINGS):
        return "Its retention is unlimited, so they were deleted by hand or before it was set."
    unlimited = " ".join(f"--config {name}=-1" for name in RETENTION_SETTINGS)
    return (
        f"Its retention{' (' + ', '.join(limits) + ')' if limits else ''} deletes records by "
        "their timestamps, so events of the past go soon after they are published: `livestep "
        f"topics create NEW {unlimited}` makes a topic that keeps them; publish them there."
    )


def limit_text(name: str, value: str) -> str:
    """Show a setting of `RETENTION_SETTINGS` with its meaning.

    Example:
        >>> limit_text("retention.ms", "604800000"), limit_text("retention.bytes", "1000")
        ('retention.ms=604800000, 7 days', 'retention.bytes=1000')
    """
    is_time = name == "retention.ms" and value.isdigit()
    days = f", {int(value) / _DAY_MS:.3g} days" if is_time else ""
    return f"{name}={value}{days}"
