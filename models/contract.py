"""The contract between the engine and a recurrent model.

Features of one timestep per key go into a step; predictions and the next hidden states come out.
The engine depends on nothing else of a model. Shapes, in torch's letters: N keys in the batch, L
timesteps, H_in features, H hidden units, H_out outputs, K layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

#: One or several tensors, or `()` for a model without a state. **Axis 0 of each is the key**: row i
#: of all of them is one key's state, so stack states with `torch.cat`, and index a row for one.
State = Tensor | tuple[Tensor, ...]


def state_tensors(state: State) -> tuple[Tensor, ...]:
    """Return the tensors of a state.

    Args:
        state: One tensor, or a tuple of them, which may be empty; (N, ...) each.

    Returns:
        tensors: The same tensors, not copied, always as a plain tuple.

    Example:
        >>> len(state_tensors(torch.zeros(2, 1, 4)))
        1
    """
    return (state,) if isinstance(state, Tensor) else tuple(state)


def like_state(tensors: Sequence[Tensor], template: State) -> State:
    """Build a state from its tensors: the inverse of `state_tensors`.

    Args:
        tensors: In the order in which `state_tensors` returns them.
        template: Any state of the same model; only its type matters.

    Returns:
        state: The tensors, not copied, in the template's type (a tensor, a tuple, a named tuple).

    Raises:
        ValueError: If the template has another number of tensors.

    Example:
        >>> template = (torch.zeros(1, 4), torch.zeros(1, 4))
        >>> state = like_state([torch.ones(2, 4), torch.zeros(2, 4)], template)
        >>> len(state), state[0].shape
        (2, torch.Size([2, 4]))
    """
    expected_count = len(state_tensors(template))
    if len(tensors) != expected_count:
        raise ValueError(f"a state of {expected_count} tensors can't be built from {len(tensors)}")
    if isinstance(template, Tensor):
        return tensors[0]
    # A named tuple is made from its fields one by one, a plain tuple from one iterable.
    make = getattr(type(template), "_make", tuple)
    return cast(State, make(tensors))


class StepModel(nn.Module, ABC):
    """A recurrent model that can be stepped live, for many keys at once.

    One row is one key, so rows never mix: a key's output is the same whichever other keys share
    its batch, up to the rounding in `TOLERANCE`. No method writes to `prev_state`. A state that
    is NaN or infinite must remain so: the engine checks it at the end of a batch, and drops the
    step at which it began.

    A subclass must define `initial_state` and `step`. The other methods are loops over `step`; a
    subclass may override them with a faster equivalent (`check_model` compares the results).

    Attributes:
        input_size: H_in.
        output_size: H_out.

    Example:
        >>> class RunningSum(StepModel):
        ...     def initial_state(self, batch_size):
        ...         return torch.zeros(batch_size, self.input_size)
        ...     def step(self, inputs, prev_state=None):
        ...         total = inputs if prev_state is None else prev_state + inputs
        ...         return total, total
        >>> RunningSum(input_size=1, output_size=1).unroll(torch.ones(4, 1, 1)).flatten()
        tensor([1., 2., 3., 4.])

    Source:
        The core of dm-haiku, https://dm-haiku.readthedocs.io/en/latest/api.html#rnncore
    """

    def __init__(self, input_size: int, output_size: int) -> None:
        """Keep the two sizes that the engine needs.

        Raises:
            ValueError: If a size is less than 1.
        """
        super().__init__()
        check_sizes(input_size=input_size, output_size=output_size)
        self.input_size = input_size
        self.output_size = output_size

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """Make the state of new keys: zeros.

        Args:
            batch_size: N >= 0.

        Returns:
            state: (N, ...) each, on the module's device.
        """

    @abstractmethod
    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        """Advance every row of the batch by one timestep.

        Args:
            inputs: (N, H_in). Features of one timestep per key.
            prev_state: (N, ...) each. Row i is the state at t-1 of the key of input row i; None
                means `initial_state`.

        Returns:
            outputs: (N, H_out). The prediction for the same timestep.
            next_state: (N, ...) each. The state at t, to be passed to the next step.

        Raises:
            ValueError: If the shapes don't fit the model or each other.
        """

    def nearest_batch_size(self, wanted: int) -> int:
        """Return the number of rows closest to `wanted` that `step` accepts: by default, any."""
        return wanted

    def unroll(self, sequence: Tensor, prev_state: State | None = None) -> Tensor:
        """Step over whole sequences offline, in any rounding: for training.

        Args:
            sequence: (L, N, H_in), L >= 1.
            prev_state: (N, ...) each. The states before the first timestep; None means zeros.

        Returns:
            outputs: (L, N, H_out).

        Raises:
            ValueError: If the shapes don't fit the model or each other.
        """
        check_sequence(sequence, self.input_size)
        state = prev_state
        outputs = []
        for inputs in sequence:  # (N, H_in)
            output, state = self.step(inputs, state)
            outputs.append(output)
        return torch.stack(outputs)  # (L, N, H_out)

    def step_packed(
        self, sequence: PackedSequence, prev_state: State | None = None
    ) -> tuple[Tensor, State]:
        """Advance every key by its own number of timesteps, in each key's order.

        Rows are in packed order, longest sequence first; `sorted_indices` of the sequence are
        ignored, both for `prev_state` and for `next_state`.

        Args:
            sequence: N sequences of ragged length L_i >= 1, `data` (sum of L_i, H_in).
            prev_state: (N, ...) each. Row i belongs to the i-th longest sequence; None means zeros.

        Returns:
            outputs: (sum of L_i, H_out). In the order of `sequence.data`.
            next_state: (N, ...) each. Row i is the state after the i-th longest sequence's last
                timestep.

        Raises:
            ValueError: If the shapes don't fit the model or each other.
        """
        return self.step_packed_by_rank(sequence, prev_state)

    def step_packed_by_rank(
        self, sequence: PackedSequence, prev_state: State | None = None
    ) -> tuple[Tensor, State]:
        """Do what `step_packed` does with one `step` per rank: the slow reference.

        Rank t is the t-th timestep of each key that has one. Sequences are sorted by length, so
        those keys are the first rows, and finished keys are at the end.

        Args:
            sequence: As in `step_packed`.
            prev_state: As in `step_packed`.

        Returns:
            outputs: As in `step_packed`.
            next_state: As in `step_packed`.

        Raises:
            ValueError: If the shapes don't fit the model or each other.
        """
        check_packed(sequence, self.input_size)
        keys_by_rank: list[int] = sequence.batch_sizes.tolist()
        state = self.initial_state(keys_by_rank[0]) if prev_state is None else prev_state
        check_state_rows(state, keys_by_rank[0])
        outputs = []
        finished: list[tuple[Tensor, ...]] = []  # shortest sequences first
        active_count = keys_by_rank[0]
        for inputs, key_count in zip(
            torch.split(sequence.data, keys_by_rank), keys_by_rank, strict=True
        ):  # (N still active, H_in)
            if key_count < active_count:
                rows = state_tensors(state)
                finished.append(tuple(tensor[key_count:] for tensor in rows))
                state = like_state([tensor[:key_count] for tensor in rows], state)
                active_count = key_count
            output, state = self.step(inputs, state)
            outputs.append(output)
        finished.append(state_tensors(state))
        pieces_by_tensor = zip(*reversed(finished), strict=True)
        next_state = like_state([torch.cat(pieces) for pieces in pieces_by_tensor], state)
        return torch.cat(outputs), next_state


class SizedModel(StepModel):
    """A model that can be rebuilt from integers: `save_model` stores its class and sizes.

    A subclass keeps each argument of its constructor as an attribute of the same name.
    """

    #: Names of the constructor's arguments, in order, each an integer of at least 1: the sizes in
    #: `model.json`.
    SIZES: ClassVar[tuple[str, ...]]

    def sizes(self) -> dict[str, int]:
        """Return the constructor's arguments by name, from which an equal model can be built."""
        return {name: int(getattr(self, name)) for name in self.SIZES}


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless each size is an integer of at least 1."""
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, not {value!r}")


def check_inputs(inputs: Tensor, input_size: int) -> None:
    """Raise ValueError unless inputs are (N, H_in)."""
    if inputs.ndim != 2 or inputs.shape[1] != input_size:
        raise ValueError(f"inputs must be (N, {input_size}), not {tuple(inputs.shape)}")


def check_sequence(sequence: Tensor, input_size: int) -> None:
    """Raise ValueError unless a sequence is (L, N, H_in) with L >= 1."""
    if sequence.ndim != 3 or sequence.shape[2] != input_size or sequence.shape[0] < 1:
        found = tuple(sequence.shape)
        raise ValueError(f"a sequence must be (L, N, {input_size}) with L >= 1, not {found}")


def check_packed(sequence: PackedSequence, input_size: int) -> None:
    """Raise ValueError unless the data of a packed sequence is (sum of L, H_in)."""
    if sequence.data.ndim != 2 or sequence.data.shape[1] != input_size:
        found = tuple(sequence.data.shape)
        raise ValueError(f"packed data must be (sum of L, {input_size}), not {found}")


def check_state_rows(state: State, key_count: int) -> None:
    """Raise ValueError unless each tensor of a state has one row per key."""
    for tensor in state_tensors(state):
        if tensor.ndim < 1 or tensor.shape[0] != key_count:
            found = tuple(tensor.shape)
            raise ValueError(f"a state of {key_count} keys must have {key_count} rows, not {found}")
