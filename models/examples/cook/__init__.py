"""The example of this project: a room-mate who cooks by the weather, and a net that learns it.

    story.py     the rule, the weather, the flats and their days
    training.py  the net: trained until years come out right

Names that are used elsewhere are found here; the rest of both files is for tests.
"""

from livestep.models.examples.cook.cook_story import (
    DISHES,
    WEATHERS,
    CookDay,
    Flat,
    Weather,
    cook_fields,
    flat_days,
    make_flats,
    next_dish,
    seattle_weather,
)
from livestep.models.examples.cook.cook_training import train_cook

__all__ = [
    "DISHES",
    "WEATHERS",
    "CookDay",
    "Flat",
    "Weather",
    "cook_fields",
    "flat_days",
    "make_flats",
    "next_dish",
    "seattle_weather",
    "train_cook",
]
