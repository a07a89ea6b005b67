"""The story of the demo: a roommate who cooks by the weather.

He cooks one of three dishes each day, depending on yesterday's dish and the weather.

    sunny   yesterday 1 -> 2,  2 -> 3,  3 -> 1
    rainy   yesterday 1 -> 3,  2 -> 1,  3 -> 2

Each flat (a key) has such a roommate. Its first event carries yesterday's dish and the weather, all
later events carry the weather only: from then on, only the hidden state knows the last dish. So one
lost, repeated or swapped event makes every later prediction for that flat wrong.

`cook_training.py` trains the net that learns the rule.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, NamedTuple

from livestep.models.fields.field_types import Category
from livestep.models.model_errors import ModelError
from livestep.models.package_data import package_folder

Weather = Literal["sunny", "rainy"]

#: The dishes, in the order of their columns; sunny moves one forward, rainy one back.
DISHES = ("1", "2", "3")
WEATHERS: tuple[Weather, ...] = ("sunny", "rainy")

#: The source of the weather: a file inside the package `vega_datasets`.
WEATHER_PACKAGE, WEATHER_FILE = "vega_datasets", "_data/seattle-weather.csv"


@dataclass(frozen=True, slots=True)
class Flat:
    """One flat of the story.

    Attributes:
        key: The key of its events.
        first_day: Index in the weather of the day of its first event.
        first_dish: The dish of the day before, which the first event carries.
    """

    key: str
    first_day: int
    first_dish: str


class CookDay(NamedTuple):
    """One day of one flat.

    Attributes:
        date: The day.
        event: The event to publish: `weather`, and on the first day `yesterday`.
        dish: The dish of that day: what the model has to predict.
    """

    date: date
    event: dict[str, str]
    dish: str


def next_dish(yesterday: str, weather: str) -> str:
    """Apply the rule once.

    Args:
        yesterday: One of `DISHES`.
        weather: "sunny" or "rainy".

    Returns:
        dish: Today's dish.

    Raises:
        ValueError: If the dish or the weather is unknown.

    Example:
        >>> [next_dish(dish, "sunny") for dish in DISHES]
        ['2', '3', '1']
        >>> [next_dish(dish, "rainy") for dish in DISHES]
        ['3', '1', '2']
    """
    if weather not in WEATHERS or yesterday not in DISHES:
        raise ValueError(f"no rule for dish {yesterday!r} and weather {weather!r}")
    move = 1 if weather == "sunny" else -1
    return DISHES[(DISHES.index(yesterday) + move) % len(DISHES)]


def cook_fields() -> tuple[list[Category], list[Category]]:
    """Return the inputs and the outputs of the cook's model, for `save_model`.

    Example:
        >>> [[field.name for field in fields] for fields in cook_fields()]
        [['weather', 'yesterday'], ['dish']]
    """
    inputs = [Category("weather", WEATHERS), Category("yesterday", DISHES, optional=True)]
    return inputs, [Category("dish", DISHES)]


def seattle_weather() -> list[tuple[date, Weather]]:
    """Read the real weather: each day of 2012 to 2015 in Seattle.

    Days of kind `sun` are sunny; drizzle, fog, rain and snow are rainy.

    Returns:
        days: 1,461 pairs of date and weather, without gaps.

    Raises:
        ModelError: If the package `vega_datasets` or its file is missing.

    Example:
        >>> days = seattle_weather()
        >>> len(days), days[0]
        (1461, (datetime.date(2012, 1, 1), 'rainy'))

    Source:
        https://github.com/vega/vega-datasets, seattle-weather.csv, from NOAA's daily records.
    """
    missing = f"the cook's weather needs {WEATHER_PACKAGE}: pip install 'livestep[demo]'"
    file = package_folder(WEATHER_PACKAGE, missing) / WEATHER_FILE
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise ModelError(f"can't be read: {error.strerror}", file=file) from error
    return [
        (
            datetime.strptime(row["date"], "%Y/%m/%d").date(),
            "sunny" if row["weather"] == "sun" else "rainy",
        )
        for row in rows
    ]


def make_flats(
    count: int, seed: int, day_count: int, weather: Sequence[tuple[date, Weather]]
) -> list[Flat]:
    """Draw flats, each with its own first day, early enough for all its days.

    Args:
        count: Number of flats.
        seed: Seed of the draw; the same seed draws the same flats.
        day_count: Days, and events, of each flat.
        weather: From `seattle_weather`.

    Returns:
        flats: `count` flats, with keys "flat-000", "flat-001", ...

    Raises:
        ValueError: If `day_count` is less than 1 or more than the days of weather.

    Example:
        >>> flats = make_flats(300, seed=1, day_count=365, weather=seattle_weather())
        >>> flats[7].key, flats[7] == make_flats(300, 1, 365, seattle_weather())[7]
        ('flat-007', True)
    """
    if not 1 <= day_count <= len(weather):
        raise ValueError(f"day_count must be from 1 to {len(weather)}, not {day_count}")
    draw = random.Random(seed)
    return [
        Flat(
            key=f"flat-{index:03d}",
            first_day=draw.randrange(len(weather) - day_count + 1),
            first_dish=draw.choice(DISHES),
        )
        for index in range(count)
    ]


def flat_days(flat: Flat, day_count: int, weather: Sequence[tuple[date, Weather]]) -> list[CookDay]:
    """List the days of one flat, in order: the event to publish and the dish.

    Args:
        flat: The flat.
        day_count: Number of days, from its first.
        weather: From `seattle_weather`.

    Returns:
        days: `day_count` days, or fewer if the weather ends earlier.

    Example:
        >>> for day in flat_days(Flat("flat-000", 6, "1"), 3, seattle_weather()):
        ...     print(day.date, day.event, "->", day.dish)
        2012-01-07 {'weather': 'rainy', 'yesterday': '1'} -> 3
        2012-01-08 {'weather': 'sunny'} -> 1
        2012-01-09 {'weather': 'rainy'} -> 3
    """
    dish = flat.first_dish
    days: list[CookDay] = []
    for day, kind in weather[flat.first_day : flat.first_day + day_count]:
        event: dict[str, str] = {"weather": kind}
        if not days:
            event["yesterday"] = dish
        dish = next_dish(dish, kind)
        days.append(CookDay(day, event, dish))
    return days
