"""Weights between a module and the bytes of `model.safetensors`.

safetensors has no complex128: such a tensor is stored as pairs of float64, and read back as complex
if the module has a complex tensor of that name.
"""

from __future__ import annotations

from collections.abc import Mapping

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from livestep.models.disk.weight_checks import DTYPES
from livestep.models.foreign.foreign_errors import AsModelError
from livestep.models.model_errors import ModelError


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """Copy a module's weights to the CPU as they are stored, each with its own memory.

    Raises:
        ModelError: If one has no values, or is not a dense tensor of one of `DTYPES`.
    """
    with AsModelError("state_dict"):
        tensors = module.state_dict()
    weights = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ModelError("only tensors can be saved", field=name, found=type(tensor).__name__)
        if is_lazy(tensor):
            raise ModelError("a lazy weight has no values yet: step the model once", field=name)
        if tensor.is_meta:
            raise ModelError("a weight on the meta device has no values", field=name)
        if tensor.layout is not torch.strided or tensor.is_quantized:
            found = tensor.layout if tensor.layout is not torch.strided else tensor.dtype
            raise ModelError("only dense tensors can be saved", field=name, found=found)
        if tensor.dtype not in DTYPES:
            expected = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            raise ModelError("wrong dtype", field=name, expected=expected, found=tensor.dtype)
        tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
        if tensor.dtype == torch.complex128:
            tensor = torch.view_as_real(tensor)
        weights[name] = tensor.clone(memory_format=torch.contiguous_format)
    return weights


def write_weights(weights: Mapping[str, Tensor]) -> bytes:
    """Encode stored weights as the bytes of a file."""
    return safetensors.torch.save(dict(weights))


def read_weights(content: bytes) -> dict[str, Tensor]:
    """Decode stored weights, each into its own memory.

    In the bytes of the file, a tensor may start at any address, and the kernel that multiplies it,
    and so its rounding, could depend on that.

    Raises:
        ModelError: If the bytes are not a complete safetensors file.
    """
    try:
        return {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"not a complete safetensors file: {error}") from error


def module_weights(stored: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Convert stored weights to what a module's `load_state_dict` accepts.

    Args:
        stored: As `weights_of` returned them.
        module: Determines which of them are complex.
    """
    weights = dict(stored)
    for name, wanted in module.state_dict().items():
        tensor = weights.get(name)
        if tensor is None or not wanted.is_complex() or tensor.dtype != torch.float64:
            continue
        if tensor.shape == (*wanted.shape, 2):
            weights[name] = torch.view_as_complex(tensor)
    return weights
