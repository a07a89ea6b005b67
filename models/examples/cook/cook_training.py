"""Training of the cook's net, with an exam that proves that it has learned the rule.

The rule is a machine with three states. A net that has learned it keeps three clearly separate sets
of hidden states and returns to the right one at each step, so that errors can't add up over
the years. Two things achieve that: sequences that grow, and noise on the hidden states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from livestep.models.contract import StepModel
from livestep.models.examples.cook.cook_story import DISHES, WEATHERS, cook_fields, seattle_weather
from livestep.models.fields.field_types import total_width
from livestep.models.model_errors import ModelError
from livestep.models.nets.cells import VanillaRNN
from livestep.models.seeding import one_thread, seeded

HIDDEN_SIZE = 24
BATCH_FLATS = 64
LEARNING_RATE = 3e-3
GRADIENT_NORM_MAX = 1.0

#: Days in a training sequence: at first, and at last; doubled in between.
FIRST_DAYS, LAST_DAYS = 2, 32

#: Consecutive batches that must be almost right before sequences get longer, and the share of
#: right predictions for that.
GOOD_BATCHES, GOOD_SHARE = 5, 0.99

#: Standard deviation of the noise on a hidden state (each unit between -1 and 1), and the days
#: between two additions; a net that survives it has learned to return to its state.
NOISE, NOISE_EVERY_DAYS = 0.1, 4

#: Batches between two reports and between two exams; the typical number of a run, for the progress
#: bar; and the maximum: a run that needs more is broken.
REPORT_EVERY, EXAMINE_EVERY, BATCHES_TYPICAL, BATCHES_MAX = 20, 100, 1_200, 6_000

#: An exam: flats, days, and the minimum probability of each right dish.
EXAM_FLATS, EXAM_DAYS, EXAM_SURE = 200, 1_461, 0.95


class Exam(NamedTuple):
    """Result of an exam.

    Attributes:
        wrong_count: Predictions of a wrong dish.
        least_sure: The smallest probability of a right dish, from 0 to 1.
    """

    wrong_count: int
    least_sure: float

    @property
    def is_passed(self) -> bool:
        """Whether everything was right, with a clear margin."""
        return self.wrong_count == 0 and self.least_sure >= EXAM_SURE


class Lessons(NamedTuple):
    """Sequences of N flats over L days.

    Attributes:
        sequence: (L, N, H_in) float32.
        dishes: (L, N) int64. The right dishes, as indices in `DISHES`.
    """

    sequence: Tensor
    dishes: Tensor


def train_cook(
    seed: int = 0, on_progress: Callable[[float, str], None] | None = None
) -> VanillaRNN:
    """Train a `VanillaRNN` until it passes an exam over four years.

    It learns from random weather only; Seattle's weather is for the exam. The same seed trains the
    same net on the same machine. Takes a few seconds on one CPU thread.

    Args:
        seed: Seed of weights, lessons and exams.
        on_progress: Called with the finished share, from 0 to 1 and never falling, and a
            sentence about it.

    Returns:
        model: In eval mode, on the CPU; inputs and outputs as in `cook_fields`.

    Raises:
        ModelError: If the net has not learned the rule after `BATCHES_MAX` batches.
    """
    report = on_progress or (lambda fraction, text: None)
    with one_thread():
        return _train_cook(seed, report)


def _train_cook(seed: int, report: Callable[[float, str], None]) -> VanillaRNN:
    """Train the net on torch's current number of threads."""
    generator = torch.Generator().manual_seed(seed)
    model = _seeded_net(seed)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    day_count, good_batches = FIRST_DAYS, 0
    for batch_number in range(1, BATCHES_MAX + 1):
        lessons = random_lessons(BATCH_FLATS, day_count, generator)
        right_share = _learn(model, optimizer, lessons, generator)
        good_batches = good_batches + 1 if right_share >= GOOD_SHARE else 0
        if good_batches >= GOOD_BATCHES and day_count < LAST_DAYS:
            day_count, good_batches = day_count * 2, 0
        if batch_number % EXAMINE_EVERY == 0 and day_count == LAST_DAYS:
            if _has_learned_the_rule(model, generator):
                report(1.0, f"{EXAM_FLATS} flats are right for {EXAM_DAYS} days")
                return model.eval()
        if batch_number % REPORT_EVERY == 0:
            done = min(0.99, batch_number / BATCHES_TYPICAL)
            report(done, f"{day_count} days in a row: {right_share:.0%} right")
    raise ModelError(
        f"the cook's net has not learned the rule after {BATCHES_MAX} batches; try another seed",
        field="seed",
        found=seed,
    )


