"""Feedback: the output of a model at one timestep becomes part of its next input.

`FedBack` wraps a model so that the feedback is part of its state: it is then stepped, split, saved
and replayed like any other model.

A label may be drawn instead of chosen. The number that decides is not random, but a hash of key,
offset, and step, so that a replay draws the same label, on any machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from livestep.models.contract import State, StepModel, check_inputs, like_state, state_tensors
from livestep.models.fields.field_types import Category, Field, absent_row, columns_of
from livestep.models.sequences.rules import Feedback

IntArray = npt.NDArray[np.integer[Any]]

#: splitmix64: the odd integer closest to 2^64 / golden ratio, and the factors of its finalizer.
GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
MIX_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))

#: Bits of a draw: as many as a float32 represents exactly.
DRAW_BITS = 24


def key_seed(key: bytes) -> int:
    """Hash a key to 64 bits, the same on every machine.

    Example:
        >>> key_seed(b"alice") == key_seed(b"alice"), key_seed(b"alice") == key_seed(b"bob")
        (True, False)
    """
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def draws(
    key: bytes, offsets: IntArray | int, steps: IntArray | int, link: int = 0
) -> npt.NDArray[np.float32]:
    """Draw one number per event of one key.

    Args:
        key: The key's bytes.
        offsets: (n,), or one number for all. Offsets of the source events.
        steps: (n,), or one number for all. Steps of the generated sequence; 0 in the shapes that
            don't generate.
        link: Which of the links that draw, counted from 0.

    Returns:
        draws: (n,) float32, in [0, 1).

    Example:
        >>> bool((draws(b"alice", 7, np.arange(3)) == draws(b"alice", 7, np.arange(3))).all())
        True
    """
    return draws_many(np.array([key_seed(key)], np.uint64), offsets, steps, link)


def draws_many(
    key_seeds: npt.NDArray[np.uint64],
    offsets: IntArray | int,
    steps: IntArray | int,
    link: int = 0,
) -> npt.NDArray[np.float32]:
    """Draw one number per event of many keys.

    Args:
        key_seeds: (n,) uint64. `key_seed` of each event's key.
        offsets: (n,). As in `draws`.
        steps: (n,). As in `draws`.
        link: As in `draws`.

    Returns:
        draws: (n,) float32, in [0, 1).

    Source:
        Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
        doi:10.1145/2660193.2660195; splitmix64 is its generator with a stronger finalizer.
    """
    seeds = np.atleast_1d(np.asarray(key_seeds, np.uint64))
    mixed = _mix(seeds)
    for number in (offsets, steps, link):
        # Arrays of unsigned integers wrap around, on purpose; numpy warns about scalars only.
        mixed = _mix(mixed ^ np.atleast_1d(np.asarray(number)).astype(np.uint64))
    return (mixed >> np.uint64(64 - DRAW_BITS)).astype(np.float32) / np.float32(1 << DRAW_BITS)


def draw_columns(
    key_seeds: npt.NDArray[np.uint64],
    offsets: IntArray | int,
    steps: IntArray | int,
    sampled_count: int,
) -> npt.NDArray[np.float32]:
    """Draw one number per event and drawn label: the last columns of the inputs of a `FedBack`.

    Args:
        key_seeds: (n,) uint64. As in `draws_many`.
        offsets: (n,). As in `draws`.
        steps: (n,). As in `draws`.
        sampled_count: S.

    Returns:
        draws: (n, S) float32. Column i has the draws of `link=i`.
    """
    columns = [draws_many(key_seeds, offsets, steps, link) for link in range(sampled_count)]
    return np.stack(columns, axis=1) if columns else np.zeros((len(key_seeds), 0), np.float32)


class FedBack(StepModel):
    """A model and its feedback, as one model.

    A feedback input whose columns are all NaN in a row is absent there, and is filled with the
    output of the previous step; at first with zeros. A row that carries the input keeps it: a true
    value that arrives later takes precedence. S is the number of links that draw, F the width of
    all links.

        inputs   (N, H_in + S)   those of the net, then a draw in [0, 1) for each drawn label
        outputs  (N, H_out + S)  those of the net, then the index of each drawn label
        state    the net's tensors, then `fed`, (N, F): the values that fill the next step

    Numbers are fed back with their gradient; the label of a category has none.

    Args:
        net: The model.
        inputs: What the net's H_in columns mean.
        outputs: What the net's H_out columns mean.
        feedback: The links, checked by `rules.check_rules`.

    Attributes:
        net: The model.
        sampled_count: S.
        fed_width: F.
        fed_columns: One slice of the net's inputs per link.
        fed_parts: One slice of `fed` per link.
        output_columns: One slice of the net's outputs per link.

    Raises:
        ValueError: If a link names an unknown field.

    Example:
        >>> from livestep import GRU, Number
        >>> links = [Feedback(output="y", input="last_y")]
        >>> fields = [Number("x", 2), Number("last_y", 1)]
        >>> net = FedBack(GRU(3, 4, 1), inputs=fields, outputs=[Number("y")], feedback=links)
        >>> y, state = net.step(torch.tensor([[0.5, 0.5, torch.nan]]))
        >>> bool((state[-1] == y).all())
        True
    """

    def __init__(
        self,
        net: StepModel,
        inputs: Sequence[Field],
        outputs: Sequence[Field],
        feedback: Sequence[Feedback],
    ) -> None:
        sampled = [index for index, link in enumerate(feedback) if link.temperature > 0]
        super().__init__(net.input_size + len(sampled), net.output_size + len(sampled))
        self.net = net
        self.sampled_count = len(sampled)
        self.fed_columns = tuple(columns_of(inputs, link.input) for link in feedback)
        self.output_columns = tuple(columns_of(outputs, link.output) for link in feedback)
        self.fed_parts = _side_by_side(self.fed_columns)
        self.fed_width = self.fed_parts[-1].stop if self.fed_parts else 0
        self._sampled = sampled
        self._temperatures = [link.temperature for link in feedback]
        output_by_name = {field.name: field for field in outputs}
        self._is_category = [isinstance(output_by_name[link.output], Category) for link in feedback]
        self._template = net.initial_state(0)
        # Determines dtype and device of what is fed back, and moves with the module.
        like_inputs = _zeros_like_inputs(net, self._template)
        absent = torch.from_numpy(absent_row(inputs))
        self.register_buffer("_absent", absent.to(like_inputs), persistent=False)
        self.register_buffer("_no_value", like_inputs, persistent=False)

    def initial_state(self, batch_size: int) -> State:
        """Make the state of new keys.

        Args:
            batch_size: N >= 0.

        Returns:
            state: The net's tensors, (N, ...) each, and `fed`, (N, F).
        """
        no_value = self.get_buffer("_no_value")
        fed = no_value.new_zeros(batch_size, self.fed_width)
        return (*state_tensors(self.net.initial_state(batch_size)), fed)

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        """Fill absent inputs, advance every row by one timestep, keep what is fed back.

        Args:
            inputs: (N, H_in + S). NaN in all columns of a feedback input: absent.
            prev_state: As `initial_state` makes it; None means that.

        Returns:
            outputs: (N, H_out + S).
            next_state: As `prev_state`.

        Raises:
            ValueError: If the shapes don't fit the model or each other.
        """
        check_inputs(inputs, self.input_size)
        state = self.initial_state(len(inputs)) if prev_state is None else prev_state
        *net_tensors, fed = state_tensors(state)
        filled = self.fill(inputs[:, : self.net.input_size], fed)
        outputs, net_state = self.net.step(filled, like_state(net_tensors, self._template))
        chosen = self.choose(outputs, inputs[:, self.net.input_size :])
        next_fed = self.feed(outputs, chosen).to(fed.dtype)
        if self.sampled_count:
            labels = chosen[:, self._sampled].to(outputs.dtype)
            outputs = torch.cat([outputs, labels], dim=1)
        return outputs, (*state_tensors(net_state), next_fed)

    def absent_inputs(self, batch_size: int) -> Tensor:
        """Make the inputs of a generated step: all absent, with NaN where feedback fills them.

        The first step, before anything was fed back, is filled with zeros.

        Args:
            batch_size: N.

        Returns:
            inputs: (N, H_in), without the draws.
        """
        inputs = self.get_buffer("_absent").expand(batch_size, -1).clone()
        for columns in self.fed_columns:
            inputs[:, columns] = torch.nan
        return inputs

    def fill(self, inputs: Tensor, fed: Tensor) -> Tensor:
        """Fill absent feedback inputs with what was fed back.

        Args:
            inputs: (N, H_in). Not written to.
            fed: (N, F).

        Returns:
            filled: (N, H_in).
        """
        filled = inputs.clone()
        for columns, part in zip(self.fed_columns, self.fed_parts, strict=True):
            block = inputs[:, columns]
            is_absent = block.isnan().all(dim=1, keepdim=True)  # (N, 1)
            filled[:, columns] = torch.where(is_absent, fed[:, part].to(block.dtype), block)
        return filled

    def choose(self, outputs: Tensor, draws: Tensor) -> Tensor:
        """Choose the label of each link's category.

        Args:
            outputs: (N, H_out). As the net returned them: logits.
            draws: (N, S). In [0, 1).

        Returns:
            chosen: (N, links) int64. The most probable label (the first of several), or the drawn
                label if the link has a temperature; 0 for a number.
        """
        chosen = torch.zeros(
            len(outputs), len(self.fed_columns), dtype=torch.int64, device=outputs.device
        )
        for link, columns in enumerate(self.output_columns):
            if link in self._sampled:
                u = draws[:, self._sampled.index(link)]
                chosen[:, link] = draw_label(outputs[:, columns], self._temperatures[link], u)
            elif self._is_category[link]:
                chosen[:, link] = outputs[:, columns].argmax(dim=1)
        return chosen

    def feed(self, outputs: Tensor, chosen: Tensor) -> Tensor:
        """Make the values that fill the next step.

        Args:
            outputs: (N, H_out). As the net returned them.
            chosen: (N, links) int64. As `choose` returned it.

        Returns:
            fed: (N, F). A one-hot block for each category, the numbers themselves for the others.
        """
        if not self.output_columns:
            return outputs[:, :0]
        blocks = []
        for link, columns in enumerate(self.output_columns):
            block = outputs[:, columns]
            if self._is_category[link]:
                # torch's one_hot would wait for a CUDA device; scatter doesn't.
                label = chosen[:, link : link + 1]
                block = torch.zeros_like(block).scatter_(1, label, 1.0)
            blocks.append(block)
        return torch.cat(blocks, dim=1)


def draw_label(logits: Tensor, temperature: float, draws: Tensor) -> Tensor:
    """Draw one label per row: the first whose cumulative probability exceeds the draw.

    Args:
        logits: (N, values).
        temperature: Above 0; the logits are divided by it.
        draws: (N,). In [0, 1).

    Returns:
        labels: (N,) int64. 0 for a row that isn't finite, which the caller must not use.

    Example:
        >>> draw_label(torch.zeros(3, 4), 1.0, torch.tensor([0.0, 0.3, 0.99])).tolist()
        [0, 1, 3]
    """
    above = logits.detach() - logits.detach().amax(dim=1, keepdim=True)
    # Summed in float64, and compared with a fraction of the rounded sum: so a draw below 1 is
    # always within it, and never selects a label of probability zero.
    cumulative = torch.exp(above / temperature).cumsum(dim=1, dtype=torch.float64)  # (N, values)
    is_passed = cumulative <= draws.double().unsqueeze(1) * cumulative[:, -1:]
    return is_passed.sum(dim=1).clamp(max=logits.shape[1] - 1)


def _mix(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Advance by one step of splitmix64: each bit of the result depends on all bits."""
    mixed = numbers + GOLDEN_GAMMA
    mixed = (mixed ^ (mixed >> np.uint64(30))) * MIX_FACTORS[0]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * MIX_FACTORS[1]
    return mixed ^ (mixed >> np.uint64(31))


def _side_by_side(columns: Sequence[slice]) -> tuple[slice, ...]:
    """Place blocks of these widths side by side."""
    parts: list[slice] = []
    for block in columns:
        start = parts[-1].stop if parts else 0
        parts.append(slice(start, start + block.stop - block.start))
    return tuple(parts)


def _zeros_like_inputs(net: StepModel, template: State) -> Tensor:
    """Make an empty tensor on the net's device: float32, or float64 if its weights are."""
    candidates = [*net.parameters(), *net.buffers(), *state_tensors(template)]
    like = candidates[0] if candidates else torch.zeros(0)
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    return torch.zeros(0, dtype=dtype, device=like.device)
