"""All checks of a model on the random data that they need, each after those that it builds on.

A model with one defect fails many checks. So the order matters: a check whose failure explains
others comes before them, and `NEEDS` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import torch

from livestep.models.checks.check_data import Agreement, random_rows, random_sequences, random_state
from livestep.models.checks.checks import (
    check_finite,
    check_neighbours,
    check_none_means_zeros,
    check_packed_equals_unroll,
    check_prev_state_kept,
    check_repeatable,
    check_saved_state,
    check_split_anywhere,
    check_state_stable,
    check_step_equals_unroll,
)
from livestep.models.checks.look_ahead import check_no_look_ahead
from livestep.models.contract import StepModel
from livestep.models.fields.field_types import Field
from livestep.models.loaded_model import LoadedModel

#: Timesteps after which outputs still have to be finite.
LONG = 300

#: What to do if a check fails; in the order in which they run.
ADVICE: Final = {
    "state is stable": "return a state of the same tensors, shapes and dtypes as initial_state "
    "gives; make them from the weights: weight.new_zeros(batch_size, ...)",
    "state isn't written to": "make a new tensor: state * 0.5, not state.mul_(0.5); clone() "
    "before writing",
    "step is repeatable": "keep nothing on self, draw no random numbers, call eval()",
    "outputs are finite": "bound the state (tanh), guard divisions and logarithms; "
    f"{LONG} timesteps are tried",
    "state saved and loaded": "keep nothing on self from step to step: only the state is saved",
    "no state means zeros": "let step(inputs, None) begin with initial_state(len(inputs))",
    "no look-ahead": "live, a prediction has only the events so far: train a net without "
    "bidirectional=True, without a mean or norm along time, with a causal padding or mask",
    "step equals unroll": "let unroll begin with the state it is given and compute what step "
    "computes: the net is trained with the one and served with the other",
    "neighbours don't mix": "no mean, norm or sum over axis 0, no use of a row's place: axis 0 "
    "is the keys",
    "packed equals unroll": "let step_packed return each key's own last state, or leave "
    "step_packed out",
    "split anywhere": "return the state after each key's last timestep; keep all that matters "
    "in it",
}

_WRITTEN = ("state is stable", "state isn't written to")
_SOUND = (*_WRITTEN, "step is repeatable", "outputs are finite", "state saved and loaded")

#: The checks that each check builds on: it says nothing about a model that fails one of them.
NEEDS: Final = {
    "state is stable": (),
    "state isn't written to": ("state is stable",),
    "step is repeatable": _WRITTEN,
    "outputs are finite": _WRITTEN,
    "state saved and loaded": _SOUND[:-1],
    "no state means zeros": _SOUND,
    "no look-ahead": _SOUND,
    "step equals unroll": (*_SOUND, "no look-ahead"),
    "neighbours don't mix": _SOUND,
    "packed equals unroll": (*_SOUND, "step equals unroll", "neighbours don't mix"),
    "split anywhere": (*_SOUND, "packed equals unroll"),
}


class Trial(NamedTuple):
    """One check on the data that it needs.

    Attributes:
        name: Of the check.
        run: Raises AssertionError, or returns how well what it has measured agrees, if it measures.
        advice: What to do if it fails.
        needs: The checks that it builds on, which come before it.
    """

    name: str
    run: Callable[[], Agreement | None]
    advice: str
    needs: tuple[str, ...] = ()


def trials(model: StepModel, seed: int = 0, inputs: Sequence[Field] | None = None) -> list[Trial]:
    """Prepare all checks of a model, on random data.

    Args:
        model: Any model.
        seed: Of the random sequences.
        inputs: What its columns mean, so that an index is one; None for numbers.

    Returns:
        trials: In such an order that each comes after those that it needs.
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 12, (7,), generator=generator).tolist()
    count = len(lengths)
    ragged = random_sequences(model, lengths, generator, inputs)
    equal = random_sequences(model, [6] * count, generator, inputs)
    others = torch.stack(random_sequences(model, [6] * 5, generator, inputs), dim=1)
    state = random_state(model, count, generator, inputs)
    sequence = torch.stack(equal, dim=1)  # (L, N, H_in)

    def long() -> None:
        rows = random_rows(model, LONG * 4, generator, inputs)
        check_finite(model, rows.reshape(LONG, 4, -1), model.initial_state(4))

    runs: dict[str, Callable[[], Agreement | None]] = {
        "state is stable": lambda: check_state_stable(model, sequence[0], state),
        "no state means zeros": lambda: check_none_means_zeros(model, sequence[0]),
        "step is repeatable": lambda: check_repeatable(model, sequence[0], state),
        "no look-ahead": lambda: check_no_look_ahead(model, sequence, state),
        "step equals unroll": lambda: check_step_equals_unroll(model, sequence, state),
        "split anywhere": lambda: check_split_anywhere(model, equal, state),
        "packed equals unroll": lambda: check_packed_equals_unroll(model, ragged, state),
        "neighbours don't mix": lambda: check_neighbours(model, sequence, state, others),
        "state isn't written to": lambda: check_prev_state_kept(model, ragged, state),
        "state saved and loaded": lambda: check_saved_state(model, sequence, state),
        "outputs are finite": long,
    }
    return [Trial(name, runs[name], advice, NEEDS[name]) for name, advice in ADVICE.items()]


@torch.inference_mode()
def check_model(
    model: StepModel | LoadedModel, seed: int = 0, inputs: Sequence[Field] | None = None
) -> None:
    """Check that a model keeps the contract of `StepModel`, on random data.

    Call it on a model of your own before you give it to a worker.

    Args:
        model: Any model, or one that was loaded, with its inputs.
        seed: Of the random sequences.
        inputs: What its columns mean, so that an index is one; None for numbers.

    Raises:
        AssertionError: If a rule is broken; says which, and by how much. The first one in the
            order of `trials`, which is the cause of others.
        ModelError: If a user's class gives what it may not, see `user_classes`.

    Example:
        >>> from livestep import GRU
        >>> check_model(GRU(input_size=3, hidden_size=8, output_size=2))
    """
    net = model.net if isinstance(model, LoadedModel) else model
    fields = model.inputs if isinstance(model, LoadedModel) else inputs
    for trial in trials(net, seed, fields):
        trial.run()