def random_lessons(flat_count: int, day_count: int, generator: torch.Generator) -> Lessons:
    """Draw flats with random first dishes, each in its own climate, from dry to wet.

    Args:
        flat_count: N.
        day_count: L.
        generator: Source of the random numbers.

    Returns:
        lessons: The sequences and the right dishes.
    """
    rain_chance = torch.rand(flat_count, generator=generator)  # (N,)
    is_rainy = torch.rand(day_count, flat_count, generator=generator) < rain_chance  # (L, N)
    first_dishes = torch.randint(len(DISHES), (flat_count,), generator=generator)
    return make_lessons(is_rainy, first_dishes)


def seattle_lessons(flat_count: int, generator: torch.Generator) -> Lessons:
    """Draw flats in Seattle, each through all four years from its own first day.

    After the last day the weather starts again at the first, so flats see different sequences.

    Args:
        flat_count: N.
        generator: Draws first days and first dishes.

    Returns:
        lessons: The sequences and the right dishes.
    """
    is_rainy = torch.tensor([weather == "rainy" for _, weather in seattle_weather()])
    day_count = len(is_rainy)
    first_days = torch.randint(day_count, (flat_count,), generator=generator)
    days = (first_days + torch.arange(day_count).unsqueeze(1)) % day_count  # (L, N)
    first_dishes = torch.randint(len(DISHES), (flat_count,), generator=generator)
    return make_lessons(is_rainy[days], first_dishes)


def make_lessons(is_rainy: Tensor, first_dishes: Tensor) -> Lessons:
    """Turn weather and first dishes into the net's inputs and the right dishes.

    Args:
        is_rainy: (L, N) bool.
        first_dishes: (N,) int64. The dish of the day before, as an index in `DISHES`.

    Returns:
        lessons: `sequence` has the columns that `encode` makes from the events.
    """
    day_count, flat_count = is_rainy.shape
    inputs, _ = cook_fields()
    sequence = torch.zeros(day_count, flat_count, total_width(inputs))
    sequence[:, :, WEATHERS.index("sunny")] = (~is_rainy).float()
    sequence[:, :, WEATHERS.index("rainy")] = is_rainy.float()
    sequence[0, torch.arange(flat_count), len(WEATHERS) + first_dishes] = 1.0
    moves = 1 - 2 * is_rainy.long()  # sunny moves one forward, rainy one back
    return Lessons(sequence, (first_dishes + moves.cumsum(dim=0)) % len(DISHES))


@torch.inference_mode()
def examine(model: StepModel, lessons: Lessons) -> Exam:
    """Let a net predict whole sequences, and find its worst prediction.

    Args:
        model: A net with the fields of `cook_fields`.
        lessons: The sequences and the right dishes.

    Returns:
        exam: The number of wrong predictions, and the smallest probability of a right dish.
    """
    logits = model.unroll(lessons.sequence)  # (L, N, dishes)
    right_probability = logits.softmax(dim=-1).gather(-1, lessons.dishes.unsqueeze(-1))
    wrong_count = int((logits.argmax(dim=-1) != lessons.dishes).sum())
    return Exam(wrong_count, float(right_probability.min()))


def _has_learned_the_rule(model: StepModel, generator: torch.Generator) -> bool:
    """Run an exam on random weather, then one on Seattle's, which was never a lesson."""
    return (
        examine(model, random_lessons(EXAM_FLATS, EXAM_DAYS, generator)).is_passed
        and examine(model, seattle_lessons(EXAM_FLATS, generator)).is_passed
    )


def _seeded_net(seed: int) -> VanillaRNN:
    inputs, outputs = cook_fields()
    sizes = (total_width(inputs), HIDDEN_SIZE, total_width(outputs))
    return seeded(seed, lambda: VanillaRNN(*sizes))


def _learn(
    model: StepModel,
    optimizer: torch.optim.Optimizer,
    lessons: Lessons,
    generator: torch.Generator,
) -> float:
    """Learn from one batch; return the share of right predictions."""
    state: Tensor | None = None
    outputs = []
    for days in torch.split(lessons.sequence, NOISE_EVERY_DAYS):  # (at most that many, N, H_in)
        day_count, flat_count, _ = days.shape
        packed = PackedSequence(days.flatten(0, 1), torch.full((day_count,), flat_count))
        output, next_state = model.step_packed(packed, state)
        outputs.append(output)
        hidden = cast(Tensor, next_state)  # (N, K, H)
        state = hidden + NOISE * torch.randn(hidden.shape, generator=generator)
    logits = torch.cat(outputs)  # (L * N, dishes)
    dishes = lessons.dishes.flatten()
    loss = nn.functional.cross_entropy(logits, dishes)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM_MAX)
    optimizer.step()
    return float((logits.argmax(dim=-1) == dishes).float().mean())
