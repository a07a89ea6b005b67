"""The verb step: a whole batch in one model call, whichever keys it mixes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from models.contract import State, StepModel, like_state, state_tensors
from pipeline.batch import Batch, BoolArray, IntArray, rank
from pipeline.codec import FloatArray
from pipeline.pool import States


@dataclass(slots=True)
class Stepped:
    """What a step gives.

    Attributes:
        outputs: (n, H_out) float32, in the order of the batch's events; zeros for one left out.
        timesteps: (n,) int64.  Count of the key's events before this one.
        states: The N keys' next states, in the order of `Batch.keys`.
        is_finite: (n,) bool.  False for an event that would have made its key's state or its own
            output NaN or infinite: it was left out, its key's state is as it was before.
    """

    outputs: FloatArray
    timesteps: IntArray
    states: States
    is_finite: BoolArray


class Stepper:
    """Steps batches through one model on one device.

    Args:
        net: The model, in evaluation mode.
        device: Where it is.
    """

    def __init__(self, net: StepModel, device: torch.device) -> None:
        self._net = net
        self._device = device
        self._template: State = net.initial_state(1)

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Step once and forget it, so that the first event need not wait for what torch sets up."""
        data = torch.zeros(2, self._net.input_size, device=self._device)
        sequence = PackedSequence(data, torch.ones(2, dtype=torch.int64))
        self._net.step_packed(sequence, self._template)

    @torch.inference_mode()
    def step(self, batch: Batch, states: States) -> Stepped:
        """Step every event of the batch, each key's in its order.

        `states` is not written to.  # A crash here replays this poll; nothing is written.

        Args:
            batch: n events of N keys.
            states: The N keys' states before the batch.
        """
        if not len(batch.offsets):
            empty = np.zeros((0, self._net.output_size), dtype=np.float32)
            none = np.zeros(0, dtype=np.int64)
            return Stepped(empty, none, states, np.zeros(0, dtype=bool))
        ranks = rank(batch.key_index)
        rows = self._on_device(ranks.rows)
        sequence = PackedSequence(
            self._on_device(batch.inputs[ranks.events]), torch.from_numpy(ranks.batch_sizes)
        )
        previous = tuple(tensor.index_select(0, rows) for tensor in states.tensors)
        packed, following = self._net.step_packed(sequence, like_state(previous, self._template))
        next_rows = state_tensors(following)

        is_finite = np.ones(len(batch.offsets), dtype=bool)
        if not (_all_finite(packed) and all(map(_all_finite, next_rows))):
            packed, next_rows, finite = self._step_guarded(sequence, previous)
            is_finite[ranks.events] = finite

        outputs = np.empty((len(batch.offsets), packed.shape[1]), dtype=np.float32)
        outputs[ranks.events] = packed.cpu().numpy()
        next_states = States(
            tuple(
                tensor.index_copy(0, rows, next_row)
                for tensor, next_row in zip(states.tensors, next_rows, strict=True)
            ),
            states.offsets.copy(),
            states.timesteps.copy(),
        )
        # A key's events stand in order, so the assignment that wins is its last one.
        next_states.offsets[batch.key_index] = batch.offsets
        np.add.at(next_states.timesteps, batch.key_index, is_finite)
        timesteps = count_before(batch.key_index, is_finite) + states.timesteps[batch.key_index]
        return Stepped(outputs, timesteps, next_states, is_finite)

    def _step_guarded(
        self, sequence: PackedSequence, previous: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...], BoolArray]:
        """Step rank by rank, leaving out what isn't finite: the slow road, for poisoned batches.

        What is left out depends on the key's own events alone, so a replay leaves out the same.
        """
        current = [tensor.clone() for tensor in previous]
        outputs, finite = [], []
        start = 0
        for size in sequence.batch_sizes.tolist():
            prev_state = like_state(tuple(t[:size] for t in current), self._template)
            y, next_state = self._net.step(sequence.data[start : start + size], prev_state)
            start += size
            rows = state_tensors(next_state)
            is_good = torch.isfinite(y).all(dim=1)
            for row in rows:
                is_good &= torch.isfinite(row).reshape(size, -1).all(dim=1)
            for tensor, row in zip(current, rows, strict=True):
                good = is_good.reshape(size, *[1] * (row.dim() - 1))
                tensor[:size] = torch.where(good, row, tensor[:size])
            # Zeros, so that nobody after this has to know what a NaN is.
            outputs.append(torch.where(is_good.unsqueeze(1), y, 0))
            finite.append(is_good)
        return torch.cat(outputs), tuple(current), torch.cat(finite).cpu().numpy()

    def _on_device(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._device.type == "cuda":
            # Pinned memory lets the copy run while the host goes on.
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor


def count_before(key_index: IntArray, is_counted: BoolArray) -> IntArray:
    """Count for each event the counted events of its key before it.

    Args:
        key_index: (n,) int64.  The key of each event, in time order.
        is_counted: (n,) bool.

    Example:
        >>> count_before(np.array([1, 0, 1, 1]), np.array([True, True, False, True])).tolist()
        [0, 0, 1, 1]
    """
    by_key = np.argsort(key_index, kind="stable")
    counted = is_counted[by_key].astype(np.int64)
    before = np.cumsum(counted) - counted  # over all keys
    _, starts, lengths = np.unique(key_index[by_key], return_index=True, return_counts=True)
    counts = np.empty(len(key_index), dtype=np.int64)
    counts[by_key] = before - np.repeat(before[starts], lengths)
    return counts


def _all_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
