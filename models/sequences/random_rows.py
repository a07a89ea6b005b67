"""Random rows of some fields, as the encoder makes them from events."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from livestep.models.fields.field_types import NO_INDEX, Field, Number, Text, is_index


def random_field_rows(fields: Sequence[Field], count: int, generator: torch.Generator) -> Tensor:
    """Draw rows whose indices are valid.

    Args:
        fields: What the columns mean, side by side.
        count: Number of rows.
        generator: On the CPU.

    Returns:
        rows: (count, H_in) float32, on the CPU.

    Example:
        >>> random_field_rows([Number("x", 3)], 5, torch.Generator()).shape
        torch.Size([5, 3])
    """
    return torch.cat([_random_block(field, count, generator) for field in fields], dim=1)


def _random_block(field: Field, count: int, generator: torch.Generator) -> Tensor:
    """Draw the columns of one field, (count, width)."""
    if isinstance(field, Number):
        return torch.randn(count, field.size, generator=generator)
    if isinstance(field, Text):
        letters = (count, field.length)
        indices = torch.randint(0, len(field.alphabet), letters, generator=generator)
        lengths = torch.randint(0, field.length + 1, (count, 1), generator=generator)
        return indices.masked_fill(torch.arange(field.length) >= lengths, NO_INDEX).float()
    lowest = NO_INDEX if field.optional else 0
    indices = torch.randint(lowest, len(field.values), (count, 1), generator=generator)
    if is_index(field):
        return indices.float()
    return (indices == torch.arange(len(field.values))).float()
