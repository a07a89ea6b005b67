"""All checks of a model as a table, with its speed: what `livestep model check` prints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch

from livestep.models.checks.check_list import CHECKS, make_check_data
from livestep.models.checks.random_events import random_rows
from livestep.models.contract import StepModel
from livestep.models.fields.field_types import Field
from livestep.models.foreign.user_classes import AdaptedModel
from livestep.models.model_errors import ModelError

#: Numbers of keys per batch for which the speed is measured.
SPEED_BATCH_SIZES = (1, 64, 1024)

#: Seconds of each measurement.
SPEED_S = 0.2


class CheckResult(NamedTuple):
    """One row of the table.

    Attributes:
        name: Name of the check.
        verdict: "ok", "failed", or "not checked" if a check that it builds on failed.
        result: What the check found.
        advice: How to fix a failure; empty unless the check failed.
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
    """Run all checks, causes before effects, and continue after a failure.

    A check that builds on a failed one does not run: it would only repeat the same defect.

    Args:
        model: Any model.
        inputs: The model's input fields; None for plain numbers.
        seed: Seed of the random events.
        speed_s: Seconds of each speed measurement.

    Example:
        >>> from livestep import GRU
        >>> results = list(report(GRU(input_size=3, hidden_size=8, output_size=2)))
        >>> all(result.verdict == "ok" for result in results), results[0].name
        (True, 'state is stable')
    """
    try:
        data = make_check_data(model, seed, inputs)
    except Exception as error:  # whatever the model's code raises
        yield CheckResult("model steps", "failed", _in_words(error), _stepping_advice(model))
        return
    failed: list[str] = []
    for check in CHECKS:
        if causes := [name for name in failed if name in check.needs]:
            yield _not_checked(check.name, causes[0])
            continue
        try:
            agreement = check.run(data)
        except Exception as error:  # whatever the model's code raises
            failed.append(check.name)
            yield CheckResult(check.name, "failed", _in_words(error), check.advice)
        else:
            result = "yes"
            if agreement is not None:
                result = "exactly"
                if agreement.difference:
                    result = f"within {agreement.difference:.2g} (limit {agreement.allowed:.2g})"
            yield CheckResult(check.name, "ok", result)
    yield from _speeds(model, inputs, speed_s, failed)


def _stepping_advice(model: StepModel) -> str:
    """Advise on a model that fails to step; names the input width if that is the cause."""
    size = getattr(model.module, "input_size", None) if isinstance(model, AdaptedModel) else None
    if isinstance(size, int) and size != model.input_size:
        return (
            f"its input_size is {size}, but the inputs have {model.input_size} columns: make the "
            "two equal"
        )
    return "make it run three steps from initial_state"


def _speeds(
    model: StepModel, inputs: Sequence[Field] | None, speed_s: float, failed: Sequence[str]
) -> Iterator[CheckResult]:
    """Measure the speed at each batch size."""
    for batch_size in SPEED_BATCH_SIZES:
        name = f"speed at {batch_size:,}"
        if "state is stable" in failed:
            yield _not_checked(name, "state is stable")
            continue
        try:
            step_s = measure_step_s(model, batch_size, inputs, speed_s)
        except Exception as error:  # whatever the model's code raises
            advice = f"make it step {batch_size:,} keys at once"
            yield CheckResult(name, "failed", _in_words(error), advice)
            return
        result = f"{batch_size / step_s:,.0f} events/s, {step_s * 1e6:,.0f} us per step"
        yield CheckResult(name, "ok", result)


def _not_checked(name: str, cause: str) -> CheckResult:
    return CheckResult(name, "not checked", f"not checked because {cause!r} failed")


def measure_step_s(
    model: StepModel,
    batch_size: int,
    inputs: Sequence[Field] | None = None,
    speed_s: float = SPEED_S,
) -> float:
    """Measure the mean time of one step of N keys, in seconds.

    Args:
        model: Any model.
        batch_size: N.
        inputs: The model's input fields; None for plain numbers.
        speed_s: Seconds of the measurement.
    """
    rows = random_rows(model, batch_size, torch.Generator().manual_seed(0), inputs)
    state = model.initial_state(batch_size)
    for _ in range(3):  # torch initializes kernels and buffers in the first steps
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
