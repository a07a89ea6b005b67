"""Whether stored weights are those of a module: names, shapes, dtypes, values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from livestep.models.disk.model_json import ModelFile
from livestep.models.model_errors import ModelError

#: Dtypes that a tensor in the weights of a user's class may have.
DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
)


def check_dtype(description: ModelFile, weights: Mapping[str, Tensor], file: Path | None) -> None:
    """Raise ModelError if a description claims float32 for weights of another dtype."""
    for name, tensor in weights.items():
        if description.dtype == "float32" and tensor.dtype != torch.float32:
            problem = f"the tensor {name} has another dtype"
            raise ModelError(
                problem, file=file, field="dtype", expected=torch.float32, found=tensor.dtype
            )


def check_weights(
    weights: Mapping[str, Tensor], cell: nn.Module, file: Path | None, *, is_own: bool = True
) -> None:
    """Raise ModelError unless the weights are those of a module: names, dtypes, shapes, values.

    Args:
        weights: What will be its `state_dict`.
        cell: The module.
        file: Where the weights are from, for errors.
        is_own: Whether it is a class of this package, which is float32 throughout.
    """
    wanted = cell.state_dict()
    parameters = {name for name, _ in cell.named_parameters()}
    for name in sorted(wanted.keys() | weights.keys()):
        if name not in weights:
            raise ModelError("the tensor is missing", file=file, field=name)
        if name not in wanted:
            problem = f"a {type(cell).__name__} of these sizes has no such tensor"
            raise ModelError(problem, file=file, field=name)
        tensor = weights[name]
        expected_shape, found_shape = tuple(wanted[name].shape), tuple(tensor.shape)
        if found_shape != expected_shape:
            raise ModelError(
                "wrong shape", file=file, field=name, expected=expected_shape, found=found_shape
            )
        dtype = torch.float32 if is_own else wanted[name].dtype
        is_other_size = not is_own and _is_other_size(dtype, tensor.dtype)
        if (tensor.dtype != dtype and not is_other_size) or tensor.dtype not in DTYPES:
            raise ModelError(
                "wrong dtype", file=file, field=name, expected=dtype, found=tensor.dtype
            )
        # A buffer may hold infinity on purpose: a mask.
        if name in parameters and not bool(torch.isfinite(tensor).all()):
            problem = "a weight is not finite"
            raise ModelError(problem, file=file, field=name, found="NaN or infinity")


def _is_other_size(one: torch.dtype, other: torch.dtype) -> bool:
    """Whether both are floats, or both are complex."""
    are_floats = one.is_floating_point and other.is_floating_point
    return are_floats or (one.is_complex and other.is_complex)
