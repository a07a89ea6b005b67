"""What every model has to hold, as checks that a test calls on any `StepModel`.

`check_model` runs them all. Each raises AssertionError with the difference that it found; none
uses the `assert` statement, so that they also work under `python -O`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from models.contract import State, StepModel, like_state, state_tensors

#: Largest |stream - unroll| that rounding may cause, by dtype: another batch size may make torch
#: choose another kernel, which adds in another order. It is meant for outputs of magnitude around
#: 1; measured on CPU, 200 timesteps of the cells in this package stay 10 times below it.
TOLERANCE: dict[torch.dtype, float] = {torch.float32: 1e-5, torch.float64: 1e-12}


def max_difference(left: Tensor, right: Tensor) -> float:
    """Return the largest |left - right| of two tensors of one shape; 0.0 if they are empty.

    Raises:
        AssertionError: If the shapes differ.

    Example:
        >>> max_difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]))
        0.5
    """
    if left.shape != right.shape:
        raise AssertionError(f"shapes differ: {tuple(left.shape)} and {tuple(right.shape)}")
    return float((left - right).detach().abs().max()) if left.numel() else 0.0


def check_close(left: State, right: State, what: str) -> None:
    """Raise AssertionError unless two tensors, or two states, agree within `TOLERANCE`."""
    pairs = zip(state_tensors(left), state_tensors(right), strict=True)
    for left_tensor, right_tensor in pairs:
        difference = max_difference(left_tensor, right_tensor)
        limit = TOLERANCE[left_tensor.dtype]
        if not difference <= limit:  # also true for NaN
            raise AssertionError(f"{what}: they differ by {difference:.3g}, allowed is {limit:g}")


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


def random_sequences(
    model: StepModel, lengths: Sequence[int], generator: torch.Generator
) -> list[Tensor]:
    """Draw one sequence (L_i, H_in) a length, in the dtype of the model's weights."""
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    return [
        torch.randn(length, model.input_size, generator=generator, dtype=dtype)
        for length in lengths
    ]


def random_state(model: StepModel, batch_size: int, generator: torch.Generator) -> State:
    """Draw a state of N keys, as if they had seen something already."""
    zeros = model.initial_state(batch_size)
    drawn = [
        torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) - 0.5
        for tensor in state_tensors(zeros)
    ]
    return like_state(drawn, zeros)


def check_step_equals_unroll(model: StepModel, sequence: Tensor, prev_state: State) -> None:
    """Check that stepping L times gives the outputs of one unroll, from the same states.

    Args:
        model: The model.
        sequence: (L, N, H_in).
        prev_state: (N, ...) each.
    """
    state = prev_state
    outputs = []
    for inputs in sequence:
        output, state = model.step(inputs, state)
        outputs.append(output)
    check_close(torch.stack(outputs), model.unroll(sequence, prev_state), "step and unroll")


def check_none_means_zeros(model: StepModel, inputs: Tensor) -> None:
    """Check that `prev_state=None` is the same as `initial_state`, for inputs (N, H_in)."""
    zeros = model.initial_state(len(inputs))
    output, state = model.step(inputs)
    zeros_output, zeros_state = model.step(inputs, zeros)
    check_close(output, zeros_output, "outputs from None and from zeros")
    check_close(state, zeros_state, "states from None and from zeros")


def check_split_anywhere(model: StepModel, sequences: Sequence[Tensor], prev_state: State) -> None:
    """Check that cutting each sequence once, anywhere, changes nothing.

    Args:
        model: The model.
        sequences: N tensors (L, H_in) of one length L.
        prev_state: (N, ...) each.
    """
    packed, _ = pack(sequences)
    whole_outputs, whole_state = model.step_packed(packed, prev_state)
    for cut in range(1, len(sequences[0])):
        head, _ = pack([sequence[:cut] for sequence in sequences])
        tail, _ = pack([sequence[cut:] for sequence in sequences])
        head_outputs, state = model.step_packed(head, prev_state)
        tail_outputs, state = model.step_packed(tail, state)
        outputs = torch.cat([head_outputs, tail_outputs])
        check_close(outputs, whole_outputs, f"outputs cut at {cut} and whole")
        check_close(state, whole_state, f"states cut at {cut} and whole")


def check_packed_equals_unroll(
    model: StepModel, sequences: Sequence[Tensor], prev_state: State
) -> None:
    """Check both packed roads against the unroll of each key alone, and against each other.

    Since each key is unrolled in a batch of one, this is also the check that neighbours don't mix.

    Args:
        model: The model.
        sequences: N tensors (L_i, H_in), ragged.
        prev_state: (N, ...) each; row i belongs to `sequences[i]`.
    """
    packed, order = pack(sequences)
    rows = [tensor[order] for tensor in state_tensors(prev_state)]
    packed_state = like_state(rows, prev_state)
    outputs, state = model.step_packed(packed, packed_state)
    slow_outputs, slow_state = model.step_packed_by_rank(packed, packed_state)
    check_close(outputs, slow_outputs, "outputs of step_packed and its slow twin")
    check_close(state, slow_state, "states of step_packed and its slow twin")
    for key, streamed in enumerate(unpack(outputs, packed.batch_sizes, order)):
        own = like_state([tensor[[key]] for tensor in state_tensors(prev_state)], prev_state)
        alone = model.unroll(sequences[key].unsqueeze(1), own).squeeze(1)  # (L_i, H_out)
        check_close(streamed, alone, f"key {key} among others and alone")


def check_prev_state_kept(model: StepModel, sequences: Sequence[Tensor], prev_state: State) -> None:
    """Check that no method writes to `prev_state`, for N tensors (L_i, H_in)."""
    packed, _ = pack(sequences)
    before = [tensor.clone() for tensor in state_tensors(prev_state)]
    first_inputs = torch.stack([sequence[0] for sequence in sequences])  # (N, H_in)
    model.step(first_inputs, prev_state)
    model.unroll(first_inputs.unsqueeze(0), prev_state)
    model.step_packed(packed, prev_state)
    model.step_packed_by_rank(packed, prev_state)
    for tensor, copy in zip(state_tensors(prev_state), before, strict=True):
        if not torch.equal(tensor, copy):
            raise AssertionError("prev_state was written to")


@torch.inference_mode()
def check_model(model: StepModel, seed: int = 0) -> None:
    """Check that a model keeps the contract of `StepModel`, on random data.

    Call it on a model of your own before you give it to a worker.

    Args:
        model: Any model on the CPU, with float32 or float64 states.
        seed: Of the random sequences and states.

    Raises:
        AssertionError: If a rule is broken; says which, and by how much.

    Example:
        >>> from models import GRU
        >>> check_model(GRU(input_size=3, hidden_size=8, output_size=2))
    """
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 12, (7,), generator=generator).tolist()
    ragged = random_sequences(model, lengths, generator)
    equal = random_sequences(model, [6] * len(lengths), generator)
    prev_state = random_state(model, len(lengths), generator)
    sequence = torch.stack(equal, dim=1)  # (L, N, H_in)

    check_none_means_zeros(model, sequence[0])
    check_step_equals_unroll(model, sequence, prev_state)
    check_split_anywhere(model, equal, prev_state)
    check_packed_equals_unroll(model, ragged, prev_state)
    check_prev_state_kept(model, ragged, prev_state)
