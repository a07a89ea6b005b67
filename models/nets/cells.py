"""The recurrent cells that come with livestep: VanillaRNN, GRU, LSTM.

Each is one of torch's fused recurrent modules with a linear head. torch's states are (K, N, H),
ours are (N, K, H): they are transposed here and nowhere else.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, cast

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


class LSTMState(NamedTuple):
    """State of an LSTM.

    Attributes:
        hidden: (N, K, H). Input of the layer above and of the head.
        cell: (N, K, H). Internal memory.
    """

    hidden: Tensor
    cell: Tensor


class FusedCell(SizedModel):
    """Base class of the three cells: one call of a fused torch module, then the head.

    Attributes:
        hidden_size: H.
        num_layers: K.
        recurrent: The torch module; its parameters carry torch's names.
        head: Linear, from the top layer's hidden state to the outputs.
    """

    SIZES: ClassVar[tuple[str, ...]] = ("input_size", "hidden_size", "output_size", "num_layers")

    recurrent: nn.RNNBase
    head: nn.Linear

    #: What `recurrent` calls.
    _function: ClassVar[Callable[..., Any]]

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, num_layers: int = 1
    ) -> None:
        """Keep the sizes; a subclass adds `recurrent` and `head`.

        Raises:
            ValueError: If a size is less than 1.
        """
        super().__init__(input_size, output_size)
        check_sizes(hidden_size=hidden_size, num_layers=num_layers)
        self.hidden_size = hidden_size
        self.num_layers = num_layers

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        """Advance every row of the batch by one timestep.

        One row is one key, so rows never mix. `prev_state` is not written to.

        Args:
            inputs: (N, H_in). Features of one timestep per key.
            prev_state: (N, K, H), twice for an LSTM. Row i is the state at t-1 of the key of input
                row i; None means zeros.

        Returns:
            outputs: (N, H_out). The prediction for the same timestep.
            next_state: (N, K, H), twice for an LSTM. The state at t, for the next step.

        Raises:
            ValueError: If the shapes don't fit the model or each other.

        Example:
            >>> import torch
            >>> _ = torch.manual_seed(0)
            >>> rnn = GRU(input_size=3, hidden_size=4, output_size=1)
            >>> x = torch.randn(5, 2, 3)                        # (L, N, H_in)
            >>> hidden = rnn.initial_state(batch_size=2)
            >>> for t in range(5):
            ...     y, hidden = rnn.step(x[t], hidden)
            >>> y.shape, hidden.shape
            (torch.Size([2, 1]), torch.Size([2, 1, 4]))
            >>> torch.allclose(y, rnn.unroll(x)[-1], atol=1e-6)
            True
        """
        check_inputs(inputs, self.input_size)
        state = self.initial_state(len(inputs)) if prev_state is None else prev_state
        # The function that the module calls: for few rows, its own checks would take as long.
        weights = [weight for layer in self.recurrent.all_weights for weight in layer]
        hidden, *final = self._function(
            inputs.unsqueeze(0),
            self._to_torch(state, len(inputs)),
            weights,
            self.recurrent.bias,
            self.num_layers,
            0.0,  # no dropout
            self.training,
            False,  # in one direction
            False,  # time is the first axis
        )
        return self.head(hidden.squeeze(0)), self._from_torch(
            final[0] if len(final) == 1 else final
        )

    def unroll(self, sequence: Tensor, prev_state: State | None = None) -> Tensor:
        """Step over whole sequences offline, in one fused call.

        Args:
            sequence: (L, N, H_in), L >= 1.
            prev_state: (N, K, H), twice for an LSTM. None means zeros.

        Returns:
            outputs: (L, N, H_out).

        Raises:
            ValueError: If the shapes don't fit the model or each other.
        """
        check_sequence(sequence, self.input_size)
        hidden, _ = self._run(sequence, prev_state, key_count=sequence.shape[1])
        return cast(Tensor, self.head(hidden))

    def step_packed(
        self, sequence: PackedSequence, prev_state: State | None = None
    ) -> tuple[Tensor, State]:
        """Advance every key by its own number of timesteps, in one fused call.

        Tests compare it with `step_packed_by_rank`, the slow reference.

        Args:
            sequence: N sequences of ragged length L_i >= 1, `data` (sum of L_i, H_in).
            prev_state: (N, K, H), twice for an LSTM. Row i belongs to the i-th longest sequence;
                None means zeros.

        Returns:
            outputs: (sum of L_i, H_out). In the order of `sequence.data`.
            next_state: (N, K, H), twice for an LSTM. Rows as in `prev_state`.

        Raises:
            ValueError: If the shapes don't fit the model or each other.
        """
        check_packed(sequence, self.input_size)
        # torch would reorder states by `sorted_indices`; without them, rows keep their order.
        in_order = PackedSequence(sequence.data, sequence.batch_sizes)
        # `batch_sizes` is on the CPU, even if the data is on CUDA: reading it doesn't synchronize.
        hidden, state = self._run(in_order, prev_state, key_count=int(sequence.batch_sizes[0]))
        return self.head(hidden.data), state

    def _run(
        self, inputs: Tensor | PackedSequence, prev_state: State | None, key_count: int
    ) -> tuple[Any, State]:
        """Call the fused module once, with states transposed to torch's layout and back."""
        initial = None if prev_state is None else self._to_torch(prev_state, key_count)
        hidden, final = self.recurrent(inputs, initial)
        return hidden, self._from_torch(final)

    def _zeros(self, batch_size: int) -> Tensor:
        """Make one state tensor, (N, K, H), with the dtype and device of the weights."""
        return self.head.weight.new_zeros(batch_size, self.num_layers, self.hidden_size)

    def _transposed(self, state: State, key_count: int, tensor_count: int) -> tuple[Tensor, ...]:
        """Check a state and transpose it to torch's layout."""
        tensors = state_tensors(state)
        expected = (key_count, self.num_layers, self.hidden_size)
        if len(tensors) != tensor_count:
            kind = type(self).__name__
            raise ValueError(
                f"the state of {kind} must have {tensor_count} tensor(s), not {len(tensors)}"
            )
        for tensor in tensors:
            if tensor.shape != expected:
                raise ValueError(f"a state must be {expected}, not {tuple(tensor.shape)}")
        return tuple(tensor.transpose(0, 1).contiguous() for tensor in tensors)  # (K, N, H)

    @abstractmethod
    def _to_torch(self, state: State, key_count: int) -> Any:
        """Convert our state to that of the fused module."""

    @abstractmethod
    def _from_torch(self, state: Any) -> State:
        """Convert the fused module's state to ours."""


