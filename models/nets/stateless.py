"""Nets that keep nothing between timesteps: FullyConnected and Glimpses."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from livestep.models.contract import (
    SizedModel,
    State,
    check_inputs,
    check_packed,
    check_sequence,
    check_sizes,
    state_tensors,
)


class StatelessModel(SizedModel):
    """A model whose output depends only on the inputs of the same timestep: its state is `()`."""

    @abstractmethod
    def answer(self, inputs: Tensor) -> Tensor:
        """Compute the outputs of some rows.

        Args:
            inputs: (n, H_in), n >= 0.

        Returns:
            outputs: (n, H_out).
        """

    def initial_state(self, batch_size: int) -> State:
        """Return the empty state `()`."""
        return ()

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        """Compute the outputs of one timestep for every row.

        Args:
            inputs: (N, H_in).
            prev_state: `()` or None.

        Returns:
            outputs: (N, H_out).
            next_state: `()`.

        Raises:
            ValueError: If the shapes don't fit, or the state is not empty.
        """
        check_inputs(inputs, self.input_size)
        self._check_nothing(prev_state)
        return self.answer(inputs), ()

    def unroll(self, sequence: Tensor, prev_state: State | None = None) -> Tensor:
        """Compute the outputs of all timesteps of all sequences, in one call.

        Args:
            sequence: (L, N, H_in), L >= 1.
            prev_state: `()` or None.

        Returns:
            outputs: (L, N, H_out).

        Raises:
            ValueError: If the shapes don't fit, or the state is not empty.
        """
        check_sequence(sequence, self.input_size)
        self._check_nothing(prev_state)
        length, key_count = sequence.shape[:2]
        rows = self.answer(sequence.reshape(length * key_count, self.input_size))
        return rows.reshape(length, key_count, self.output_size)

    def step_packed(
        self, sequence: PackedSequence, prev_state: State | None = None
    ) -> tuple[Tensor, State]:
        """Compute the outputs of all timesteps of ragged sequences, in one call.

        Args:
            sequence: `data` (sum of L_i, H_in).
            prev_state: `()` or None.

        Returns:
            outputs: (sum of L_i, H_out). In the order of `sequence.data`.
            next_state: `()`.

        Raises:
            ValueError: If the shapes don't fit, or the state is not empty.
        """
        check_packed(sequence, self.input_size)
        self._check_nothing(prev_state)
        return self.answer(sequence.data), ()

    def _check_nothing(self, state: State | None) -> None:
        if state is not None and state_tensors(state):
            kind = type(self).__name__
            raise ValueError(f"{kind} has no state, but got {len(state_tensors(state))} tensor(s)")


class FullyConnected(StatelessModel):
    """Layers of tanh units and a linear head: a baseline without memory.

    Example:
        >>> net = FullyConnected(input_size=3, hidden_size=8, output_size=2)
        >>> outputs, state = net.step(torch.zeros(5, 3))
        >>> outputs.shape, state
        (torch.Size([5, 2]), ())
    """

    SIZES: ClassVar[tuple[str, ...]] = ("input_size", "hidden_size", "output_size", "num_layers")

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, num_layers: int = 1
    ) -> None:
        """Make a net with random weights.

        Args:
            input_size: H_in >= 1.
            hidden_size: H >= 1: units of each hidden layer.
            output_size: H_out >= 1.
            num_layers: K >= 1: hidden layers.

        Raises:
            ValueError: If a size is less than 1.
        """
        super().__init__(input_size, output_size)
        check_sizes(hidden_size=hidden_size, num_layers=num_layers)
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        widths = [input_size] + [hidden_size] * num_layers
        self.layers = nn.ModuleList(nn.Linear(width, hidden_size) for width in widths[:num_layers])
        self.head = nn.Linear(hidden_size, output_size)

    def answer(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (n, H_out) of some rows (n, H_in)."""
        hidden = inputs
        for layer in self.layers:
            hidden = torch.tanh(layer(hidden))  # (n, H)
        return cast(Tensor, self.head(hidden))


class Glimpses(StatelessModel):
    """Reads one input in several glimpses, and answers after the last.

    The input is a picture, its rows side by side: each row is a glimpse, one step of a GRU that
    starts from zeros. The sequence is within one event, so nothing is kept between events.

    Example:
        >>> net = Glimpses(rows=8, row_size=8, hidden_size=16, output_size=10)
        >>> digits = torch.zeros(5, 64)
        >>> net.step(digits)[0].shape
        torch.Size([5, 10])

    Source:
        After Mnih et al. 2014, "Recurrent models of visual attention", arXiv:1406.6247, without the
        choice of where to look next.
    """

    SIZES: ClassVar[tuple[str, ...]] = ("rows", "row_size", "hidden_size", "output_size")

    def __init__(self, rows: int, row_size: int, hidden_size: int, output_size: int) -> None:
        """Make a net with random weights.

        Args:
            rows: Number of glimpses >= 1.
            row_size: Columns of each >= 1; H_in is rows * row_size.
            hidden_size: H >= 1.
            output_size: H_out >= 1.

        Raises:
            ValueError: If a size is less than 1.
        """
        check_sizes(rows=rows, row_size=row_size, hidden_size=hidden_size)
        super().__init__(rows * row_size, output_size)
        self.rows = rows
        self.row_size = row_size
        self.hidden_size = hidden_size
        self.recurrent = nn.GRU(row_size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, output_size)

    def answer(self, inputs: Tensor) -> Tensor:
        """Compute the outputs (n, H_out) of some inputs (n, rows * row_size)."""
        glimpses = inputs.reshape(len(inputs), self.rows, self.row_size)
        _, last = self.recurrent(glimpses)  # (1, n, H)
        return cast(Tensor, self.head(last.squeeze(0)))
