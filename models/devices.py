"""Where a model is stepped: the CPU, or one CUDA device."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from livestep.models.model_errors import ModelError


def choose_device(name: str) -> torch.device:
    """Return the device that a setting names.

    On CUDA, this sets recurrent layers and matrix products to full float32 for the process: cuDNN
    rounds to TF32 by default, and a key's prediction would then depend on the rest of its batch.

    Args:
        name: "cpu", "cuda", or "auto" for CUDA if it is available, else the CPU.

    Returns:
        device: The device.

    Raises:
        ModelError: If CUDA is requested and torch finds no CUDA device, or if the name is unknown.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')

    Source:
        https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ModelError(
            "unknown device", field="device", expected="auto, cpu or cuda", found=repr(name)
        )
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise ModelError(
            "torch finds no CUDA device; use --device cpu or --device auto",
            field="device",
            expected="a CUDA device",
            found="none",
        )
    if name == "cpu" or not has_cuda:
        return torch.device("cpu")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda")


def device_of(net: nn.Module) -> torch.device:
    """Return the device of a net: that of its weights, or the CPU if it has none.

    Example:
        >>> device_of(torch.nn.Linear(1, 1)), device_of(torch.nn.Tanh())
        (device(type='cpu'), device(type='cpu'))
    """
    tensors = itertools.chain(net.parameters(), net.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