class OneTensorCell(FusedCell):
    """A cell whose state is one tensor."""

    def initial_state(self, batch_size: int) -> Tensor:
        """Make zeros for new keys.

        Args:
            batch_size: N >= 0.

        Returns:
            state: (N, K, H), on the module's device.

        Example:
            >>> VanillaRNN(input_size=3, hidden_size=4, output_size=1).initial_state(2).shape
            torch.Size([2, 1, 4])
        """
        return self._zeros(batch_size)

    def _to_torch(self, state: State, key_count: int) -> Tensor:
        return self._transposed(state, key_count, tensor_count=1)[0]

    def _from_torch(self, state: Any) -> Tensor:
        return cast(Tensor, state).transpose(0, 1).contiguous()  # (N, K, H)


class VanillaRNN(OneTensorCell):
    """The textbook recurrent net: three matrices, no biases, one layer.

        h[t] = tanh(W_hh h[t-1] + W_xh x[t])
        y[t] = W_hy h[t]

    In torch's names W_xh is `recurrent.weight_ih_l0` (H, H_in), W_hh is `recurrent.weight_hh_l0`
    (H, H), W_hy is `head.weight` (H_out, H).

    Example:
        >>> rnn = VanillaRNN(input_size=5, hidden_size=16, output_size=3)
        >>> sorted(name for name, _ in rnn.named_parameters())
        ['head.weight', 'recurrent.weight_hh_l0', 'recurrent.weight_ih_l0']

    Source:
        Elman 1990, doi:10.1207/s15516709cog1402_1; written as in Karpathy 2015, "The Unreasonable
        Effectiveness of Recurrent Neural Networks".
    """

    SIZES: ClassVar[tuple[str, ...]] = ("input_size", "hidden_size", "output_size")

    _function = staticmethod(torch.rnn_tanh)

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        """Make a net with random weights.

        Args:
            input_size: H_in >= 1.
            hidden_size: H >= 1.
            output_size: H_out >= 1.

        Raises:
            ValueError: If a size is less than 1.
        """
        super().__init__(input_size, hidden_size, output_size)
        self.recurrent = nn.RNN(input_size, hidden_size, bias=False)
        self.head = nn.Linear(hidden_size, output_size, bias=False)


