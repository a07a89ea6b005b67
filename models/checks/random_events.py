"""Random inputs, sequences and states for the checks of a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from livestep.models.contract import State, StepModel
from livestep.models.devices import device_of
from livestep.models.fields.field_types import Field, Number
from livestep.models.foreign.step_adapter import StepAdapter, weights_dtype
from livestep.models.sequences.random_rows import random_field_rows


def random_rows(
    model: StepModel, count: int, generator: torch.Generator, inputs: Sequence[Field] | None = None
) -> Tensor:
    """Draw `count` rows (H_in,), each as the encoder makes it from an event of these fields.

    Args:
        model: Sets the device, and the dtype if the model does not cast its inputs.
        count: Number of rows.
        generator: On the CPU.
        inputs: The model's input fields; None for plain numbers.
    """
    rows = random_field_rows(inputs or [Number("x", model.input_size)], count, generator)
    dtype = torch.float32 if isinstance(model, StepAdapter) else weights_dtype(model)
    return rows.to(device_of(model), dtype)  # (count, H_in)


def random_sequences(
    model: StepModel,
    lengths: Sequence[int],
    generator: torch.Generator,
    inputs: Sequence[Field] | None = None,
) -> list[Tensor]:
    """Draw one sequence (L_i, H_in) for each length."""
    return [random_rows(model, length, generator, inputs) for length in lengths]


def random_state(
    model: StepModel,
    batch_size: int,
    generator: torch.Generator,
    inputs: Sequence[Field] | None = None,
) -> State:
    """Return the state of N keys after three random events."""
    state = model.initial_state(batch_size)
    for _ in range(3):
        _, state = model.step(random_rows(model, batch_size, generator, inputs), state)
    return state
