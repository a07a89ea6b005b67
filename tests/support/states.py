"""States that tell their keys apart by one number each."""

from __future__ import annotations

import torch

from livestep import GRU
from livestep.pipeline.state.pool import StateLayout, States

#: Of a small net.
LAYOUT = StateLayout(GRU(input_size=1, hidden_size=3, output_size=1).initial_state(1))


def states(*values: int, layout: StateLayout = LAYOUT) -> States:
    """Make states whose numbers and offsets are the values, and ten times so many timesteps."""
    found = layout.fresh(len(values))
    for tensor in found.tensors:
        tensor += torch.tensor(values, dtype=tensor.dtype).reshape(-1, *[1] * (tensor.dim() - 1))
    found.offsets[:] = values
    found.timesteps[:] = [10 * value for value in values]
    return found
