"""All checks of a model as a table, with its speed: what `livestep model check` prints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from models.check_data import random_rows, tolerance_of
from models.checks import trials
from models.contract import StepModel
from models.errors import ModelError
from models.field_types import Field

#: Numbers of keys at which the speed is measured.
SPEED_BATCH_SIZES = (1, 64, 1024)

#: Seconds for which each is measured.
SPEED_S = 0.2


class CheckResult(NamedTuple):
    """One row of the table.

    Attributes:
        name: Of the check.
        is_good: Whether the model holds it.
        result: What was found.
        advice: What to do; empty if it holds.
    """

    name: str
    is_good: bool
    result: str
    advice: str


@torch.inference_mode()
def report(
    model: StepModel,
    inputs: Sequence[Field] | None = None,
    seed: int = 0,
    speed_s: float = SPEED_S,
) -> Iterator[CheckResult]:
    """Run all checks, one after another, whether or not one fails.

    Args:
        model: Any model.
        inputs: What its columns mean; None for numbers.
        seed: Of the random sequences.
        speed_s: Seconds for which each speed is measured.

    Example:
        >>> from models import GRU
        >>> results = list(report(GRU(input_size=3, hidden_size=8, output_size=2)))
        >>> all(result.is_good for result in results), results[0].name
        (True, 'state is stable')
    """
    try:
        prepared = trials(model, seed, inputs)
    except Exception as error:  # whatever the model's code raises
        yield CheckResult("model steps", False, _in_words(error), "let it step three times")
        return
    limit = tolerance_of(model)
    for trial in prepared:
        try:
            measured = trial.run()
        except Exception as error:
            yield CheckResult(trial.name, False, _in_words(error), trial.advice)
        else:
            result = "yes"
            if measured is not None:
                result = f"within {measured:.1g}, allowed is {limit:g}" if measured else "exactly"
            yield CheckResult(trial.name, True, result, "")
    for batch_size in SPEED_BATCH_SIZES:
        try:
            step_s = measure_step_s(model, batch_size, inputs, speed_s)
        except Exception as error:
            yield CheckResult(f"speed at {batch_size:,}", False, _in_words(error), "let it step")
            return
        result = f"{batch_size / step_s:,.0f} events/s, {step_s * 1e6:,.0f} us a step"
        yield CheckResult(f"speed at {batch_size:,}", True, result, "")


def measure_step_s(
    model: StepModel,
    batch_size: int,
    inputs: Sequence[Field] | None = None,
    speed_s: float = SPEED_S,
) -> float:
    """Measure how long one step of N keys takes, in seconds.

    Args:
        model: Any model.
        batch_size: N.
        inputs: What its columns mean; None for numbers.
        speed_s: Seconds for which it is measured.
    """
    rows = random_rows(model, batch_size, torch.Generator().manual_seed(0), inputs)
    state = model.initial_state(batch_size)
    for _ in range(3):  # until torch has set up what it needs
        _, state = model.step(rows, state)
    steps = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < speed_s or steps < 3:
        output, state = model.step(rows, state)
        if output.is_cuda:
            torch.cuda.synchronize()
        steps += 1
    return elapsed / steps


def _in_words(error: Exception) -> str:
    if isinstance(error, AssertionError | ModelError):
        return str(error)
    return f"{type(error).__name__}: {error}"
