"""The example of the demo: a roommate who cooks by the weather, and a net that learns his rule.

    cook_story.py     the rule, the weather, the flats and their days
    cook_training.py  the net, trained until it predicts years without an error
    experiment.py     `make experiment`: which other nets learn the rule

The names below are for other packages; the rest is for tests.
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