class GRU(OneTensorCell):
    """Gated recurrent units, one or more layers, with a linear head on the top one.

    Example:
        >>> import torch
        >>> rnn = GRU(input_size=3, hidden_size=4, output_size=2, num_layers=2)
        >>> y, hidden = rnn.step(torch.zeros(5, 3))
        >>> y.shape, hidden.shape
        (torch.Size([5, 2]), torch.Size([5, 2, 4]))

    Source:
        Cho et al. 2014, arXiv:1406.1078; equations as in torch.nn.GRU.
    """

    _function = staticmethod(torch.gru)

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, num_layers: int = 1
    ) -> None:
        """Make a net with random weights.

        Args:
            input_size: H_in >= 1.
            hidden_size: H >= 1.
            output_size: H_out >= 1.
            num_layers: K >= 1.

        Raises:
            ValueError: If a size is less than 1.
        """
        super().__init__(input_size, hidden_size, output_size, num_layers)
        self.recurrent = nn.GRU(input_size, hidden_size, num_layers)
        self.head = nn.Linear(hidden_size, output_size)


class LSTM(FusedCell):
    """Long short-term memory, one or more layers, with a linear head on the top one.

    Example:
        >>> import torch
        >>> rnn = LSTM(input_size=3, hidden_size=4, output_size=2)
        >>> y, state = rnn.step(torch.zeros(5, 3))
        >>> y.shape, state.hidden.shape, state.cell.shape
        (torch.Size([5, 2]), torch.Size([5, 1, 4]), torch.Size([5, 1, 4]))

    Source:
        Hochreiter and Schmidhuber 1997, doi:10.1162/neco.1997.9.8.1735; equations as in
        torch.nn.LSTM.
    """

    _function = staticmethod(torch.lstm)

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, num_layers: int = 1
    ) -> None:
        """Make a net with random weights.

        Args:
            input_size: H_in >= 1.
            hidden_size: H >= 1.
            output_size: H_out >= 1.
            num_layers: K >= 1.

        Raises:
            ValueError: If a size is less than 1.
        """
        super().__init__(input_size, hidden_size, output_size, num_layers)
        self.recurrent = nn.LSTM(input_size, hidden_size, num_layers)
        self.head = nn.Linear(hidden_size, output_size)

    def initial_state(self, batch_size: int) -> LSTMState:
        """Make zeros for new keys.

        Args:
            batch_size: N >= 0.

        Returns:
            state: (N, K, H) each, on the module's device.
        """
        return LSTMState(hidden=self._zeros(batch_size), cell=self._zeros(batch_size))

    def _to_torch(self, state: State, key_count: int) -> tuple[Tensor, ...]:
        return self._transposed(state, key_count, tensor_count=2)

    def _from_torch(self, state: Any) -> LSTMState:
        hidden, cell = (tensor.transpose(0, 1).contiguous() for tensor in state)  # (N, K, H)
        return LSTMState(hidden=hidden, cell=cell)
