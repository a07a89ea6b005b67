"""What checks are made of: the tolerance, comparisons, and random inputs and states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from livestep.models.contract import State, StepModel, like_state, state_tensors
from livestep.models.devices import device_of
from livestep.models.fields.field_types import NO_INDEX, Field, Number, Text, is_index
from livestep.models.foreign.user_classes import StepAdapter, weights_dtype

#: Largest |stream - unroll| that rounding may cause, by dtype of weights and states: another batch
#: size may make torch choose another kernel, which adds in another order. It is meant for values of
#: magnitude up to 1, and in proportion for larger ones; measured on CPU, 200 timesteps of RNN, GRU
#: and LSTM cells of 16 to 256 units stay 10 times below it (float16 2.4e-4, bfloat16 2.0e-3).
TOLERANCE: dict[torch.dtype, float] = {
    torch.float16: 5e-3,
    torch.bfloat16: 3e-2,
    torch.float32: 1e-5,
    torch.float64: 1e-12,
}


def max_difference(left: Tensor, right: Tensor) -> float:
    """Return the largest |left - right| of two tensors of one shape; 0.0 if they are empty.

    Raises:
        AssertionError: If the shapes or dtypes differ.

    Example:
        >>> max_difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]))
        0.5
    """
    if left.shape != right.shape:
        raise AssertionError(f"shapes differ: {tuple(left.shape)} and {tuple(right.shape)}")
    if left.dtype != right.dtype:
        raise AssertionError(f"dtypes differ: {left.dtype} and {right.dtype}")
    if not left.numel():
        return 0.0
    if not left.dtype.is_floating_point and not left.dtype.is_complex:
        left, right = left.long(), right.long()
    return float((left - right).detach().abs().max())


class Agreement(NamedTuple):
    """How well two roads agree.

    Attributes:
        difference: The largest.
        allowed: What it may be: the tolerance, in proportion to values above 1.
    """

    difference: float
    allowed: float


#: Of what has nothing to compare.
EXACT = Agreement(0.0, 0.0)


def worse(*agreements: Agreement) -> Agreement:
    """Return the agreement that comes closest to what is allowed; the first of equals.

    Example:
        >>> worse(Agreement(2e-6, 1e-5), Agreement(9e-5, 1e-3))
        Agreement(difference=2e-06, allowed=1e-05)
    """
    return max(agreements, key=lambda one: one.difference / (one.allowed or 1.0))


def check_close(left: State, right: State, what: str, limit: float = 0.0) -> Agreement:
    """Check that two tensors, or two states, agree.

    Args:
        left: Of one road.
        right: Of the other; the same shapes and dtypes.
        what: Words for an error.
        limit: The tolerance if it is larger than that of the tensors' own dtypes; whole numbers
            have to be equal.

    Returns:
        agreement: Of the pair of tensors that comes closest to what is allowed.

    Raises:
        AssertionError: If they don't agree.
    """
    worst = EXACT
    pairs = zip(state_tensors(left), state_tensors(right), strict=True)
    for left_tensor, right_tensor in pairs:
        difference = max_difference(left_tensor, right_tensor)
        allowed = 0.0
        own_limit = _tolerance(left_tensor.dtype)
        if own_limit:
            largest = float(right_tensor.detach().abs().max()) if right_tensor.numel() else 0.0
            allowed = max(limit, own_limit) * max(1.0, largest)
        if not difference <= allowed:  # also true for NaN
            raise AssertionError(
                f"{what}: they differ by {difference:.3g}, allowed is {allowed:.3g}"
            )
        worst = worse(worst, Agreement(difference, allowed))
    return worst


def tolerance_of(model: StepModel) -> float:
    """Return the tolerance that a model's weights and states ask for.

    Example:
        >>> from livestep import GRU
        >>> tolerance_of(GRU(1, 2, 1))
        1e-05
    """
    tensors = (*model.parameters(), *state_tensors(model.initial_state(1)))
    return max((_tolerance(tensor.dtype) for tensor in tensors), default=1e-5)


def _tolerance(dtype: torch.dtype) -> float:
    """Return the tolerance of a dtype; of a complex one, that of its parts; 0 for whole numbers."""
    return TOLERANCE.get(dtype.to_real() if dtype.is_complex else dtype, 0.0)


def pack(sequences: Sequence[Tensor]) -> tuple[PackedSequence, list[int]]:
    """Pack ragged sequences, the longest first; equally long ones stay in order.

    Args:
        sequences: N tensors, (L_i, H_in) each, L_i >= 1.

    Returns:
        packed: The sequences as `StepModel.step_packed` takes them.
        order: N indices; row i of the states belongs to `sequences[order[i]]`.

    Example:
        >>> packed, order = pack([torch.zeros(1, 2), torch.ones(3, 2)])
        >>> packed.batch_sizes.tolist(), order
        ([2, 1, 1], [1, 0])
    """
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    longest_first = [sequences[i] for i in order]
    packed = torch.nn.utils.rnn.pack_sequence(longest_first, enforce_sorted=True)
    return packed, order


def unpack(outputs: Tensor, batch_sizes: Tensor, order: Sequence[int]) -> list[Tensor]:
    """Cut packed outputs into one tensor a sequence: the inverse of `pack`.

    Args:
        outputs: (sum of L_i, H_out), in packed order.
        batch_sizes: Of the packed sequence.
        order: As `pack` gave it.

    Returns:
        sequences: N tensors, (L_i, H_out), in the order in which the sequences were given.
    """
    padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(PackedSequence(outputs, batch_sizes))
    by_index = {key: padded[: lengths[row], row] for row, key in enumerate(order)}
    return [by_index[key] for key in range(len(order))]


def random_rows(
    model: StepModel, count: int, generator: torch.Generator, inputs: Sequence[Field] | None = None
) -> Tensor:
    """Draw `count` inputs (H_in,), each such as an event of these fields would give.

    Args:
        model: Whose device, and whose dtype if it takes no other.
        count: How many.
        generator: On the CPU.
        inputs: The model's fields; None for numbers.
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
    """Draw one sequence (L_i, H_in) a length."""
    return [random_rows(model, length, generator, inputs) for length in lengths]


def random_state(
    model: StepModel,
    batch_size: int,
    generator: torch.Generator,
    inputs: Sequence[Field] | None = None,
) -> State:
    """Make the state of N keys that have seen three random events."""
    state = model.initial_state(batch_size)
    for _ in range(3):
        _, state = model.step(random_rows(model, batch_size, generator, inputs), state)
    return state


def rows_of(state: State, rows: Sequence[int]) -> State:
    """Take some keys' states, each with memory of its own."""
    return like_state([tensor[list(rows)] for tensor in state_tensors(state)], state)


def step_through(model: StepModel, sequence: Tensor, state: State) -> tuple[Tensor, State]:
    """Step along (L, N, H_in): outputs (L, N, H_out) and the state after the last."""
    outputs = []
    for inputs in sequence:
        output, state = model.step(inputs, state)
        outputs.append(output)
    return torch.stack(outputs), state
