"""Nets whose outputs can be computed in the head, and models made of them."""

from __future__ import annotations

import torch
from torch import Tensor

from livestep import Category, Feedback, Generation, LoadedModel, Number, SequenceRules, StepModel
from livestep.models.contract import State, state_tensors

#: What `Speller` writes; the last one ends a word.
LETTERS = ("a", "b", ".")


class Summing(StepModel):
    """Adds up its two inputs, x and what is fed back: y is the total."""

    def __init__(self) -> None:
        super().__init__(input_size=2, output_size=1)

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 1)

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        total = self.initial_state(len(inputs)) if prev_state is None else prev_state
        assert isinstance(total, Tensor)
        next_total = total + inputs.sum(dim=1, keepdim=True)
        return next_total, next_total


class Speller(StepModel):
    """Writes a, b and the end one after another; at once the end if x has added up to more than 5.

    Inputs are x and the letter before; its state is a plain tuple: the total of x, and a count.
    """

    def __init__(self) -> None:
        super().__init__(input_size=1 + len(LETTERS), output_size=len(LETTERS))

    def initial_state(self, batch_size: int) -> State:
        return torch.zeros(batch_size, 1), torch.zeros(batch_size)

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        total, count = state_tensors(prev_state or self.initial_state(len(inputs)))
        total = total + inputs[:, :1]
        logits = inputs[:, 1:].roll(1, dims=1) + torch.tensor([0.5, 0.0, 0.0])
        logits = logits + (total > 5) * torch.tensor([0.0, 0.0, 10.0])
        return logits, (total, count + 1)


class Echo(StepModel):
    """Keeps nothing: y is twice x."""

    def __init__(self) -> None:
        super().__init__(input_size=1, output_size=1)

    def initial_state(self, batch_size: int) -> State:
        return ()

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        return 2 * inputs, ()


def summing(rules: SequenceRules) -> LoadedModel:
    """Make a model of `Summing`: inputs `x` and `last_y`, output `y`."""
    inputs = (Number("x"), Number("last_y", optional=True))
    return loaded(Summing(), inputs, (Number("y"),), rules)


def speller(rules: SequenceRules) -> LoadedModel:
    """Make a model of `Speller`: inputs `x` and `letter`, output `letter`."""
    inputs = (Number("x"), Category("letter", LETTERS, optional=True))
    return loaded(Speller(), inputs, (Category("letter", LETTERS),), rules)


def number_rules(shape: str, **others: object) -> SequenceRules:
    """Make rules for `summing` that feed y back."""
    return SequenceRules(shape, (Feedback("y", "last_y"),), **others)  # type: ignore[arg-type]


def spelling_rules(
    shape: str, steps_max: int = 9, temperature: float = 0, **others: object
) -> SequenceRules:
    """Make rules for `speller` that generate until the end of a word."""
    return SequenceRules(
        shape,  # type: ignore[arg-type]
        (Feedback("letter", "letter", temperature),),
        Generation(steps_max, "letter", "."),
        **others,  # type: ignore[arg-type]
    )


def loaded(
    net: StepModel,
    inputs: tuple[Number | Category, ...],
    outputs: tuple[Number | Category, ...],
    rules: SequenceRules,
) -> LoadedModel:
    """Make a model as `load_model` gives one, without a directory."""
    return LoadedModel(
        net=net.eval(),
        inputs=inputs,
        outputs=outputs,
        codec="json",
        fingerprint="0" * 16,
        name="small",
        rules=rules,
    )
