"""How closely two results must agree: the tolerance for each dtype, and comparisons within it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from livestep.models.contract import State, StepModel, state_tensors

#: Largest |stream - unroll| that rounding may cause, by dtype of weights and states: for another
#: batch size torch may choose another kernel, which adds in another order. The values apply to
#: magnitudes up to 1, and scale with larger ones. Measured on CPU, 200 timesteps of RNN, GRU and
#: LSTM cells of 16 to 256 units stay 10 times below (float16 2.4e-4, bfloat16 2.0e-3).
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
    """How closely two results agree.

    Attributes:
        difference: The largest difference.
        allowed: The limit: the tolerance, scaled for values above 1.
    """

    difference: float
    allowed: float


#: The agreement of results without any values to compare.
EXACT = Agreement(0.0, 0.0)


def worse(*agreements: Agreement) -> Agreement:
    """Return the agreement that comes closest to its limit; the first of equals.

    Example:
        >>> worse(Agreement(2e-6, 1e-5), Agreement(9e-5, 1e-3))
        Agreement(difference=2e-06, allowed=1e-05)
    """
    return max(agreements, key=lambda one: one.difference / (one.allowed or 1.0))


def check_close(left: State, right: State, what: str, limit: float = 0.0) -> Agreement:
    """Check that two tensors, or two states, agree.

    Args:
        left: One result.
        right: The other; the same shapes and dtypes.
        what: What is compared, for the error message.
        limit: The tolerance, if larger than that of the tensors' own dtypes; integers must always
            be equal.

    Returns:
        agreement: Of the pair of tensors that comes closest to its limit.

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
            raise AssertionError(f"{what} differ by {difference:.3g} (limit {allowed:.3g})")
        worst = worse(worst, Agreement(difference, allowed))
    return worst


def tolerance_of(model: StepModel) -> float:
    """Return the tolerance for the coarsest dtype of a model's weights and states.

    Example:
        >>> from livestep import GRU
        >>> tolerance_of(GRU(1, 2, 1))
        1e-05
    """
    tensors = (*model.parameters(), *state_tensors(model.initial_state(1)))
    return max((_tolerance(tensor.dtype) for tensor in tensors), default=1e-5)


def _tolerance(dtype: torch.dtype) -> float:
    """Return the tolerance of a dtype; for complex, that of its parts; 0 for integers."""
    return TOLERANCE.get(dtype.to_real() if dtype.is_complex else dtype, 0.0)
