"""Check that saving and loading returns the same net: both are stepped, every bit is compared.

A class is stored as its name, its arguments, and its weights. Anything else that a net computes
with (an attribute, a hook, a buffer that isn't persistent) would be lost silently.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from livestep.models.checks.packed_sequences import pack
from livestep.models.checks.random_events import random_rows
from livestep.models.contract import State, StepModel, state_tensors
from livestep.models.disk.net_differences import (
    Arguments,
    causes,
    changed_tensors,
    differences,
    is_same_tensor,
)
from livestep.models.fields.field_types import Field, Number, absent_row, field_blocks
from livestep.models.foreign.foreign_errors import FOREIGN_ERRORS, AsModelError, error_in_words
from livestep.models.foreign.user_classes import AdaptedModel
from livestep.models.model_errors import ModelError
from livestep.models.seeding import random_states

#: The most rows of each kind of inputs, timesteps, and numbers of all inputs together.
_ROWS, _STEPS, _NUMBERS_MAX = 4, 10, 20_000_000

#: Kinds of inputs: their names, and how they are made from normally distributed numbers.
_KINDS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "zeros": torch.zeros_like,
    "random numbers": torch.clone,
    "numbers from 0 to 1": torch.special.ndtr,
    "zeros and ones": lambda numbers: (numbers > 0).to(numbers.dtype),
    "small numbers": lambda numbers: numbers * 1e-3,
    "large numbers": lambda numbers: numbers * 100,
    "very large numbers": lambda numbers: numbers * 1e6,
}

_GO = "the inputs that start a generated sequence"


class _Seen(NamedTuple):
    """One tensor that a net returned, and where."""

    place: str
    value: Tensor


class _Run(NamedTuple):
    """All that a net returned, and what it raised in the end."""

    seen: list[_Seen]
    error: ModelError | None


def check_round_trip(
    model: nn.Module,
    stored: StepModel,
    inputs: Sequence[Field],
    arguments: Arguments,
    *,
    is_generating: bool,
) -> None:
    """Check that a net that was built from the stored files is the one to be saved.

    Both are stepped on the CPU, in eval mode, several keys for several timesteps, with the same
    inputs. The given model is copied first: neither its mode nor its buffers change.

    Args:
        model: The model to be saved, on any device.
        stored: As it would be loaded, on the CPU.
        inputs: What the columns mean.
        arguments: The arguments with which the stored one was made.
        is_generating: Whether to also step with the inputs that start a generated sequence.

    Raises:
        ModelError: If a step of the model changes a weight or buffer, or returns something else the
            second time; or if outputs or states of the two differ in one bit, or one of them
            raises: states by how much, where, and what differs in the two nets.
    """
    twin = _twin(model, stored)
    sequence, kinds = _sequence(stored, inputs, is_generating)
    with torch.inference_mode():
        random_before = random_states()
        first = _run(twin, sequence)
        groups = [list(range(len(kinds)))]
        if first.error is not None:  # some kind of inputs can't be stepped: try each kind alone
            groups = [
                [row for row, one in enumerate(kinds) if one == kind]
                for kind in dict.fromkeys(kinds)
            ]
        for rows in groups:
            part = sequence[:, rows]
            runs = [first if len(groups) == 1 else _run(twin, part), _run(twin, part)]
            _check_kept(model, twin, runs, has_drawn=random_states() != random_before)
            runs = [runs[0], _run(stored, part)]
            _compare(model, stored, runs, [kinds[row] for row in rows], arguments)


def _twin(model: nn.Module, stored: StepModel) -> StepModel:
    """Copy the given model to the CPU, in eval mode, with the same adapter as `stored`."""
    module = model.module if isinstance(model, AdaptedModel) else model
    memo: dict[int, Any] = {}
    for inner in module.modules():
        # Attributes, too: a weight norm keeps a tensor there that deepcopy rejects.
        own = (*inner.parameters(recurse=False), *inner.buffers(recurse=False))
        for tensor in (*own, *vars(inner).values()):
            if type(tensor) in (Tensor, nn.Parameter):
                memo[id(tensor)] = _cpu_copy(tensor)
    try:
        twin: Any = copy.deepcopy(module, memo)
    except FOREIGN_ERRORS as error:  # raised by an attribute of the user's
        raise ModelError(
            "the model can't be copied, to compare it with what would be loaded: "
            f"{error_in_words(error)}",
            field="model",
        ) from error
    with AsModelError("eval"):
        twin.eval()
    twin.requires_grad_(False)
    return stored.around(twin) if isinstance(stored, AdaptedModel) else twin


def _cpu_copy(tensor: Tensor) -> Tensor:
    """Copy a tensor as it would be loaded: on the CPU, dense, without a gradient."""
    value = tensor.detach().cpu().resolve_conj().resolve_neg()
    value = value.clone(memory_format=torch.contiguous_format)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(value, requires_grad=False)
    return value


def _sequence(
    net: StepModel, fields: Sequence[Field], is_generating: bool
) -> tuple[Tensor, list[str]]:
    """Draw inputs (L, N, H_in) of all kinds; return them and the kind of each row."""
    kinds = [kind for kind in _KINDS for _ in range(_ROWS)]
    steps = max(2, min(_STEPS, _NUMBERS_MAX // (len(kinds) * net.input_size)))
    generator = torch.Generator().manual_seed(0)
    rows = random_rows(net, steps * len(kinds), generator, fields)
    sequence = rows.reshape(steps, len(kinds), net.input_size)
    for field, block in zip(fields, field_blocks(fields), strict=True):
        if isinstance(field, Number):
            for index, change in enumerate(_KINDS.values()):
                part = sequence[:, index * _ROWS : (index + 1) * _ROWS, block]
                part.copy_(change(part))
    if not is_generating:
        return sequence, kinds
    go = torch.from_numpy(absent_row(fields)).to(sequence)
    return torch.cat([sequence, go.expand(steps, 1, -1)], dim=1), [*kinds, _GO]


def _run(net: StepModel, sequence: Tensor) -> _Run:
    """Step a sequence, up to the first error."""
    seen: list[_Seen] = []
    try:
        for one in _trace(net, sequence):
            seen.append(one)  # noqa: PERF402 - keeps what precedes an error
    except ModelError as error:  # from the net
        return _Run(seen, error)
    return _Run(seen, None)


def _trace(net: StepModel, sequence: Tensor) -> Iterator[_Seen]:
    """Step (L, N, H_in) by each method that a net has, and yield everything returned."""
    count = sequence.shape[1]
    # A net of this package may raise errors of torch, if a part of it was replaced.
    with AsModelError("initial_state"):
        state = net.initial_state(count)
    yield from _states("initial_state", state)
    for step, inputs in enumerate(sequence):
        with AsModelError("step"):
            outputs, state = net.step(inputs, state)
        yield _Seen(f"the outputs of step {step}", outputs.clone())
        yield from _states(f"the state after step {step}", state)
    if _has_own(net, "unroll"):
        with AsModelError("unroll"):
            outputs = net.unroll(sequence, net.initial_state(count))  # (L, N, H_out)
        yield _Seen("the outputs of unroll", outputs.transpose(0, 1))
    if _has_own(net, "step_packed"):
        lengths = [1 + row % len(sequence) for row in range(count)]
        packed, _ = pack([sequence[:length, row] for row, length in enumerate(lengths)])
        with AsModelError("step_packed"):
            outputs, state = net.step_packed(packed, net.initial_state(count))
        yield _Seen("the outputs of step_packed", outputs)
        yield from _states("the state after step_packed", state)


def _states(place: str, state: State) -> Iterator[_Seen]:
    """Copy the tensors of a state, which the next step may write to."""
    tensors = state_tensors(state)
    for index, tensor in enumerate(tensors):
        which = f", tensor {index}" if len(tensors) > 1 else ""
        yield _Seen(f"{place}{which}", tensor.clone())


def _has_own(net: StepModel, method: str) -> bool:
    """Whether a net has its own version of a method, in addition to `step`."""
    if isinstance(net, AdaptedModel):
        return getattr(net.module, method, None) is not None
    return getattr(type(net), method) is not getattr(StepModel, method)


def _check_kept(
    model: nn.Module, twin: StepModel, runs: Sequence[_Run], *, has_drawn: bool
) -> None:
    """Check that stepping does not change the model, and returns the same again."""
    given = model.module if isinstance(model, AdaptedModel) else model
    after = twin.module if isinstance(twin, AdaptedModel) else twin
    if changed := changed_tensors(given, after):
        raise ModelError(
            f"a step writes to {', '.join(changed)}, which all keys share and which is not saved "
            "again; keep what changes with the events in the state",
            field=changed[0],
        )
    if _first_difference(*runs) is None:
        return
    problem = "the same inputs returned something else the second time"
    if has_drawn:
        problem += (
            ": a step draws random numbers, and a replay would draw others; for dropout, pass "
            "training=self.training"
        )
    else:
        found = "; ".join(differences(given, after)) or "no difference was found"
        problem += f": step keeps something outside the state ({found}); keep it in the state"
    raise ModelError(problem, field="step")


def _compare(
    model: nn.Module,
    stored: StepModel,
    runs: Sequence[_Run],
    kinds: Sequence[str],
    arguments: Arguments,
) -> None:
    """Check that the given and the loaded model returned the same."""
    given, loaded = runs
    first = _first_difference(given, loaded)
    if first is None:
        return
    if first < min(len(given.seen), len(loaded.seen)):
        where = _worst(given.seen, loaded.seen, kinds)
        where += f", first in {given.seen[first].place}"
    else:
        where = f"the given model: {_raised(given)}; the loaded model: {_raised(loaded)}"
    module = model.module if isinstance(model, AdaptedModel) else model
    other = stored.module if isinstance(stored, AdaptedModel) else stored
    found = "; ".join(causes(module, other, arguments)) or (
        "look for an attribute that was set after construction, a buffer with persistent=False, or "
        "a forward hook"
    )
    raise ModelError(
        f"the loaded model would differ from the given one: {where}; {found}", field="model"
    )


def _first_difference(one: _Run, other: _Run) -> int | None:
    """Return the index of the first tensor that differs; the shorter length if one run ended."""
    pairs = zip(one.seen, other.seen, strict=False)
    for index, (left, right) in enumerate(pairs):
        if not is_same_tensor(left.value, right.value):
            return index
    if len(one.seen) != len(other.seen) or (one.error is None) != (other.error is None):
        return min(len(one.seen), len(other.seen))
    return None


def _worst(given: Sequence[_Seen], loaded: Sequence[_Seen], kinds: Sequence[str]) -> str:
    """Describe the largest difference: with random numbers if they show any."""
    best = ""
    for kind in ("random numbers", *dict.fromkeys(kinds), ""):
        rows = [row for row, one in enumerate(kinds) if one == kind]
        worst = 0.0
        for left, right in zip(given, loaded, strict=False):
            one, other = left.value, right.value
            if one.shape != other.shape or one.dtype != other.dtype:
                return (
                    f"{left.place}: given {one.dtype} {tuple(one.shape)}, loaded {other.dtype} "
                    f"{tuple(other.shape)}"
                )
            if kind:
                if len(one) != len(kinds):
                    continue
                one, other = one[rows], other[rows]
            difference, words = _difference(one, other)
            if difference > worst:
                worst, best = difference, f"{left.place} differ by {words}"
                best += f" with {kind}" if kind else ""
        if best:
            return best
    return best


def _difference(one: Tensor, other: Tensor) -> tuple[float, str]:
    """Return the largest difference of two tensors of one shape, and a phrase with both values."""
    is_other = ~((one == other) | ((one != one) & (other != other)))
    if not bool(is_other.any()):
        return 0.0, ""
    kind = torch.complex128 if one.is_complex() else torch.float64
    apart = (one.to(kind) - other.to(kind)).abs().nan_to_num(nan=math.inf)
    place = int(apart.masked_fill(~is_other, -1).argmax())
    values = [tensor.flatten()[place].item() for tensor in (one, other)]
    given, loaded = (f"{value:.6g}" if not isinstance(value, bool) else value for value in values)
    difference = float(apart.flatten()[place])
    return difference, f"{difference:.3g} (given {given}, loaded {loaded})"


def _raised(run: _Run) -> str:
    return run.error.problem if run.error is not None else "no error"
