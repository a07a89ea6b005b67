"""Generation of one sequence, one step after another: the truth that the engine is compared with.

Written to be read, not to be fast: a batch of one, labels chosen by a loop over probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from livestep.models.contract import State, StepModel, state_tensors
from livestep.models.devices import device_of
from livestep.models.fields.field_types import Category, Field, absent_row, columns_of
from livestep.models.sequences.feedback import draws
from livestep.models.sequences.rules import Feedback, SequenceRules

FloatRow = npt.NDArray[np.float32]
Finish = Literal["stop", "steps-max"]


class Generated(NamedTuple):
    """A generated sequence.

    Attributes:
        values: (m, H_out) float32. What the net gave: logits for a category, not yet activated.
        chosen: (m, S) int64. Index of the label of each feedback that draws, in their order.
        finish: How it came to its end: the stop label, or the bound.
    """

    values: npt.NDArray[np.float32]
    chosen: npt.NDArray[np.int64]
    finish: Finish


class Stop(NamedTuple):
    """What ends a generated sequence before its bound.

    Attributes:
        columns: Of the outputs: the logits of the category that can end it.
        link: Which feedback chooses that category's label; None if none does, and the first most
            probable label counts.
        label: Index of the label that ends it.
    """

    columns: slice
    link: int | None
    label: int


def find_stop(rules: SequenceRules, outputs: Sequence[Field]) -> Stop | None:
    """Look up what ends a model's generated sequences; None if only the bound does.

    Args:
        rules: Checked by `rules.check_rules`.
        outputs: The model's outputs.
    """
    generation = rules.generation
    if generation is None or generation.stop_output is None or generation.stop_value is None:
        return None
    name = generation.stop_output
    field = next(field for field in outputs if field.name == name)
    assert isinstance(field, Category)
    links = [link.output for link in rules.feedback]
    return Stop(
        columns=columns_of(outputs, name),
        link=links.index(name) if name in links else None,
        label=field.values.index(generation.stop_value),
    )


@torch.inference_mode()
def generate(
    net: StepModel,
    rules: SequenceRules,
    inputs: Sequence[Field],
    outputs: Sequence[Field],
    state: State | None,
    *,
    steps_max: int | None = None,
    key: bytes = b"",
    offset: int = 0,
    labels: Mapping[int, Sequence[int]] | None = None,
) -> Generated:
    """Let a model go on by itself, from a state, until its stop label or the bound.

    The first step's inputs are all absent: zeros, and -1 for an index (`field_types.absent_row`).
    Those of each later one are absent but for the feedback inputs, which hold what the step before
    gave.

    Args:
        net: The model itself, not wrapped in a `FedBack`.
        rules: With `generation`.
        inputs: What the H_in columns mean.
        outputs: What the H_out columns mean.
        state: (1, ...) each. After the sequence's last event; None means zeros.
        steps_max: The bound, if not that of the rules.
        key: Decides, with the offset, which labels are drawn.
        offset: Of the event that closes the sequence.
        labels: By step: labels to go on from, one a feedback, instead of those that the model
            would choose.

    Returns:
        generated: 1 to `steps_max` steps; the one that gave the stop label is the last.

    Raises:
        ValueError: If the rules generate nothing, or the bound is not in their range.
        FloatingPointError: If an output or a state is not finite; then nothing counts.

    Example:
        >>> from livestep import GRU, Category
        >>> from livestep.models.sequences.rules import Generation
        >>> fields = [Category("letter", ("a", "b"), optional=True)]
        >>> rules = SequenceRules("one-to-many", (Feedback("letter", "letter"),), Generation(4))
        >>> generate(GRU(2, 3, 2), rules, fields, fields, None).values.shape
        (4, 2)
    """
    bound = _bound(rules, steps_max)
    stop = find_stop(rules, outputs)
    fed: list[FloatRow] | None = None
    values, chosen = [], []
    finish: Finish = "steps-max"
    for step in range(bound):
        row = absent_row(inputs)
        if fed is not None:
            for link, block in zip(rules.feedback, fed, strict=True):
                row[columns_of(inputs, link.input)] = block
        output, state = step_row(net, row, state)
        if not is_finite(output, state):
            raise FloatingPointError(f"step {step} of the generated sequence is not finite")
        taken = (labels or {}).get(step) or choose_labels(
            rules.feedback, outputs, output, key, offset, step
        )
        fed = feed_back(rules.feedback, outputs, output, taken)
        values.append(output)
        chosen.append(drawn_labels(rules.feedback, taken))
        if stop is not None:
            label = int(output[stop.columns].argmax()) if stop.link is None else taken[stop.link]
            if label == stop.label:
                finish = "stop"
                break
    return Generated(np.stack(values), np.stack(chosen), finish)


def step_row(net: StepModel, row: FloatRow, state: State | None) -> tuple[FloatRow, State]:
    """Step one key alone, from and to arrays.

    Args:
        net: The model, on any device.
        row: (H_in,). Not written to.
        state: (1, ...) each; None means zeros.

    Returns:
        output: (H_out,) float32.
        next_state: (1, ...) each, on the model's device.
    """
    inputs = torch.tensor(row, dtype=torch.float32, device=device_of(net)).unsqueeze(0)  # (1, H_in)
    outputs, next_state = net.step(inputs, state)
    return outputs[0].float().cpu().numpy(), next_state


def choose_labels(
    feedback: Sequence[Feedback],
    outputs: Sequence[Field],
    output: FloatRow,
    key: bytes,
    offset: int,
    step: int,
) -> list[int]:
    """Choose the label of each feedback's category, for one row.

    Args:
        feedback: The links.
        outputs: What the H_out columns mean.
        output: (H_out,). What the net gave.
        key: Of the event.
        offset: Of the event.
        step: Of the generated sequence; 0 if it isn't generated.

    Returns:
        labels: One index a link; 0 for a number.
    """
    labels = []
    drawn_count = 0
    for link in feedback:
        logits = output[columns_of(outputs, link.output)]
        if link.temperature > 0:
            u = draws(key, offset, step, drawn_count)[0]
            labels.append(_draw(logits, link.temperature, u))
            drawn_count += 1
        elif _is_category(outputs, link.output):
            labels.append(int(logits.argmax()))
        else:
            labels.append(0)
    return labels


def feed_back(
    feedback: Sequence[Feedback], outputs: Sequence[Field], output: FloatRow, labels: Sequence[int]
) -> list[FloatRow]:
    """Make what each link puts into the next input: a one-hot label, or the numbers.

    Args:
        feedback: The links.
        outputs: What the H_out columns mean.
        output: (H_out,). What the net gave.
        labels: As `choose_labels` gave them.
    """
    fed = []
    for link, label in zip(feedback, labels, strict=True):
        block = output[columns_of(outputs, link.output)].copy()
        if _is_category(outputs, link.output):
            block[:] = 0
            block[label] = 1
        fed.append(block)
    return fed


def drawn_labels(feedback: Sequence[Feedback], labels: Sequence[int]) -> npt.NDArray[np.int64]:
    """Keep the labels of the links that draw, (S,)."""
    drawn = [label for link, label in zip(feedback, labels, strict=True) if link.temperature > 0]
    return np.array(drawn, np.int64)


def is_finite(output: FloatRow, state: State) -> bool:
    """Say whether a step can be used: neither its output nor its state is NaN or infinite."""
    tensors = state_tensors(state)
    return bool(np.isfinite(output).all()) and all(bool(t.isfinite().all()) for t in tensors)


def _draw(logits: FloatRow, temperature: float, u: float) -> int:
    """Take the first label whose cumulative probability exceeds u; the last one if none does."""
    largest = float(max(logits))
    powers = [math.exp((float(logit) - largest) / temperature) for logit in logits]
    total = sum(powers)
    cumulative = 0.0
    for label, power in enumerate(powers):
        cumulative += power / total
        if cumulative > u:
            return label
    return len(powers) - 1


def _is_category(outputs: Sequence[Field], name: str) -> bool:
    return any(isinstance(field, Category) and field.name == name for field in outputs)


def _bound(rules: SequenceRules, steps_max: int | None) -> int:
    if rules.generation is None:
        raise ValueError(f"a {rules.shape} model generates nothing")
    limit = rules.generation.steps_max
    bound = limit if steps_max is None else steps_max
    if not 1 <= bound <= limit:
        raise ValueError(f"steps_max has to be 1 to {limit}, not {bound}")
    return bound
