"""Random inputs, sequences and states for the checks of a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from livestep.models.contract import State, StepModel
from livestep.models.devices import device_of
from livestep.models.fields.field_types import NO_INDEX, Field, Number, Text, is_index
from livestep.models.foreign.step_adapter import StepAdapter, weights_dtype


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
    blocks = [
        _random_block(field, count, generator)
        for field in inputs or [Number("x", model.input_size)]
    ]
    dtype = torch.float32 if isinstance(model, StepAdapter) else weights_dtype(model)
    return torch.cat(blocks, dim=1).to(device_of(model), dtype)  # (count, H_in)


def _random_block(field: Field, count: int, generator: torch.Generator) -> Tensor:
    """Draw the columns of one field, (count, width)."""
    if isinstance(field, Number):
        return torch.randn(count, field.size, generator=generator)
    if isinstance(field, Text):
        letters = (count, field.length)
        indices = torch.randint(0, len(field.alphabet), letters, generator=generator)
        lengths = torch.randint(0, field.length + 1, (count, 1), generator=generator)
        return indices.masked_fill(torch.arange(field.length) >= lengths, NO_INDEX).float()
    lowest = NO_INDEX if field.optional else 0
    indices = torch.randint(lowest, len(field.values), (count, 1), generator=generator)
    if is_index(field):
        return indices.float()
    return (indices == torch.arange(len(field.values))).float()


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
