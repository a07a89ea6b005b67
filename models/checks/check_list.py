"""All checks of a model, in order, each with the checks that it builds on and advice for a failure.

A model with one defect fails many checks, so the order matters: a check whose failure explains
others comes before them, and `needs` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from livestep.models.checks.agreement import Agreement
from livestep.models.checks.contract_checks import (
    check_bit_for_bit,
    check_finite,
    check_keys_dont_mix,
    check_none_means_initial_state,
    check_packed_equals_unroll,
    check_prev_state_kept,
    check_repeatable,
    check_saved_state,
    check_split_anywhere,
    check_state_stable,
    check_step_equals_unroll,
)
from livestep.models.checks.look_ahead import check_no_look_ahead
from livestep.models.checks.random_events import random_rows, random_sequences, random_state
from livestep.models.contract import State, StepModel
from livestep.models.fields.field_types import Field
from livestep.models.sequences.block_sizes import FUSED_STEPS
from livestep.models.sequences.blocks import (
    PROBE_ROWS,
    BlockStepper,
    measured_sizes,
)

#: Timesteps after which outputs must still be finite.
LONG = 300

#: Keys that fill more than one block of steps.
MANY = 150


@dataclass(frozen=True, slots=True)
class CheckData:
    """A model, and the random data that its checks use.

    Attributes:
        model: Any model.
        state: (N, ...) each. The state of N keys that have seen a few events.
        sequence: (L, N, H_in). One sequence per key.
        ragged: N sequences (L_i, H_in) of different lengths.
        others: (L, M, H_in). Sequences of other keys.
        long: (LONG, 4, H_in). Long sequences of four new keys.
        many: (2, MANY, H_in). Short sequences of many new keys.
        rows: (PROBE_ROWS, H_in). To choose the model's blocks.
    """

    model: StepModel
    state: State
    sequence: Tensor
    ragged: list[Tensor]
    others: Tensor
    long: Tensor
    many: Tensor
    rows: Tensor


@dataclass(frozen=True, slots=True)
class Check:
    """One rule that a model must keep.

    Attributes:
        name: Shown in the report.
        run: Raises AssertionError if the rule is broken. Returns how well the results agree if
            the check compares any.
        advice: How to fix a failure.
        needs: Names of earlier checks that this one builds on: it reveals nothing about a model
            that fails one of them.
    """

    name: str
    run: Callable[[CheckData], Agreement | None]
    advice: str
    needs: tuple[str, ...] = ()


_WRITTEN = ("state is stable", "state is not modified")
_SOUND = (*_WRITTEN, "step is repeatable", "outputs are finite", "state survives saving")

#: All checks; each comes after those that it needs.
CHECKS: Final = (
    Check(
        "state is stable",
        lambda data: check_state_stable(data.model, data.sequence[0], data.state),
        "return a state with the same tensors, shapes and dtypes as initial_state; create them "
        "from the weights: weight.new_zeros(batch_size, ...)",
    ),
    Check(
        "state is not modified",
        lambda data: check_prev_state_kept(data.model, data.ragged, data.state),
        "create a new tensor: state * 0.5, not state.mul_(0.5); or clone() before you write",
        needs=("state is stable",),
    ),
    Check(
        "step is repeatable",
        lambda data: check_repeatable(data.model, data.sequence[0], data.state),
        "keep nothing on self, draw no random numbers, call eval()",
        needs=_WRITTEN,
    ),
    Check(
        "outputs are finite",
        lambda data: check_finite(data.model, data.long, data.model.initial_state(4)),
        f"bound the state (tanh), guard divisions and logarithms; the check runs {LONG} timesteps",
        needs=_WRITTEN,
    ),
    Check(
        "state survives saving",
        lambda data: check_saved_state(data.model, data.sequence, data.state),
        "keep nothing on self between steps: only the state is saved",
        needs=_SOUND[:-1],
    ),
    Check(
        "None means initial_state",
        lambda data: check_none_means_initial_state(data.model, data.sequence[0]),
        "start step(inputs, None) from initial_state(len(inputs))",
        needs=_SOUND,
    ),
    Check(
        "no look-ahead",
        lambda data: check_no_look_ahead(data.model, data.sequence, data.state),
        "a live prediction sees only past events: train the net without bidirectional=True, "
        "without a mean or norm along time, with causal padding or a causal mask",
        needs=_SOUND,
    ),
    Check(
        "step equals unroll",
        lambda data: check_step_equals_unroll(data.model, data.sequence, data.state),
        "start unroll from the state that it receives, and compute the same as step: the net is "
        "trained with unroll and served with step",
        needs=(*_SOUND, "no look-ahead"),
    ),
    Check(
        "keys don't mix",
        lambda data: check_keys_dont_mix(data.model, data.sequence, data.state, data.others),
        "axis 0 is the key: use no mean, norm or sum over it, and no row index",
        needs=_SOUND,
    ),
    Check(
        "packed equals unroll",
        lambda data: check_packed_equals_unroll(data.model, data.ragged, data.state),
        "return each key's own last state from step_packed, or remove step_packed",
        needs=(*_SOUND, "step equals unroll", "keys don't mix"),
    ),
    Check(
        "sequences can be split",
        lambda data: check_split_anywhere(data.model, data.sequence.unbind(dim=1), data.state),
        "return the state after each key's last timestep, and keep everything that matters in it",
        needs=(*_SOUND, "packed equals unroll"),
    ),
    Check(
        "bit for bit",
        lambda data: check_bit_for_bit(
            BlockStepper(data.model, measured_sizes(data.model, data.rows)),
            data.sequence,
            data.ragged,
            data.state,
            data.others,
            data.many,
            data.long[: FUSED_STEPS + 4],
        ),
        "compute each row by itself: nothing over axis 0, however small its effect, and all rows "
        "by the same calls, with torch.where instead of picked rows; or let predictions differ in "
        "the last digits, with --rounding free",
        needs=(*_SOUND, "keys don't mix"),
    ),
)


def make_check_data(
    model: StepModel, seed: int = 0, inputs: Sequence[Field] | None = None
) -> CheckData:
    """Draw the random data for all checks of a model.

    Args:
        model: Any model.
        seed: Seed of the random data.
        inputs: The model's input fields, so that indices are valid; None for plain numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 12, (7,), generator=generator).tolist()
    count = len(lengths)
    ragged = random_sequences(model, lengths, generator, inputs)
    equal = random_sequences(model, [6] * count, generator, inputs)
    others = random_sequences(model, [6] * 5, generator, inputs)
    return CheckData(
        model=model,
        ragged=ragged,
        sequence=torch.stack(equal, dim=1),
        others=torch.stack(others, dim=1),
        state=random_state(model, count, generator, inputs),
        long=random_rows(model, LONG * 4, generator, inputs).reshape(LONG, 4, -1),
        many=random_rows(model, 2 * MANY, generator, inputs).reshape(2, MANY, -1),
        rows=random_rows(model, PROBE_ROWS, generator, inputs),
    )
