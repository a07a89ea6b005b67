"""A net with an encoder and a decoder: reads with one GRU, writes with another."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from livestep.models.contract import (
    SizedModel,
    State,
    check_inputs,
    check_packed,
    check_sizes,
    state_tensors,
)


class EncoderDecoder(SizedModel):
    """Reads a source with one GRU, then writes a target with another that starts from its state.

    The inputs are [source | target] side by side. A row whose source columns are all zeros is a
    step of the decoder, any other row is a step of the encoder; so no row of a source may be all
    zeros (one-hot rows never are). A generated sequence starts with all inputs zero: a step of the
    decoder without a previous target.

    Attributes:
        source_size: Columns of the source.
        target_size: Columns of the target that is fed back.
        hidden_size: H.
        num_layers: K.
        encoder: The GRU that reads.
        decoder: The GRU that writes.
        head: Linear, from the top layer's hidden state to the outputs.

    Example:
        >>> net = EncoderDecoder(source_size=3, target_size=2, hidden_size=8, output_size=2)
        >>> _, state = net.step(torch.tensor([[1.0, 0, 0, 0, 0]]))      # reads
        >>> outputs, state = net.step(torch.zeros(1, 5), state)         # begins to write
        >>> outputs.shape, state.shape
        (torch.Size([1, 2]), torch.Size([1, 1, 8]))

    Source:
        Cho et al. 2014, arXiv:1406.1078; Sutskever, Vinyals and Le 2014, arXiv:1409.3215.
    """

    SIZES: ClassVar[tuple[str, ...]] = (
        "source_size",
        "target_size",
        "hidden_size",
        "output_size",
        "num_layers",
    )

    def __init__(
        self,
        source_size: int,
        target_size: int,
        hidden_size: int,
        output_size: int,
        num_layers: int = 1,
    ) -> None:
        """Make a net with random weights.

        Args:
            source_size: Columns of the source >= 1.
            target_size: Columns of the target >= 1; H_in is the sum of the two.
            hidden_size: H >= 1.
            output_size: H_out >= 1.
            num_layers: K >= 1, of each GRU.

        Raises:
            ValueError: If a size is less than 1.
        """
        check_sizes(source_size=source_size, target_size=target_size)
        super().__init__(source_size + target_size, output_size)
        check_sizes(hidden_size=hidden_size, num_layers=num_layers)
        self.source_size = source_size
        self.target_size = target_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.encoder = nn.GRU(source_size, hidden_size, num_layers)
        self.decoder = nn.GRU(target_size, hidden_size, num_layers)
        self.head = nn.Linear(hidden_size, output_size)

    def initial_state(self, batch_size: int) -> Tensor:
        """Make zeros, (N, K, H), for new keys."""
        return self.head.weight.new_zeros(batch_size, self.num_layers, self.hidden_size)

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        """Advance every row by one timestep: with the encoder, or with the decoder.

        Args:
            inputs: (N, H_in). [source | target] of one timestep per key.
            prev_state: (N, K, H). None means zeros.

        Returns:
            outputs: (N, H_out). Meaningless for a step of the encoder.
            next_state: (N, K, H).

        Raises:
            ValueError: If the shapes don't fit the model or each other.
        """
        check_inputs(inputs, self.input_size)
        state = self._checked(prev_state, len(inputs))
        source, target = inputs[:, : self.source_size], inputs[:, self.source_size :]
        is_decoding = self._is_decoding(inputs)
        next_state = state
        for gru, columns, is_own in (
            (self.encoder, source, ~is_decoding),
            (self.decoder, target, is_decoding),
        ):
            if bool(is_own.any()):
                # Of all rows, since another number of rows may be rounded in another way.
                _, final = gru(columns.unsqueeze(0), _transposed(state))
                next_state = torch.where(
                    is_own.reshape(-1, 1, 1), _transposed(final), next_state
                )  # (N, K, H)
        return self.head(next_state[:, -1]), next_state

    def step_packed(
        self, sequence: PackedSequence, prev_state: State | None = None
    ) -> tuple[Tensor, State]:
        """Advance every key by its own number of timesteps, in one fused call if all read.

        Args:
            sequence: N sequences of ragged length L_i >= 1, `data` (sum of L_i, H_in).
            prev_state: (N, K, H). Row i belongs to the i-th longest sequence; None means zeros.

        Returns:
            outputs: (sum of L_i, H_out). In the order of `sequence.data`.
            next_state: (N, K, H). Rows as in `prev_state`.

        Raises:
            ValueError: If the shapes don't fit the model or each other.
        """
        check_packed(sequence, self.input_size)
        if bool(self._is_decoding(sequence.data).any()):
            return self.step_packed_by_rank(sequence, prev_state)
        state = self._checked(prev_state, int(sequence.batch_sizes[0]))
        # torch would reorder states by `sorted_indices`; without them, rows keep their order.
        source = PackedSequence(sequence.data[:, : self.source_size], sequence.batch_sizes)
        hidden, final = self.encoder(source, _transposed(state))
        return self.head(hidden.data), _transposed(final)

    def unroll_teacher(self, sources: Tensor | PackedSequence, targets: Tensor) -> Tensor:
        """Unroll with teacher forcing, in two fused calls: for training.

        The input of step t of the decoder is the true target of t-1, whatever it wrote itself;
        that of step 0 is zeros. The outputs are those of `step` on the same rows.

        Args:
            sources: (L_source, N, source_size), or packed if they are ragged, in any order
                (`pack_sequence(..., enforce_sorted=False)`).
            targets: (L, N, target_size), L >= 1. As they would be fed back; pad shorter sequences
                with anything, and leave the padding out of the loss.

        Returns:
            outputs: (L, N, H_out). Of the decoder only.

        Example:
            >>> net = EncoderDecoder(source_size=3, target_size=2, hidden_size=8, output_size=2)
            >>> net.unroll_teacher(torch.randn(7, 4, 3), torch.randn(5, 4, 2)).shape
            torch.Size([5, 4, 2])
        """
        _, final = self.encoder(sources)  # (K, N, H)
        before = torch.cat([torch.zeros_like(targets[:1]), targets[:-1]])  # (L, N, target_size)
        hidden, _ = self.decoder(before, final)
        return cast(Tensor, self.head(hidden))

    def _is_decoding(self, inputs: Tensor) -> Tensor:
        """Return for each row (n, H_in) whether it is a step of the decoder."""
        return (inputs[:, : self.source_size] == 0).all(dim=1)

    def _checked(self, state: State | None, key_count: int) -> Tensor:
        """Check a state, or make zeros."""
        if state is None:
            return self.initial_state(key_count)
        expected = (key_count, self.num_layers, self.hidden_size)
        tensors = state_tensors(state)
        if len(tensors) != 1 or tensors[0].shape != expected:
            found = [tuple(tensor.shape) for tensor in tensors]
            raise ValueError(f"a state must be {expected}, not {found}")
        return tensors[0]


def _transposed(state: Any) -> Tensor:
    """Transpose a state from ours (N, K, H) to torch's (K, N, H), or back."""
    return cast(Tensor, state).transpose(0, 1).contiguous()
