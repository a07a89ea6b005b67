"""The events of the demo: who cooks what on which day, and in which order they are published."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import Any

import orjson

from livestep.models.examples.cook import CookDay, flat_days, make_flats, seattle_weather

#: Days of the first flat that are published one by one.
SLOW_DAYS = 21


class Story:
    """The flats, each with its days.

    Args:
        flat_count: How many flats.
        day_count: Days of each.
        seed: Chooses the flats, see `models.examples.cook.make_flats`.

    Attributes:
        days: Of each flat, by key; every flat has the same number.
        slow_flat: Key of the flat whose first days are published one by one.
        slow_part: Those days.
        event_count: All events, slow ones included.
    """

    def __init__(self, flat_count: int, day_count: int, seed: int) -> None:
        weather = seattle_weather()
        flats = make_flats(flat_count, seed, day_count, weather)
        self.days = {flat.key: flat_days(flat, day_count, weather) for flat in flats}
        self.slow_flat = flats[0].key
        self.slow_part = self.days[self.slow_flat][:SLOW_DAYS]
        self.event_count = flat_count * day_count

    def fast_part(self) -> Iterator[tuple[str, CookDay]]:
        """Return all other events: one day of every flat, then the next day of every flat."""
        for index, day_of_all in enumerate(zip(*self.days.values(), strict=True)):
            for key, day in zip(self.days, day_of_all, strict=True):
                if key != self.slow_flat or index >= len(self.slow_part):
                    yield key, day

    def wrong_dish(self, record: Any) -> str | None:
        """Compare a prediction (kafka-python's ConsumerRecord) with the rules; None if right."""
        days = self.days.get((record.key or b"").decode("utf-8", "replace"), [])
        today = datetime.fromtimestamp(record.timestamp / 1000, UTC).date()
        index = (today - days[0].date).days if days else -1
        dish = days[index].dish if 0 <= index < len(days) else None
        try:
            label = orjson.loads(record.value)["dish"]["label"]
        except (ValueError, LookupError, TypeError):
            label = record.value
        wrong = f"wrong dish for {record.key!r} on {today}: {label}, not {dish}"
        return None if dish is not None and label == dish else wrong


def event_time_ms(day: date) -> int:
    """Return the event time of a day: its midnight, UTC.

    Example:
        >>> event_time_ms(date(2012, 1, 1))
        1325376000000
    """
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1000
