"""Programs as users bring them: how they are made, and one with two states."""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn


class TwoStates(nn.Module):
    """A GRU cell and a count; forward takes and gives both."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRUCell(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, h: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.cell(x, h)
        return self.head(h) / (1 + seen).unsqueeze(1), h, seen + 1


class Stateless(nn.Module):
    """A linear head; forward takes the inputs alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


TWO = (torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))


def script(module: nn.Module) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.script(module).save_to_buffer()  # type: ignore[no-any-return]


def trace(module: nn.Module, *examples: Tensor) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return torch.jit.trace(module, examples).save_to_buffer()  # type: ignore[no-any-return]


def export(
    module: nn.Module,
    *examples: Any,
    axes: tuple[int, ...] | None = None,
    count: Any = torch.export.Dim("N"),  # noqa: B008
    shapes: Any = None,
) -> bytes:
    """Export for any number of keys, whose axis in each example is given; None for this number.

    Or with `shapes`, as torch takes them.
    """
    if axes is not None:
        shapes = tuple({axis: count} for axis in axes)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # torch takes the flat weights of its own RNNs for attributes that the module sets.
        warnings.filterwarnings("ignore", "The tensor attribute", UserWarning)
        torch.export.save(torch.export.export(module, examples, dynamic_shapes=shapes), buffer)
    return buffer.getvalue()
