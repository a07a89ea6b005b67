"""Generated sequences: all sequences of a batch advance together, with one model call per step.

The first step is the go step, whose inputs are all zeros; then the model continues from its own
output until it produces its stop label or reaches the limit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from livestep.models.contract import like_state, state_tensors
from livestep.models.loaded_model import LoadedModel
from livestep.models.rounding import Rounding
from livestep.models.sequences.blocks import block_stepper
from livestep.models.sequences.feedback import FedBack, draw_columns
from livestep.models.sequences.generation import find_stop
from livestep.pipeline.types import BoolArray, FloatArray, IntArray

#: Whether a generated sequence continues after a record, or why it ends.
GOES_ON, STOPPED, AT_BOUND = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Openings:
    """Starting points of G generated sequences.

    Attributes:
        tensors: The net's states after the G sequences' last events, (G, ...) each.
        key_seeds: (G,) uint64.  Seeds for sampling; empty if nothing is sampled.
        offsets: (G,) int64.  Offsets of the events that open them, also seeds for sampling.
        steps_max: (G,) int64.  Limits, each at least 1.
    """

    tensors: tuple[Tensor, ...]
    key_seeds: npt.NDArray[np.uint64]
    offsets: IntArray
    steps_max: IntArray


@dataclass(frozen=True, slots=True)
class Generated:
    """The m records of G generated sequences, sequence by sequence, in the order of the steps.

    Attributes:
        opening: (m,) int64.  Index of the sequence, 0 to G - 1.
        step: (m,) int64.  Step within the sequence, from 0.
        outputs: (m, H_out + S) float32.  Outputs of a `FedBack`.
        finish: (m,) uint8.  `GOES_ON`; in a sequence's last record `STOPPED` or `AT_BOUND`.
        is_finite: (G,) bool.  False if a sequence became NaN or infinite; it has no records.
    """

    opening: IntArray
    step: IntArray
    outputs: FloatArray
    finish: npt.NDArray[np.uint8]
    is_finite: BoolArray


class Generator:
    """Generates sequences with one model.

    Args:
        model: A model whose rules generate.
        net: Its net, with feedback.
        device: Device of the net.
        rounding: As in `Stepper`.
    """

    def __init__(
        self,
        model: LoadedModel,
        net: FedBack,
        device: torch.device,
        rounding: Rounding = "exact",
    ) -> None:
        self._net = net
        self._stepper = block_stepper(net, model.inputs) if rounding == "exact" else net
        self._device = device
        self._template = net.initial_state(1)
        self._stop = find_stop(model.rules, model.outputs)
        self._drawn_stop: int | None = None  # column of the stop output's label, if sampled
        links = model.rules.feedback
        if self._stop is not None and self._stop.link is not None:
            drawn = [index for index, link in enumerate(links) if link.temperature > 0]
            if self._stop.link in drawn:
                self._drawn_stop = model.net.output_size + drawn.index(self._stop.link)

    def generate(self, openings: Openings) -> Generated:
        """Generate all sequences; the longest one determines the number of model calls.

        Args:
            openings: Starting points; their tensors are not modified.
        """
        count = len(openings.steps_max)
        is_finite = np.ones(count, dtype=bool)
        active = np.arange(count)
        *_, fed = state_tensors(self._net.initial_state(count))  # nothing is fed back yet
        tensors = (*openings.tensors, fed)
        pieces: list[tuple[IntArray, IntArray, FloatArray, npt.NDArray[np.uint8]]] = []
        step = 0
        while len(active):
            inputs = self._inputs(openings, active, step)
            y, state = self._stepper.step(inputs, like_state(tensors, self._template))
            tensors = state_tensors(state)
            good = finite_rows(y, tensors).cpu().numpy()
            is_finite[active[~good]] = False
            finish = self._finish(y, openings.steps_max[active], step)
            pieces.append((active, np.full(len(active), step), _to_numpy(y), finish))
            goes_on = np.flatnonzero(good & (finish == GOES_ON))
            if len(goes_on) < len(active):
                index = torch.from_numpy(goes_on).to(self._device)
                tensors = tuple(tensor.index_select(0, index) for tensor in tensors)
                active = active[goes_on]
            step += 1
        return self._in_order(pieces, is_finite)

    def _inputs(self, openings: Openings, active: IntArray, step: int) -> Tensor:
        """Return the inputs of one step: (G active, H_in + S)."""
        count = len(active)
        inputs = self._net.absent_inputs(count)
        if not self._net.sampled_count:
            return inputs
        columns = draw_columns(
            openings.key_seeds[active],
            openings.offsets[active],
            np.full(count, step),
            self._net.sampled_count,
        )
        draws = torch.from_numpy(columns).to(inputs.device, inputs.dtype)
        return torch.cat([inputs, draws], dim=1)

    def _finish(self, outputs: Tensor, steps_max: IntArray, step: int) -> npt.NDArray[np.uint8]:
        """Return for each row whether its sequence continues, or why it ends."""
        finish = np.where(step + 1 >= steps_max, AT_BOUND, GOES_ON).astype(np.uint8)
        if self._stop is not None:
            if self._drawn_stop is not None:
                labels = outputs[:, self._drawn_stop].long()
            else:
                labels = outputs[:, self._stop.columns].argmax(dim=1)
            finish[(labels == self._stop.label).cpu().numpy()] = STOPPED
        return finish

    def _in_order(
        self,
        pieces: list[tuple[IntArray, IntArray, FloatArray, npt.NDArray[np.uint8]]],
        is_finite: BoolArray,
    ) -> Generated:
        """Reorder the records from step by step to sequence by sequence."""
        if not pieces:
            none = np.zeros(0, dtype=np.int64)
            outputs = np.zeros((0, self._net.output_size), dtype=np.float32)
            return Generated(none, none, outputs, np.zeros(0, np.uint8), is_finite)
        opening, step, outputs, finish = (
            np.concatenate(part) for part in zip(*pieces, strict=True)
        )
        order = np.argsort(opening, kind="stable")
        order = order[is_finite[opening[order]]]
        return Generated(opening[order], step[order], outputs[order], finish[order], is_finite)


def finite_rows(outputs: Tensor, tensors: tuple[Tensor, ...]) -> Tensor:
    """Return for each row whether outputs and states are finite: (N,) bool."""
    if all(torch.isfinite(tensor.sum()) for tensor in (outputs, *tensors)):
        # A sum is finite only if every term is; this cheap check passes almost always.
        return torch.ones(len(outputs), dtype=torch.bool, device=outputs.device)
    good = torch.isfinite(outputs).all(dim=1)
    for tensor in tensors:
        good &= torch.isfinite(tensor).reshape(len(tensor), -1).all(dim=1)
    return good


def _to_numpy(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.to("cpu", torch.float32).numpy()
    return array
