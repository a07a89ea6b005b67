"""The story of the demo as events: who cooks what, in which order it is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, NamedTuple, Self

import orjson

from livestep.models.examples.cook import CookDay, flat_days, make_flats, seattle_weather

#: Days of the first flat that are told one by one.
SLOW_DAYS = 21

#: Predictions that are named if they are wrong.
EXAMPLES_MAX = 5


class FlatDay(NamedTuple):
    """One event of the story, with what has to be predicted."""

    key: str
    day: CookDay


@dataclass(frozen=True)
class Story:
    """What is told.

    Attributes:
        days: Of each flat, by key; all have as many.
    """

    days: dict[str, list[CookDay]]

    @classmethod
    def make(cls, flat_count: int, day_count: int, seed: int) -> Self:
        """Draw flats; see `models.examples.cook.make_flats`."""
        weather = seattle_weather()
        flats = make_flats(flat_count, seed, day_count, weather)
        return cls({flat.key: flat_days(flat, day_count, weather) for flat in flats})

    @property
    def event_count(self) -> int:
        """Events in all, slow ones included."""
        return sum(map(len, self.days.values()))

    @property
    def slow_flat(self) -> str:
        """Key of the flat whose first days are told one by one."""
        return next(iter(self.days))

    def slow_part(self) -> list[CookDay]:
        """Give the days that are told one by one."""
        return self.days[self.slow_flat][:SLOW_DAYS]

    def fast_part(self) -> Iterator[FlatDay]:
        """Give all other events: a day of each flat, then the next day of each."""
        slow_count = len(self.slow_part())
        for index, day_of_all in enumerate(zip(*self.days.values(), strict=True)):
            for key, day in zip(self.days, day_of_all, strict=True):
                if key != self.slow_flat or index >= slow_count:
                    yield FlatDay(key, day)

    def wrong_dish(self, record: Any) -> str | None:
        """Compare a prediction with the rules, by key and date alone.

        Args:
            record: Of the output topic; kafka-python's ConsumerRecord.

        Returns:
            fault: What is wrong in words; None if nothing is.
        """
        try:
            key = record.key.decode()
            first = self.days[key][0].date
            today = datetime.fromtimestamp(record.timestamp / 1000, UTC).date()
            day = self.days[key][(today - first).days] if today >= first else None
            label = orjson.loads(record.value)["dish"]["label"]
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            return f"{record.value!r} for {record.key!r} is no dish of the story: {error!r}"
        if day is None:
            return f"{key} has no {today}"
        return None if label == day.dish else f"{key} on {today}: {label}, not {day.dish}"


def event_time_ms(day: date) -> int:
    """Return the event time of a day: its midnight, UTC.

    Example:
        >>> event_time_ms(date(2012, 1, 1))
        1325376000000
    """
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1000
