"""All checks of a model as a table, with its speed: what `livestep model check` prints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch

from livestep.models.checks.check_data import random_rows
from livestep.models.checks.trials import trials
from livestep.models.contract import StepModel
from livestep.models.fields.field_types import Field
from livestep.models.foreign.user_classes import AdaptedModel
from livestep.models.model_errors import ModelError

#: Numbers of keys at which the speed is measured.
SPEED_BATCH_SIZES = (1, 64, 1024)

#: Seconds for which each is measured.
SPEED_S = 0.2


class CheckResult(NamedTuple):
    """One row of the table.

    Attributes:
        name: Of the check.
        verdict: "ok", "failed", or "not checked" if a check that it builds on has failed.
        result: What was found.
        advice: What to do; empty unless it failed.
    """

    name: str
    verdict: Literal["ok", "failed", "not checked"]
    result: str
    advice: str = ""


@torch.inference_mode()
def report(
    model: StepModel,
    inputs: Sequence[Field] | None = None,
    seed: int = 0,
    speed_s: float = SPEED_S,
) -> Iterator[CheckResult]:
    """Run the checks in the order of cause and effect, and go on if one fails.

    A check that builds on one that failed is not run: it would show the same defect again.

    Args:
        model: Any model.
        inputs: What its columns mean; None for numbers.
        seed: Of the random sequences.
        speed_s: Seconds for which each speed is measured.

    Example:
        >>> from livestep import GRU
        >>> results = list(report(GRU(input_size=3, hidden_size=8, output_size=2)))
        >>> all(result.verdict == "ok" for result in results), results[0].name
        (True, 'state is stable')
    """
    try:
        prepared = trials(model, seed, inputs)
    except Exception as error:  # whatever the model's code raises
        yield CheckResult("model steps", "failed", _in_words(error), _stepping_advice(model))
        return
    failed: list[str] = []
    for trial in prepared:
        if causes := [name for name in failed if name in trial.needs]:
            yield _not_checked(trial.name, causes[0])
            continue
        try:
            measured = trial.run()
        except Exception as error:
            failed.append(trial.name)
            yield CheckResult(trial.name, "failed", _in_words(error), trial.advice)
        else:
            result = "yes"
            if measured is not None:
                result = "exactly"
                if measured.difference:
                    result = f"within {measured.difference:.2g}, allowed is {measured.allowed:.2g}"
            yield CheckResult(trial.name, "ok", result)
    yield from _speeds(model, inputs, speed_s, failed)


def _stepping_advice(model: StepModel) -> str:
    """Say what to do about a model that doesn't step: the width of its inputs if it has another."""
    size = getattr(model.module, "input_size", None) if isinstance(model, AdaptedModel) else None
    if isinstance(size, int) and size != model.input_size:
        return (
            f"its input_size is {size}, but the inputs have {model.input_size} columns: let both "
            "be the same"
        )
    return "let it step three times"


def _speeds(
    model: StepModel, inputs: Sequence[Field] | None, speed_s: float, failed: Sequence[str]
) -> Iterator[CheckResult]:
    """Measure the speed at each number of keys."""
    for batch_size in SPEED_BATCH_SIZES:
        name = f"speed at {batch_size:,}"
        if "state is stable" in failed:
            yield _not_checked(name, "state is stable")
            continue
        try:
            step_s = measure_step_s(model, batch_size, inputs, speed_s)
        except Exception as error:  # whatever the model's code raises
            yield CheckResult(name, "failed", _in_words(error), "let it step")
            return
        result = f"{batch_size / step_s:,.0f} events/s, {step_s * 1e6:,.0f} us a step"
        yield CheckResult(name, "ok", result)


def _not_checked(name: str, cause: str) -> CheckResult:
    return CheckResult(name, "not checked", f"not checked, because {cause!r} failed")


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
