"""The experiment's lessons and nets: all weeks there are, those kept apart, and who learns them.

    all weeks    2^7 weathers x 3 dishes on the day before the first: 384
    unseen       96 of them, drawn once and kept apart from all nets and all seeds
    contenders   five ways to learn the rest, each with about 2,500 weights

A contender is asked for whole sequences (`unroll`); only the fully connected one minds how long
they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from livestep.models.contract import StepModel, check_sequence
from livestep.models.examples.cook.cook_story import DISHES, WEATHERS
from livestep.models.examples.cook.cook_training import Lessons, make_lessons
from livestep.models.fields.field_types import Category, total_width
from livestep.models.nets.cells import GRU, LSTM, VanillaRNN
from livestep.models.sequences.feedback import FedBack
from livestep.models.sequences.rules import Feedback

WEEK_DAYS = 7

#: All weeks that there are.
WEEK_COUNT = len(WEATHERS) ** WEEK_DAYS * len(DISHES)

#: Weeks that no net learns from (unless it is to learn all), and the seed that drew them.
UNSEEN_COUNT, UNSEEN_SEED = 96, 2026

#: What was cooked becomes what was cooked yesterday.
DISH_IS_FED_BACK = (Feedback(output="dish", input="yesterday"),)


class Weeks(NamedTuple):
    """What one net learns from, and what it is asked afterwards.

    Attributes:
        seen: The weeks that it learns from.
        unseen: Those it never sees; None if it learns all weeks.
    """

    seen: Lessons
    unseen: Lessons | None


class Predictor(Protocol):
    """What is asked for whole sequences: any contender's net."""

    def unroll(self, sequence: Tensor) -> Tensor:
        """Predict (L, N, dishes) logits from (L, N, H_in)."""


def all_weeks() -> Lessons:
    """List each week that there is, once.

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

    With one seed, a larger choice holds the smaller ones. What is unseen is always the same.

    Args:
        week_count: As many as are left beside the unseen ones at most, or `WEEK_COUNT`: all.
        seed: Of the draw.

    Returns:
        weeks: The choice, and the weeks kept apart from it.

    Raises:
        ValueError: If there are not as many weeks to choose from.

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
        raise ValueError(f"1 to {len(rest)} weeks, or {WEEK_COUNT}; not {week_count}")
    order = torch.randperm(len(rest), generator=torch.Generator().manual_seed(seed))
    return Weeks(_choose(weeks, rest[order[:week_count]]), _choose(weeks, unseen))


def _choose(lessons: Lessons, columns: Tensor) -> Lessons:
    return Lessons(lessons.sequence[:, columns], lessons.dishes[:, columns])


class FullyConnected(nn.Module):
    """A net without time: the whole week goes in at once, the whole week comes out.

        h = tanh(W_h x + b_h)
        y = W_y h + b_y

    17 numbers in (7 days x 2 weathers, the dish of the day before as 3), 21 out (7 days x 3
    dishes). A day is known by the column that it lies in, so what is learnt about Monday says
    nothing about Tuesday, and there is no column for an eighth day.

    Example:
        >>> net = FullyConnected(hidden_size=64)
        >>> net.unroll(all_weeks().sequence).shape
        torch.Size([7, 384, 3])
        >>> net.unroll(torch.zeros(8, 384, 5))
        Traceback (most recent call last):
        ValueError: a fully connected net of 7 days can't take 8
    """

    def __init__(self, hidden_size: int) -> None:
        """Make a net with random weights.

        Args:
            hidden_size: H >= 1.
        """
        super().__init__()
        self.hidden = nn.Linear(WEEK_DAYS * len(WEATHERS) + len(DISHES), hidden_size)
        self.head = nn.Linear(hidden_size, WEEK_DAYS * len(DISHES))

    def unroll(self, sequence: Tensor) -> Tensor:
        """Predict whole weeks.

        Args:
            sequence: (7, N, H_in). As the recurrent nets take it.

        Returns:
            outputs: (7, N, dishes). Logits.

        Raises:
            ValueError: If the sequence has another length, or other columns.
        """
        check_sequence(sequence, len(WEATHERS) + len(DISHES))
        day_count, week_count, _ = sequence.shape
        if day_count != WEEK_DAYS:
            raise ValueError(f"a fully connected net of {WEEK_DAYS} days can't take {day_count}")
        weather = sequence[:, :, : len(WEATHERS)].transpose(0, 1).flatten(1)  # (N, 14)
        x = torch.cat([weather, sequence[0, :, len(WEATHERS) :]], dim=1)  # (N, 17)
        y: Tensor = self.head(torch.tanh(self.hidden(x)))  # (N, 21)
        return y.view(week_count, WEEK_DAYS, len(DISHES)).transpose(0, 1)


@dataclass(frozen=True)
class Contender:
    """One way to learn the rule.

    Attributes:
        name: In tables and plots.
        kind: Which net.
        hidden_size: H, chosen so that each contender has about 2,500 weights.
        forcing: How a net whose output is fed back is trained: on the true dish of the day before
            ("teacher") or on its own ("free"). None if nothing is fed back.
    """

    name: str
    kind: type[nn.Module]
    hidden_size: int
    forcing: Literal["teacher", "free"] | None = None

    def make_net(
        self, seed: int, inputs: Sequence[Category], outputs: Sequence[Category]
    ) -> StepModel | FullyConnected:
        """Make a net with random weights; torch's global generator stays as it was.

        Args:
            seed: Of the weights.
            inputs: As in `cook_fields`.
            outputs: As in `cook_fields`.

        Returns:
            net: In training mode, on the CPU.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.kind is FullyConnected:
                return FullyConnected(self.hidden_size)
            sizes = total_width(inputs), self.hidden_size, total_width(outputs)
            cell = cast(StepModel, self.kind(*sizes))
        return cell if self.forcing is None else FedBack(cell, inputs, outputs, DISH_IS_FED_BACK)


CONTENDERS = (
    Contender("fully connected", FullyConnected, 64),
    Contender("RNN", VanillaRNN, 46),
    Contender("RNN fed back, teacher forcing", VanillaRNN, 46, "teacher"),
    Contender("RNN fed back, free running", VanillaRNN, 46, "free"),
    Contender("GRU", GRU, 25),
    Contender("LSTM", LSTM, 21),
)


def find_contender(name: str) -> Contender:
    """Find a contender by its name.

    Raises:
        ValueError: If there is none.
    """
    for contender in CONTENDERS:
        if contender.name == name:
            return contender
    raise ValueError(f"no contender {name!r}")


def weight_count(net: nn.Module) -> int:
    """Count the numbers that training may change.

    Example:
        >>> weight_count(FullyConnected(hidden_size=64))
        2517
    """
    return sum(parameter.numel() for parameter in net.parameters())
