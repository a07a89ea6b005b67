"""What every model has to hold, as checks that a test calls on any `StepModel`.

`trials.check_model` runs them all, `check_report.report` makes a table of them. Each raises
AssertionError with the difference that it found, or returns the largest that it has seen with what
is allowed; none uses the `assert` statement, so that they also work under `python -O`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from livestep.models.checks.check_data import (
    EXACT,
    TOLERANCE,
    Agreement,
    check_close,
    max_difference,
    pack,
    random_sequences,
    random_state,
    rows_of,
    step_through,
    tolerance_of,
    unpack,
    worse,
)
from livestep.models.contract import State, StepModel, like_state, state_tensors

__all__ = [  # with what tests of a model use beside the checks
    "TOLERANCE",
    "check_close",
    "check_finite",
    "check_neighbours",
    "check_none_means_zeros",
    "check_packed_equals_unroll",
    "check_prev_state_kept",
    "check_repeatable",
    "check_saved_state",
    "check_split_anywhere",
    "check_state_stable",
    "check_step_equals_unroll",
    "max_difference",
    "pack",
    "random_sequences",
    "random_state",
    "unpack",
]


def check_step_equals_unroll(model: StepModel, sequence: Tensor, prev_state: State) -> Agreement:
    """Check that stepping L times gives the outputs of one unroll, from the same states.

    Args:
        model: The model.
        sequence: (L, N, H_in).
        prev_state: (N, ...) each.
    """
    outputs, _ = step_through(model, sequence, prev_state)
    unrolled = model.unroll(sequence, prev_state)
    return check_close(outputs, unrolled, "step and unroll", tolerance_of(model))


def check_none_means_zeros(model: StepModel, inputs: Tensor) -> Agreement:
    """Check that `prev_state=None` is the same as `initial_state`, for inputs (N, H_in)."""
    limit = tolerance_of(model)
    zeros = model.initial_state(len(inputs))
    output, state = model.step(inputs)
    zeros_output, zeros_state = model.step(inputs, zeros)
    return worse(
        check_close(output, zeros_output, "outputs from None and from zeros", limit),
        check_close(state, zeros_state, "states from None and from zeros", limit),
    )


def check_split_anywhere(
    model: StepModel, sequences: Sequence[Tensor], prev_state: State
) -> Agreement:
    """Check that cutting each sequence once, anywhere, changes nothing.

    Args:
        model: The model.
        sequences: N tensors (L, H_in) of one length L.
        prev_state: (N, ...) each.
    """
    limit, worst = tolerance_of(model), EXACT
    packed, _ = pack(sequences)
    whole_outputs, whole_state = model.step_packed(packed, prev_state)
    for cut in range(1, len(sequences[0])):
        head, _ = pack([sequence[:cut] for sequence in sequences])
        tail, _ = pack([sequence[cut:] for sequence in sequences])
        head_outputs, state = model.step_packed(head, prev_state)
        tail_outputs, state = model.step_packed(tail, state)
        outputs = torch.cat([head_outputs, tail_outputs])
        worst = worse(
            worst,
            check_close(outputs, whole_outputs, f"outputs cut at {cut} and whole", limit),
            check_close(state, whole_state, f"states cut at {cut} and whole", limit),
        )
    return worst


def check_packed_equals_unroll(
    model: StepModel, sequences: Sequence[Tensor], prev_state: State
) -> Agreement:
    """Check both packed roads against the unroll of each key alone, and against each other.

    Since each key is unrolled in a batch of one, this is also the check that neighbours don't mix.

    Args:
        model: The model.
        sequences: N tensors (L_i, H_in), ragged.
        prev_state: (N, ...) each; row i belongs to `sequences[i]`.
    """
    limit = tolerance_of(model)
    packed, order = pack(sequences)
    packed_state = rows_of(prev_state, order)
    outputs, state = model.step_packed(packed, packed_state)
    slow_outputs, slow_state = model.step_packed_by_rank(packed, packed_state)
    worst = worse(
        check_close(outputs, slow_outputs, "outputs of step_packed and its slow twin", limit),
        check_close(state, slow_state, "states of step_packed and its slow twin", limit),
    )
    for key, streamed in enumerate(unpack(outputs, packed.batch_sizes, order)):
        own = rows_of(prev_state, [key])
        alone = model.unroll(sequences[key].unsqueeze(1), own).squeeze(1)  # (L_i, H_out)
        worst = worse(
            worst, check_close(streamed, alone, f"key {key} among others and alone", limit)
        )
    return worst


def check_neighbours(
    model: StepModel, sequence: Tensor, prev_state: State, others: Tensor
) -> Agreement:
    """Check that a row doesn't depend on the others: alone, in another order, among strangers.

    Args:
        model: The model.
        sequence: (L, N, H_in), N >= 2.
        prev_state: (N, ...) each.
        others: (L, M, H_in). Inputs of other keys, which go before and after the N.
    """
    limit = tolerance_of(model)
    count, other_count = sequence.shape[1], others.shape[1]
    outputs, state = step_through(model, sequence, prev_state)
    worst = EXACT

    def compare(rows: list[int], among: Tensor, start: State, first: int, how: str) -> None:
        nonlocal worst
        found_outputs, found_state = step_through(model, among, start)
        block = range(first, first + len(rows))
        worst = worse(
            worst,
            check_close(found_outputs[:, list(block)], outputs[:, rows], f"outputs {how}", limit),
            check_close(rows_of(found_state, block), rows_of(state, rows), f"states {how}", limit),
        )

    for row in range(count):
        compare([row], sequence[:, [row]], rows_of(prev_state, [row]), 0, "alone and among others")
    turned = list(reversed(range(count)))
    compare(turned, sequence[:, turned], rows_of(prev_state, turned), 0, "in another order")
    padded = torch.cat([others, sequence, others], dim=1)  # (L, M + N + M, H_in)
    strangers = model.initial_state(other_count)
    pieces = zip(state_tensors(strangers), state_tensors(prev_state), strict=True)
    start = like_state([torch.cat([zero, own, zero]) for zero, own in pieces], prev_state)
    compare(list(range(count)), padded, start, other_count, "padded with others")
    return worst


def check_repeatable(model: StepModel, inputs: Tensor, prev_state: State) -> None:
    """Check that the same step gives the same bits again: nothing is drawn, nothing remembered."""
    output, state = model.step(inputs, prev_state)
    for _ in range(2):
        again, state_again = model.step(inputs, prev_state)
        if not all(
            map(torch.equal, (output, *state_tensors(state)), (again, *state_tensors(state_again)))
        ):
            raise AssertionError("the same inputs and state gave something else the second time")


def check_state_stable(model: StepModel, inputs: Tensor, prev_state: State) -> None:
    """Check that new keys are all alike, and that a state stays what it is in a step.

    Args:
        model: The model.
        inputs: (N, H_in).
        prev_state: (N, ...) each.
    """
    one, many = (state_tensors(model.initial_state(count)) for count in (1, len(inputs)))
    for single, rows in zip(one, many, strict=True):
        if not torch.equal(single.expand_as(rows), rows):
            raise AssertionError("initial_state: keys that have seen nothing differ")
    for tensor in state_tensors(model.initial_state(0)):
        if len(tensor):
            raise AssertionError("initial_state of 0 keys has rows")
    zeros = model.initial_state(len(inputs))
    _check_same_layout(zeros, prev_state)
    for before in (zeros, prev_state):
        _check_same_layout(before, model.step(inputs, before)[1])


def _check_same_layout(before: State, after: State) -> None:
    old_tensors, new_tensors = state_tensors(before), state_tensors(after)
    if type(before) is not type(after) or len(old_tensors) != len(new_tensors):
        raise AssertionError(
            f"a state of {len(old_tensors)} tensors became one of {len(new_tensors)}"
        )
    for old, new in zip(old_tensors, new_tensors, strict=True):
        if (old.shape, old.dtype, old.device) != (new.shape, new.dtype, new.device):
            raise AssertionError(
                f"a state tensor {old.dtype} {tuple(old.shape)} on {old.device} became "
                f"{new.dtype} {tuple(new.shape)} on {new.device}"
            )


def check_saved_state(model: StepModel, sequence: Tensor, prev_state: State) -> None:
    """Check that a state written to bytes and read back goes on with the same bits.

    Args:
        model: The model.
        sequence: (L, N, H_in), L >= 2.
        prev_state: (N, ...) each.
    """
    _, state = model.step(sequence[0], prev_state)
    tensors = []
    for tensor in state_tensors(state):
        if not tensor.numel():  # nothing to write
            tensors.append(tensor)
            continue
        content = tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        flat = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        tensors.append(flat.view(tensor.dtype).reshape(tensor.shape).to(tensor.device))
    outputs, _ = step_through(model, sequence[1:], state)
    again, _ = step_through(model, sequence[1:], like_state(tensors, state))
    if not torch.equal(outputs, again):
        raise AssertionError(
            f"outputs differ by {max_difference(outputs, again):.3g} after the state was saved and "
            "loaded: something is kept beside it"
        )


def check_finite(model: StepModel, sequence: Tensor, prev_state: State) -> None:
    """Check that outputs and states are finite along a sequence (L, N, H_in)."""
    outputs, state = step_through(model, sequence, prev_state)
    is_finite = torch.isfinite(outputs).flatten(1).all(dim=1)  # (L,)
    if not bool(is_finite.all()):
        first = int(is_finite.logical_not().nonzero()[0])
        raise AssertionError(f"outputs are not finite at timestep {first}")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state_tensors(state)):
        raise AssertionError(f"states are not finite after {len(sequence)} timesteps")


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
