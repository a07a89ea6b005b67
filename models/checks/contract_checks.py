"""One check for each rule of `StepModel`; `check_model` and `check_report` run them all.

Each raises AssertionError with the difference that it found, or returns the largest difference with
its limit. None uses the `assert` statement, so that they also work under `python -O`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from livestep.models.checks.agreement import (
    EXACT,
    Agreement,
    check_close,
    max_difference,
    tolerance_of,
    worse,
)
from livestep.models.checks.packed_sequences import pack, unpack
from livestep.models.contract import State, StepModel, like_state, state_tensors
from livestep.models.sequences.blocks import BlockStepper


def _rows_of(state: State, rows: Sequence[int]) -> State:
    """Copy the states of some keys."""
    return like_state([tensor[list(rows)] for tensor in state_tensors(state)], state)


def _step_through(model: StepModel, sequence: Tensor, state: State) -> tuple[Tensor, State]:
    """Step along (L, N, H_in): outputs (L, N, H_out) and the state after the last step."""
    outputs = []
    for inputs in sequence:
        output, state = model.step(inputs, state)
        outputs.append(output)
    return torch.stack(outputs), state


def check_step_equals_unroll(model: StepModel, sequence: Tensor, prev_state: State) -> Agreement:
    """Check that L steps return the outputs of one unroll from the same states.

    Args:
        model: The model.
        sequence: (L, N, H_in).
        prev_state: (N, ...) each.
    """
    outputs, _ = _step_through(model, sequence, prev_state)
    unrolled = model.unroll(sequence, prev_state)
    return check_close(outputs, unrolled, "step and unroll", tolerance_of(model))


def check_none_means_initial_state(model: StepModel, inputs: Tensor) -> Agreement:
    """Check that `prev_state=None` equals `initial_state`, for inputs (N, H_in)."""
    limit = tolerance_of(model)
    zeros = model.initial_state(len(inputs))
    output, state = model.step(inputs)
    zeros_output, zeros_state = model.step(inputs, zeros)
    return worse(
        check_close(output, zeros_output, "outputs from None and from initial_state", limit),
        check_close(state, zeros_state, "states from None and from initial_state", limit),
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
        where = f"of sequences cut at timestep {cut} and of whole ones"
        worst = worse(
            worst,
            check_close(outputs, whole_outputs, f"outputs {where}", limit),
            check_close(state, whole_state, f"states {where}", limit),
        )
    return worst


def check_packed_equals_unroll(
    model: StepModel, sequences: Sequence[Tensor], prev_state: State
) -> Agreement:
    """Check both packed methods against the unroll of each key alone, and against each other.

    Each key is unrolled in a batch of one, so this also checks that keys don't mix.

    Args:
        model: The model.
        sequences: N tensors (L_i, H_in), ragged.
        prev_state: (N, ...) each; row i belongs to `sequences[i]`.
    """
    limit = tolerance_of(model)
    packed, order = pack(sequences)
    packed_state = _rows_of(prev_state, order)
    outputs, state = model.step_packed(packed, packed_state)
    slow_outputs, slow_state = model.step_packed_by_rank(packed, packed_state)
    worst = worse(
        check_close(outputs, slow_outputs, "outputs of step_packed and of single steps", limit),
        check_close(state, slow_state, "states of step_packed and of single steps", limit),
    )
    for key, streamed in enumerate(unpack(outputs, packed.batch_sizes, order)):
        own = _rows_of(prev_state, [key])
        alone = model.unroll(sequences[key].unsqueeze(1), own).squeeze(1)  # (L_i, H_out)
        what = f"outputs of key {key} in the batch and alone"
        worst = worse(worst, check_close(streamed, alone, what, limit))
    return worst


def check_keys_dont_mix(
    model: StepModel, sequence: Tensor, prev_state: State, others: Tensor
) -> Agreement:
    """Check that no row depends on others: try it alone, in another order, with more keys.

    Args:
        model: The model.
        sequence: (L, N, H_in), N >= 2.
        prev_state: (N, ...) each.
        others: (L, M, H_in). Inputs of other keys, placed before and after the N.
    """
    limit = tolerance_of(model)
    count, other_count = sequence.shape[1], others.shape[1]
    outputs, state = _step_through(model, sequence, prev_state)
    worst = EXACT

    def compare(rows: list[int], among: Tensor, start: State, first: int, how: str) -> None:
        nonlocal worst
        expected_state = _rows_of(state, rows)
        found_outputs, found_state = _step_through(model, among, start)
        block = range(first, first + len(rows))
        worst = worse(
            worst,
            check_close(found_outputs[:, list(block)], outputs[:, rows], f"outputs {how}", limit),
            check_close(_rows_of(found_state, block), expected_state, f"states {how}", limit),
        )

    for row in range(count):
        own = _rows_of(prev_state, [row])
        compare([row], sequence[:, [row]], own, 0, f"of row {row} alone and in the batch")
    turned = list(reversed(range(count)))
    turned_state = _rows_of(prev_state, turned)
    compare(turned, sequence[:, turned], turned_state, 0, "of rows in another order")
    padded = torch.cat([others, sequence, others], dim=1)  # (L, M + N + M, H_in)
    strangers = model.initial_state(other_count)
    pieces = zip(state_tensors(strangers), state_tensors(prev_state), strict=True)
    start = like_state([torch.cat([zero, own, zero]) for zero, own in pieces], prev_state)
    compare(list(range(count)), padded, start, other_count, "with and without more keys")
    return worst


def check_bit_for_bit(
    stepper: BlockStepper,
    sequence: Tensor,
    ragged: Sequence[Tensor],
    prev_state: State,
    others: Tensor,
    many: Tensor,
    long: Tensor,
) -> Agreement:
    """Check that a key's results in blocks are equal bit for bit, whatever else is in its batch.

    Args:
        stepper: Steps the model in its blocks.
        sequence: (L, N, H_in), N >= 2: permuted, padded with other keys, alone, and cut anywhere.
        ragged: N tensors (L_i, H_in): together and alone.
        prev_state: (N, ...) each, for both.
        others: (L, M, H_in). Sequences of other keys.
        many: (L', K, H_in), L' <= L. Short sequences of new keys, enough for several blocks.
        long: (L'', J, H_in), L'' > `FUSED_STEPS`. Long sequences of new keys, cut anywhere.
    """
    new_keys = stepper.initial_state(many.shape[1])
    found = worse(
        check_keys_dont_mix(stepper, sequence, prev_state, others),
        check_keys_dont_mix(stepper, many, new_keys, sequence[: len(many)]),
        check_packed_equals_unroll(stepper, ragged, prev_state),
        check_split_anywhere(stepper, sequence.unbind(dim=1), prev_state),
        check_split_anywhere(stepper, long.unbind(dim=1), stepper.initial_state(long.shape[1])),
    )
    if found.difference:
        raise AssertionError(
            f"a key's results differ by {found.difference:.2g} with the other keys of its batch"
        )
    return found


def check_repeatable(model: StepModel, inputs: Tensor, prev_state: State) -> None:
    """Check that the same step returns the same bits again: no random numbers, no memory."""
    output, state = model.step(inputs, prev_state)
    for _ in range(2):
        again, state_again = model.step(inputs, prev_state)
        if not all(
            map(torch.equal, (output, *state_tensors(state)), (again, *state_tensors(state_again)))
        ):
            raise AssertionError("the same inputs and state returned a different result")


def check_state_stable(model: StepModel, inputs: Tensor, prev_state: State) -> None:
    """Check that all new keys start alike, and that a step keeps the layout of the state.

    Args:
        model: The model.
        inputs: (N, H_in).
        prev_state: (N, ...) each.
    """
    one, many = (state_tensors(model.initial_state(count)) for count in (1, len(inputs)))
    for single, rows in zip(one, many, strict=True):
        if not torch.equal(single.expand_as(rows), rows):
            raise AssertionError("initial_state: new keys differ")
    for tensor in state_tensors(model.initial_state(0)):
        if len(tensor):
            raise AssertionError("initial_state(0) has rows")
    zeros = model.initial_state(len(inputs))
    _check_same_layout(zeros, prev_state)
    for before in (zeros, prev_state):
        _check_same_layout(before, model.step(inputs, before)[1])


def _check_same_layout(before: State, after: State) -> None:
    old_tensors, new_tensors = state_tensors(before), state_tensors(after)
    if type(before) is not type(after) or len(old_tensors) != len(new_tensors):
        raise AssertionError(
            f"the state changed from a {type(before).__name__} of {len(old_tensors)} tensors to a "
            f"{type(after).__name__} of {len(new_tensors)}"
        )
    for old, new in zip(old_tensors, new_tensors, strict=True):
        if (old.shape, old.dtype, old.device) != (new.shape, new.dtype, new.device):
            raise AssertionError(
                f"a state tensor changed from {old.dtype} {tuple(old.shape)} on {old.device} to "
                f"{new.dtype} {tuple(new.shape)} on {new.device}"
            )


def check_saved_state(model: StepModel, sequence: Tensor, prev_state: State) -> None:
    """Check that a state written to bytes and read back continues with the same bits.

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
    outputs, _ = _step_through(model, sequence[1:], state)
    again, _ = _step_through(model, sequence[1:], like_state(tensors, state))
    if not torch.equal(outputs, again):
        raise AssertionError(
            f"outputs differ by {max_difference(outputs, again):.3g} after saving and loading the "
            "state: the model keeps something outside its state"
        )


def check_finite(model: StepModel, sequence: Tensor, prev_state: State) -> None:
    """Check that outputs and states are finite along a sequence (L, N, H_in)."""
    outputs, state = _step_through(model, sequence, prev_state)
    is_finite = torch.isfinite(outputs).flatten(1).all(dim=1)  # (L,)
    if not bool(is_finite.all()):
        first = int(is_finite.logical_not().nonzero()[0])
        raise AssertionError(f"outputs are not finite at timestep {first}")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state_tensors(state)):
        raise AssertionError(f"states are not finite after {len(sequence)} timesteps")


def check_prev_state_kept(model: StepModel, sequences: Sequence[Tensor], prev_state: State) -> None:
    """Check that no method modifies `prev_state`, for N tensors (L_i, H_in)."""
    packed, _ = pack(sequences)
    before = [tensor.clone() for tensor in state_tensors(prev_state)]
    first_inputs = torch.stack([sequence[0] for sequence in sequences])  # (N, H_in)
    model.step(first_inputs, prev_state)
    model.unroll(first_inputs.unsqueeze(0), prev_state)
    model.step_packed(packed, prev_state)
    model.step_packed_by_rank(packed, prev_state)
    for tensor, copy in zip(state_tensors(prev_state), before, strict=True):
        if not torch.equal(tensor, copy):
            raise AssertionError("a method modified prev_state")
