"""Generate one sequence, step by step: the reference that the engine is compared with.

Simple, not fast: one row at a time, in the net's smallest block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from livestep.models.contract import State, StepModel, state_tensors
from livestep.models.devices import device_of
from livestep.models.fields.field_types import Category, Field, absent_row, columns_of
from livestep.models.sequences.blocks import BlockStepper, block_stepper
from livestep.models.sequences.feedback import draw_label, draws
from livestep.models.sequences.rules import Feedback, SequenceRules

FloatRow = npt.NDArray[np.float32]
Finish = Literal["stop", "steps-max"]

#: Rows of a block for one draw: torch's `exp` computes elements that don't fill a vector of the CPU
#: in another way.
DRAWN_ROWS = 32


class Generated(NamedTuple):
    """A generated sequence.

    Attributes:
        values: (m, H_out) float32. Outputs of the net: logits for a category, not yet activated.
        chosen: (m, S) int64. Index of the label of each link that draws, in their order.
        finish: Why it ended: the stop label, or the limit of steps.
    """

    values: npt.NDArray[np.float32]
    chosen: npt.NDArray[np.int64]
    finish: Finish


class Stop(NamedTuple):
    """What ends a generated sequence before its limit.

    Attributes:
        columns: Of the outputs: the logits of the category that can end it.
        link: Index of the link that chooses that category's label; None if there is none, and the
            most probable label counts (the first of several).
        label: Index of the label that ends it.
    """

    columns: slice
    link: int | None
    label: int


def find_stop(rules: SequenceRules, outputs: Sequence[Field]) -> Stop | None:
    """Return what ends a model's generated sequences; None if only the limit does.

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
    """Generate a sequence from a state, up to the stop label or the limit of steps.

    The inputs of the first step are all absent: zeros, and -1 for an index
    (`field_types.absent_row`). In later steps, the feedback inputs have the output of the previous
    step, and all others are absent.

    Args:
        net: The model itself, not wrapped in a `FedBack`.
        rules: With `generation`.
        inputs: What the H_in columns mean.
        outputs: What the H_out columns mean.
        state: (1, ...) each. After the sequence's last event; None means zeros.
        steps_max: The limit, if not that of the rules.
        key: Determines, with the offset, which labels are drawn.
        offset: Of the event that ends the sequence.
        labels: By step: labels to feed back, one per link, instead of those that the model would
            choose.

    Returns:
        generated: 1 to `steps_max` steps; a step with the stop label is the last.

    Raises:
        ValueError: If the rules generate nothing, or the limit exceeds theirs.
        FloatingPointError: If an output or a state is not finite; then the sequence is invalid.

    Example:
        >>> from livestep import GRU, Category
        >>> from livestep.models.sequences.rules import Generation
        >>> fields = [Category("letter", ("a", "b"), optional=True)]
        >>> rules = SequenceRules("one-to-many", (Feedback("letter", "letter"),), Generation(4))
        >>> generate(GRU(2, 3, 2), rules, fields, fields, None).values.shape
        (4, 2)
    """
    bound = _bound(rules, steps_max)
    stepper = block_stepper(net, inputs)
    stop = find_stop(rules, outputs)
    fed: list[FloatRow] | None = None
    values, chosen = [], []
    finish: Finish = "steps-max"
    for step in range(bound):
        row = absent_row(inputs)
        if fed is not None:
            for link, block in zip(rules.feedback, fed, strict=True):
                row[columns_of(inputs, link.input)] = block
        output, state = step_row(stepper, row, state)
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


def step_row(stepper: BlockStepper, row: FloatRow, state: State | None) -> tuple[FloatRow, State]:
    """Step one key alone, from and to arrays.

    Args:
        stepper: Steps the model, on any device.
        row: (H_in,). Not written to.
        state: (1, ...) each; None means zeros.

    Returns:
        output: (H_out,) float32.
        next_state: (1, ...) each, on the model's device.
    """
    inputs = torch.tensor(row, dtype=torch.float32, device=device_of(stepper)).unsqueeze(
        0
    )  # (1, H_in)
    outputs, next_state = stepper.step(inputs, state)
    return outputs[0].float().cpu().numpy(), next_state


def choose_labels(
    feedback: Sequence[Feedback],
    outputs: Sequence[Field],
    output: FloatRow,
    key: bytes,
    offset: int,
    step: int,
) -> list[int]:
    """Choose the label of each link's category, for one row.

    Args:
        feedback: The links.
        outputs: What the H_out columns mean.
        output: (H_out,). Output of the net.
        key: Of the event.
        offset: Of the event.
        step: Of the generated sequence; 0 if it isn't generated.

    Returns:
        labels: One index per link; 0 for a number.
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
    """Make the values that each link feeds into the next input: a one-hot label, or the numbers.

    Args:
        feedback: The links.
        outputs: What the H_out columns mean.
        output: (H_out,). Output of the net.
        labels: As `choose_labels` returned them.
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
    """Whether a step is valid: neither its output nor its state has NaN or infinity."""
    tensors = state_tensors(state)
    return bool(np.isfinite(output).all()) and all(bool(t.isfinite().all()) for t in tensors)


def _draw(logits: FloatRow, temperature: float, u: float) -> int:
    """Draw a label as a `FedBack` does: with the same rounding, so in a block of equal rows."""
    rows = torch.from_numpy(logits).expand(DRAWN_ROWS, -1)
    return int(draw_label(rows, temperature, torch.full((DRAWN_ROWS,), u))[0])


def _is_category(outputs: Sequence[Field], name: str) -> bool:
    return any(isinstance(field, Category) and field.name == name for field in outputs)


def _bound(rules: SequenceRules, steps_max: int | None) -> int:
    if rules.generation is None:
        raise ValueError(f"a {rules.shape} model generates nothing")
    limit = rules.generation.steps_max
    bound = limit if steps_max is None else steps_max
    if not 1 <= bound <= limit:
        raise ValueError(f"steps_max must be 1 to {limit}, not {bound}")
    return bound
