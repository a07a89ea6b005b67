"""All six dishes of the story: three that the rule knows, three that are on the menu only.

What was chosen for dishes 4 to 6:

    - The cook never makes them. The net has a column for each and has to learn to leave it alone.
    - Now and then somebody else cooks (guests), and then it is one of them. The next event says so
      (`yesterday`), also in the middle of a year; no other event after the first carries it.
    - The day after, the rule has nothing to go on: the cook starts anew with dish 1, whatever the
      weather, and goes on from there by the rule.

The demo stays with three dishes: there a dish 4 is no value of its category, so an event that names
one is a dead letter, and `next_dish` refuses it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from livestep.models.examples.cook.cook_story import DISHES, WEATHERS, Weather, next_dish
from livestep.models.examples.cook.cook_training import Lessons
from livestep.models.fields.field_types import Category, total_width

#: The menu: the dishes of the rule, and those without one.
UNRULED = ("4", "5", "6")
MENU = (*DISHES, *UNRULED)

#: What is cooked on the day after a dish without a rule.
NEW_START = "1"

#: How often somebody else has cooked the day before; on the first day half of the time, as three of
#: six dishes are theirs.
GUEST_SHARE = 0.1


def dish_after(yesterday: str, weather: Weather) -> str:
    """Apply the rule once, for the whole menu.

    Args:
        yesterday: One of `MENU`.
        weather: "sunny" or "rainy".

    Returns:
        dish: What is cooked today: one of `DISHES`.

    Raises:
        ValueError: If there is no such dish or weather.

    Example:
        >>> [dish_after(dish, "sunny") for dish in MENU]
        ['2', '3', '1', '1', '1', '1']
    """
    if yesterday in UNRULED and weather in WEATHERS:
        return NEW_START
    return next_dish(yesterday, weather)


def menu_fields() -> tuple[list[Category], list[Category]]:
    """Return inputs and outputs as `cook_fields` does, with all six dishes in both.

    Example:
        >>> [total_width(fields) for fields in menu_fields()]
        [8, 6]
    """
    inputs = [Category("weather", WEATHERS), Category("yesterday", MENU, optional=True)]
    return inputs, [Category("dish", MENU)]


def menu_lessons(is_rainy: Tensor, generator: torch.Generator) -> Lessons:
    """Draw who cooked before, day by day, and tell what the cook makes of it.

    Args:
        is_rainy: (L, N) bool. The weather.
        generator: Where first dishes and guests come from.

    Returns:
        lessons: (L, N, 8) and (L, N); dishes are indices in `MENU`, and always among `DISHES`.
    """
    day_count, flat_count = is_rainy.shape
    guest_dishes = torch.randint(len(DISHES), len(MENU), is_rainy.shape, generator=generator)
    is_told = torch.rand(is_rainy.shape, generator=generator) < GUEST_SHARE
    is_told[0] = True
    guest_dishes[0] = torch.randint(len(MENU), (flat_count,), generator=generator)
    sequence = torch.zeros(day_count, flat_count, total_width(menu_fields()[0]))
    sequence[:, :, WEATHERS.index("sunny")] = (~is_rainy).float()
    sequence[:, :, WEATHERS.index("rainy")] = is_rainy.float()
    told = torch.nn.functional.one_hot(guest_dishes, len(MENU)).float()  # (L, N, 6)
    sequence[:, :, len(WEATHERS) :] = told * is_told.unsqueeze(-1)
    rule = torch.tensor(
        [[MENU.index(dish_after(dish, weather)) for weather in WEATHERS] for dish in MENU]
    )  # (6, 2)
    weather_indices = torch.where(is_rainy, WEATHERS.index("rainy"), WEATHERS.index("sunny"))
    dish = guest_dishes[0]  # (N,)
    dishes = []
    for day in range(day_count):
        yesterday = torch.where(is_told[day], guest_dishes[day], dish)  # (N,)
        dish = rule[yesterday, weather_indices[day]]
        dishes.append(dish)
    return Lessons(sequence, torch.stack(dishes))


def unruled_count(dishes: Tensor) -> int:
    """Count the predictions that name a dish which the cook never makes.

    Args:
        dishes: Any shape, int64. Indices in `MENU`.

    Example:
        >>> unruled_count(torch.tensor([0, 1, 2, 3, 5]))
        2
    """
    return int((dishes >= len(DISHES)).sum())
