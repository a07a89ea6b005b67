"""Events older than the retention of their topic: a warning at the first, a count at the end."""

from __future__ import annotations

import pytest

from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.publishing.expiry import Expiry

NOW_MS = 1_800_000_000_000
DAY_MS = 24 * 3600 * 1000
WEEK = {"retention.ms": str(7 * DAY_MS), "cleanup.policy": "delete"}


def said_of(settings: dict[str, str], times: list[int | None]) -> list[str]:
    said: list[str] = []
    expiry = Expiry("readings", "kafka:9092", settings, said.append, lambda: NOW_MS)
    for line, timestamp_ms in enumerate(times, start=2):
        expiry.note_sent([EventRecord(line - 1, line, b"k", b"", timestamp_ms)])
    expiry.report()
    return said


def test_the_first_old_event_is_reported_with_the_command_and_all_are_counted() -> None:
    times = [None, NOW_MS - 6 * DAY_MS, 1_396_310_400_000, NOW_MS - 8 * DAY_MS]
    first, total = said_of(WEEK, times)
    assert first.startswith(
        "line 4: the time 2014-04-01T00:00:00Z is older than the retention of topic "
        "'readings' (retention.ms=604800000, 7 days)."
    )
    assert (
        "kafka-configs.sh --bootstrap-server kafka:9092 --alter --topic readings "
        "--add-config retention.ms=-1" in first
    )
    assert "livestep topics create NEW --config retention.ms=-1" in first
    assert total.startswith("2 of 4 sent events are older than the retention of topic 'readings'")


@pytest.mark.parametrize(
    "settings",
    [
        {"retention.ms": "-1", "cleanup.policy": "delete"},
        {"retention.ms": str(DAY_MS), "cleanup.policy": "compact"},
        {"retention.ms": str(DAY_MS), "message.timestamp.type": "LogAppendTime"},
        {},
    ],
    ids=["kept forever", "only compacted", "deleted by the broker's time", "not known"],
)
def test_there_is_no_warning_if_events_are_not_deleted_by_their_timestamps(
    settings: dict[str, str],
) -> None:
    assert said_of(settings, [0, 1, NOW_MS - 1]) == []


def test_there_is_no_warning_about_events_of_today() -> None:
    assert said_of(WEEK, [None, NOW_MS, NOW_MS + DAY_MS, NOW_MS - 7 * DAY_MS]) == []
