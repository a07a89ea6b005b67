"""Ragged sequences, packed and unpacked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def pack(sequences: Sequence[Tensor]) -> tuple[PackedSequence, list[int]]:
    """Pack ragged sequences, longest first; sequences of equal length keep their order.

    Args:
        sequences: N tensors, (L_i, H_in) each, L_i >= 1.

    Returns:
        packed: The sequences, as `StepModel.step_packed` accepts them.
        order: N indices; row i of the states belongs to `sequences[order[i]]`.

    Example:
        >>> packed, order = pack([torch.zeros(1, 2), torch.ones(3, 2)])
        >>> packed.batch_sizes.tolist(), order
        ([2, 1, 1], [1, 0])
    """
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    longest_first = [sequences[i] for i in order]
    packed = torch.nn.utils.rnn.pack_sequence(longest_first, enforce_sorted=True)
    return packed, order


def unpack(outputs: Tensor, batch_sizes: Tensor, order: Sequence[int]) -> list[Tensor]:
    """Cut packed outputs into one tensor per sequence: the inverse of `pack`.

    Args:
        outputs: (sum of L_i, H_out), in packed order.
        batch_sizes: From the packed sequence.
        order: As returned by `pack`.

    Returns:
        sequences: N tensors, (L_i, H_out), in the original order of the sequences.
    """
    padded, lengths = torch.nn.utils.rnn.pad_packed_sequence(PackedSequence(outputs, batch_sizes))
    by_index = {key: padded[: lengths[row], row] for row, key in enumerate(order)}
    return [by_index[key] for key in range(len(order))]
