"""The experiment's nets: how each is built and trained, and how it predicts.

The contenders are six ways to learn the rule, each with about 2,500 weights. All get the same
effort: Adam with one learning rate, all training weeks in each update, until the loss on them is
below `LOSS_ENOUGH`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from livestep.models.contract import State, StepModel, check_sequence
from livestep.models.examples.cook.cook_story import DISHES, WEATHERS
from livestep.models.examples.cook.cook_training import GRADIENT_NORM_MAX, Lessons
from livestep.models.examples.cook.experiment_weeks import WEEK_DAYS
from livestep.models.fields.field_types import Category, total_width
from livestep.models.nets.cells import GRU, LSTM, VanillaRNN
from livestep.models.nets.stateless import FullyConnected
from livestep.models.seeding import seeded
from livestep.models.sequences.feedback import FedBack
from livestep.models.sequences.forcing import free_running, teacher_forced
from livestep.models.sequences.rules import Feedback

LEARNING_RATE = 0.01

#: Mean cross-entropy at which a net has learned its weeks: 99.9 % sure of the right dish. And the
#: maximum of updates; the results state how many nets needed more.
LOSS_ENOUGH, UPDATES_MAX = 1e-3, 2_000

#: Today's dish is tomorrow's `yesterday`.
DISH_IS_FED_BACK = (Feedback(output="dish", input="yesterday"),)


class WholeWeek(FullyConnected):
    """A fully connected net without time: a whole week in, a whole week out.

    17 numbers in (7 days x 2 weathers, the dish of the day before as 3), 21 out (7 days x 3
    dishes). Each day has its own columns, so what the net learns about Monday doesn't apply to
    Tuesday, and there is no column for an eighth day.

    Example:
        >>> net = WholeWeek(hidden_size=64)
        >>> net.unroll(torch.zeros(7, 384, 5)).shape
        torch.Size([7, 384, 3])
        >>> net.unroll(torch.zeros(8, 384, 5))
        Traceback (most recent call last):
        ValueError: the fully connected net accepts 7 days, not 8
    """

    def __init__(self, hidden_size: int) -> None:
        """Create a net with random weights.

        Args:
            hidden_size: H >= 1.
        """
        input_size = WEEK_DAYS * len(WEATHERS) + len(DISHES)
        super().__init__(input_size, hidden_size, WEEK_DAYS * len(DISHES))

    def unroll(self, sequence: Tensor, prev_state: State | None = None) -> Tensor:
        """Predict whole weeks.

        Args:
            sequence: (7, N, H_in). The same as for the recurrent nets.
            prev_state: None; the net has no state.

        Returns:
            outputs: (7, N, dishes). Logits.

        Raises:
            ValueError: If the sequence has another length or other columns.
        """
        check_sequence(sequence, len(WEATHERS) + len(DISHES))
        if len(sequence) != WEEK_DAYS:
            raise ValueError(
                f"the fully connected net accepts {WEEK_DAYS} days, not {len(sequence)}"
            )
        weather = sequence[:, :, : len(WEATHERS)].transpose(0, 1).flatten(1)  # (N, 14)
        x = torch.cat([weather, sequence[0, :, len(WEATHERS) :]], dim=1)  # (N, 17)
        return self.answer(x).view(-1, WEEK_DAYS, len(DISHES)).transpose(0, 1)


@dataclass(frozen=True)
class Contender:
    """One way to learn the rule.

    Attributes:
        name: Shown in tables and plots.
        kind: The class of the net.
        hidden_size: H, chosen so that each contender has about 2,500 weights.
        forcing: How a net with feedback is trained: on the true dish of the day before ("teacher")
            or on its own ("free"). None for a net without feedback.
    """

    name: str
    kind: Callable[..., StepModel]
    hidden_size: int
    forcing: Literal["teacher", "free"] | None = None

    @property
    def is_recurrent(self) -> bool:
        """Whether the net accepts sequences of any length."""
        return self.kind is not WholeWeek

    def make_net(
        self, seed: int, inputs: Sequence[Category], outputs: Sequence[Category]
    ) -> StepModel:
        """Create a net with random weights; torch's global generator is not changed.

        Args:
            seed: Seed of the weights.
            inputs: As in `cook_fields`.
            outputs: As in `cook_fields`.

        Returns:
            net: In training mode, on the CPU.
        """
        sizes: tuple[int, ...] = (self.hidden_size,)
        if self.is_recurrent:
            sizes = (total_width(inputs), self.hidden_size, total_width(outputs))
        net = seeded(seed, lambda: self.kind(*sizes))
        return net if self.forcing is None else FedBack(net, inputs, outputs, DISH_IS_FED_BACK)


CONTENDERS = (
    Contender("fully connected", WholeWeek, 64),
    Contender("RNN", VanillaRNN, 46),
    Contender("RNN fed back, teacher forcing", VanillaRNN, 46, "teacher"),
    Contender("RNN fed back, free running", VanillaRNN, 46, "free"),
    Contender("GRU", GRU, 25),
    Contender("LSTM", LSTM, 21),
)


def weight_count(net: nn.Module) -> int:
    """Count the numbers that training can change.

    Example:
        >>> weight_count(WholeWeek(hidden_size=64))
        2517
    """
    return sum(parameter.numel() for parameter in net.parameters())


def train(
    net: StepModel, contender: Contender, lessons: Lessons, updates_max: int = UPDATES_MAX
) -> int:
    """Train until the net has learned the lessons.

    Args:
        net: The contender's net.
        contender: Defines how to train it.
        lessons: All of them are in each update.
        updates_max: Training ends after this many updates in any case.

    Returns:
        updates: The number of updates.
    """
    optimizer = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    dishes = lessons.dishes.flatten()
    for update in range(updates_max):
        logits = _training_logits(net, contender, lessons)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), dishes)
        if float(loss.detach()) < LOSS_ENOUGH:
            return update
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(net.parameters(), GRADIENT_NORM_MAX)
        optimizer.step()
    return updates_max


def _training_logits(net: StepModel, contender: Contender, lessons: Lessons) -> Tensor:
    """Compute the logits (L, N, dishes) of a net's lessons, as it is trained."""
    if contender.forcing is None:
        return net.unroll(lessons.sequence)
    fedback, sequence = cast(FedBack, net), with_absence(lessons.sequence)
    if contender.forcing == "free":
        return free_running(fedback, sequence)
    truth = nn.functional.one_hot(lessons.dishes, fedback.fed_width).to(sequence.dtype)
    return teacher_forced(fedback, sequence, truth)


@torch.inference_mode()
def predict(net: StepModel, lessons: Lessons) -> Tensor:
    """Predict whole sequences from the events alone.

    Args:
        net: The net of any contender.
        lessons: Only `sequence` is used.

    Returns:
        dishes: (L, N) int64. The predicted dishes.
    """
    sequence = lessons.sequence
    if isinstance(net, FedBack):
        sequence = with_absence(sequence)
    return net.unroll(sequence).argmax(dim=-1)


def right_days(net: StepModel, lessons: Lessons) -> Tensor:
    """Return for each day whether the net predicts the right dish: (L, N) bool."""
    return predict(net, lessons) == lessons.dishes


def with_absence(sequence: Tensor) -> Tensor:
    """Mark yesterday's dish as absent (NaN) in each event that doesn't have one.

    Args:
        sequence: (L, N, H_in), as in lessons.

    Returns:
        sequence: (L, N, H_in). A copy, as `FedBack` accepts it.
    """
    sequence = sequence.clone()
    told = sequence[:, :, len(WEATHERS) :]  # (L, N, dishes), a view
    told[told.sum(dim=-1) == 0] = torch.nan
    return sequence
