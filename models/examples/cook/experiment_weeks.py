"""The experiment's lessons: all weeks of three dishes, and random weeks of six.

    all weeks    2^7 weathers x 3 dishes on the day before the first: 384
    unseen       96 of them, drawn once, that no net learns from, whatever its seed

The story's menu has six dishes, and the rule knows only three. For dishes 4 to 6 we chose:

    - The cook never makes them. The net has a column for each and must learn not to predict it.
    - Now and then guests cook, and then it is one of them. The next event tells it (`yesterday`),
      also in the middle of a year; no other event after the first carries a dish.
    - The rule has no answer for the day after, so the cook starts over with dish 1, whatever the
      weather.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from livestep.models.examples.cook.cook_story import DISHES, WEATHERS, Weather, next_dish
from livestep.models.examples.cook.cook_training import Lessons, make_lessons
from livestep.models.fields.field_types import Category

WEEK_DAYS = 7

#: The number of different weeks.
WEEK_COUNT = len(WEATHERS) ** WEEK_DAYS * len(DISHES)

#: Weeks that no net learns from (unless it learns all), and the seed that drew them.
UNSEEN_COUNT, UNSEEN_SEED = 96, 2026

#: The whole menu: the dishes of the rule, and those without a rule.
UNRULED = ("4", "5", "6")
MENU = (*DISHES, *UNRULED)

#: What the cook makes on the day after a dish without a rule.
NEW_START = "1"

#: Share of days on which guests cooked the day before. On the first day it is half, since three of
#: the six dishes are theirs.
GUEST_SHARE = 0.1


class Weeks(NamedTuple):
    """The weeks of one net.

    Attributes:
        seen: The weeks that it learns from.
        unseen: Weeks that it never sees; None if it learns all weeks.
    """

    seen: Lessons
    unseen: Lessons | None


def all_weeks() -> Lessons:
    """List each different week once.

    Returns:
        lessons: 7 days of `WEEK_COUNT` flats.

    Example:
        >>> all_weeks().sequence.shape, all_weeks().dishes.shape
        (torch.Size([7, 384, 5]), torch.Size([7, 384]))
    """
    weathers = torch.tensor(list(itertools.product((False, True), repeat=WEEK_DAYS)))  # (128, 7)
    is_rainy = weathers.repeat_interleave(len(DISHES), dim=0).T  # (7, 384)
    first_dishes = torch.arange(len(DISHES)).repeat(len(weathers))  # (384,)
    return make_lessons(is_rainy, first_dishes)


def choose_weeks(week_count: int, seed: int) -> Weeks:
    """Draw the weeks that a net learns from.

    With the same seed, a larger choice contains the smaller ones. The unseen weeks never change.

    Args:
        week_count: At most the number of weeks that are not unseen, or `WEEK_COUNT` for all.
        seed: Seed of the draw.

    Returns:
        weeks: The chosen weeks, and the unseen ones.

    Raises:
        ValueError: If there are not that many weeks to choose from.

    Example:
        >>> weeks = choose_weeks(48, seed=1)
        >>> weeks.seen.dishes.shape, weeks.unseen.dishes.shape
        (torch.Size([7, 48]), torch.Size([7, 96]))
    """
    weeks = all_weeks()
    if week_count == WEEK_COUNT:
        return Weeks(weeks, None)
    drawn_once = torch.randperm(
        WEEK_COUNT, generator=torch.Generator().manual_seed(UNSEEN_SEED)
    )  # (384,)
    unseen, rest = drawn_once[:UNSEEN_COUNT], drawn_once[UNSEEN_COUNT:]
    if not 1 <= week_count <= len(rest):
        raise ValueError(f"choose 1 to {len(rest)} weeks, or all {WEEK_COUNT}; not {week_count}")
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))
    return Weeks(_choose(weeks, rest[order[:week_count]]), _choose(weeks, unseen))


def _choose(lessons: Lessons, columns: Tensor) -> Lessons:
    return Lessons(lessons.sequence[:, columns], lessons.dishes[:, columns])


def dish_after(yesterday: str, weather: Weather) -> str:
    """Apply the rule once, for the whole menu.

    Args:
        yesterday: One of `MENU`.
        weather: "sunny" or "rainy".

    Returns:
        dish: Today's dish, one of `DISHES`.

    Raises:
        ValueError: If the dish or the weather is unknown.

    Example:
        >>> [dish_after(dish, "sunny") for dish in MENU]
        ['2', '3', '1', '1', '1', '1']
    """
    if yesterday in UNRULED and weather in WEATHERS:
        return NEW_START
    return next_dish(yesterday, weather)


def menu_fields() -> tuple[list[Category], list[Category]]:
    """Return inputs and outputs like `cook_fields`, with all six dishes in both."""
    inputs = [Category("weather", WEATHERS), Category("yesterday", MENU, optional=True)]
    return inputs, [Category("dish", MENU)]


def menu_lessons(is_rainy: Tensor, generator: torch.Generator) -> Lessons:
    """Draw day by day whether guests cooked, and apply the rule.

    Args:
        is_rainy: (L, N) bool. The weather.
        generator: Draws the first dishes and the guests.

    Returns:
        lessons: (L, N, 8) and (L, N); dishes are indices in `MENU`, and always among `DISHES`.
    """
    guest_dishes = torch.randint(len(DISHES), len(MENU), is_rainy.shape, generator=generator)
    is_told = torch.rand(is_rainy.shape, generator=generator) < GUEST_SHARE
    is_told[0] = True
    guest_dishes[0] = torch.randint(len(MENU), is_rainy.shape[1:], generator=generator)
    weather = torch.stack([~is_rainy, is_rainy], dim=-1)  # (L, N, 2), as in WEATHERS
    told = torch.nn.functional.one_hot(guest_dishes, len(MENU)) * is_told.unsqueeze(-1)
    rule = torch.tensor([[MENU.index(dish_after(dish, one)) for one in WEATHERS] for dish in MENU])
    dish = guest_dishes[0]  # (N,)
    dishes = []
    for day, rainy in enumerate(is_rainy.long()):
        dish = rule[torch.where(is_told[day], guest_dishes[day], dish), rainy]  # (N,)
        dishes.append(dish)
    return Lessons(torch.cat([weather, told], dim=-1).float(), torch.stack(dishes))
