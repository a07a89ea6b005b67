"""One step in several batch sizes: finds a model that contradicts itself before it is used."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from livestep.models.contract import state_tensors as flat
from livestep.models.foreign.foreign_errors import AsModelError
from livestep.models.foreign.step_adapter import StepAdapter, dtype_name
from livestep.models.model_errors import ModelError


@torch.inference_mode()
def try_step(
    net: StepAdapter,
    device: torch.device,
    explain: Callable[[ModelError], ModelError] | None = None,
) -> None:
    """Step once from new states in several batch sizes, to find a model that contradicts itself.

    A batch size that equals another dimension proves nothing: (2 layers, N, H) has a row for each
    of two keys. So two of the sizes occur in no state tensor.

    Args:
        net: On its device.
        device: The device of the net.
        explain: Extends an error that only a later size shows.

    Raises:
        ModelError: If a state lacks a row per key, changes its layout in a step, or differs between
            new keys; or if the outputs lack a row per key.
    """
    first = _try_size(net, device, 2)
    dims = {size for tensor in first for size in tensor.shape[1:]}
    unlike_others = itertools.islice((size for size in itertools.count(3) if size not in dims), 2)
    try:
        for batch_size in (*unlike_others, 1):
            _check_alike(first, _try_size(net, device, batch_size))
    except ModelError as error:
        raise explain(error) if explain else error from error.__cause__


def _try_size(net: StepAdapter, device: torch.device, batch_size: int) -> tuple[Tensor, ...]:
    """Step new keys once; return the state from which they started."""
    with AsModelError("inputs"):
        inputs = torch.zeros(batch_size, net.input_size, device=device)
    state = net.initial_state(batch_size)
    for tensor in flat(state):
        if tensor.device.type != device.type:
            raise ModelError(
                "initial_state must create the state on the device of the weights",
                expected=device,
                found=tensor.device,
            )
    kept = tuple(tensor.clone() for tensor in flat(state))  # the step may modify it
    net.step(inputs, state)
    return kept


def _check_alike(some: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> None:
    """Check that new keys start alike, however many there are: the engine copies one for all."""
    if len(some) != len(others):
        raise ModelError(
            "initial_state: the number of tensors depends on the number of keys",
            expected=len(some),
            found=len(others),
        )
    for one, other in zip(some, others, strict=True):
        if one.shape[1:] != other.shape[1:] or one.dtype != other.dtype:
            raise ModelError(
                "initial_state: the state of a key depends on the number of keys",
                expected=f"{dtype_name(one.dtype)} {('N', *one.shape[1:])}",
                found=f"{dtype_name(other.dtype)} {tuple(other.shape)} for {len(other)} keys",
            )
        rows = torch.cat([one, other])
        if rows.numel() and not torch.equal(rows[:1].expand_as(rows), rows):
            problem = "initial_state: all new keys must start alike, from zeros or learned values"
            raise ModelError(problem, found="different rows")
