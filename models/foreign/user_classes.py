"""Users' own model classes: what a class needs, and the adapter that makes it a StepModel.

A user's class is any `torch.nn.Module` with two methods:

    initial_state(batch_size) -> state          zeros, or any other state of new keys
    step(inputs, state) -> (outputs, state)     inputs (N, H_in) to outputs (N, H_out)

A state is a tensor or a tuple of tensors of `STATE_DTYPES`, axis 0 is the key; `()` for a model
without a state. A class may define its own `unroll` and `step_packed`, as `StepModel` describes
them; the adapter supplies what is missing.

Everything that a class computes with must be in its `state_dict` or in the arguments of its
constructor, returned by its method `sizes` or passed to `save_model`: nothing else is stored. What
changes from event to event must be in the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from livestep.models.contract import State, check_packed, check_sequence
from livestep.models.foreign.foreign_errors import AsModelError
from livestep.models.foreign.step_adapter import StepAdapter, check_outputs, weights_dtype
from livestep.models.model_errors import ModelError


class AdaptedModel(StepAdapter):
    """A StepModel around a user's module.

    Inputs are cast to the dtype of the module's weights, unless one of them is an index, which
    float16 can't hold exactly: then they are float32, and the module casts them itself.

    Args:
        module: With `initial_state` and `step`.
        input_size: H_in.
        output_size: H_out.
        sizes: The constructor arguments of the module.
        is_casting: Whether inputs are cast.

    Raises:
        ModelError: If a method is missing.
    """

    def __init__(
        self,
        module: nn.Module,
        input_size: int,
        output_size: int,
        sizes: Mapping[str, Any],
        is_casting: bool = True,
    ) -> None:
        super().__init__(input_size, output_size)
        for method in ("initial_state", "step"):
            if not callable(getattr(module, method, None)):
                raise ModelError(
                    f"{type(module).__name__} has no method {method}; add it", field="class"
                )
        self.module = module
        self._sizes = dict(sizes)
        self._is_casting = is_casting

    def around(self, module: nn.Module) -> AdaptedModel:
        """Return an equal adapter around another module of the class."""
        widths = self.input_size, self.output_size
        return AdaptedModel(module, *widths, self._sizes, self._is_casting).eval()

    def sizes(self) -> dict[str, Any]:
        """Return the constructor arguments of an equal module."""
        return dict(self._sizes)

    def unroll(self, sequence: Tensor, prev_state: State | None = None) -> Tensor:
        """Step over whole sequences offline, by the module's own `unroll` if it has one."""
        own = getattr(self.module, "unroll", None)
        if own is None:
            return super().unroll(sequence, prev_state)
        check_sequence(sequence, self.input_size)
        state = self.initial_state(sequence.shape[1]) if prev_state is None else prev_state
        with AsModelError("unroll"):
            outputs = own(self.cast(sequence), state)
        check_outputs(outputs, (*sequence.shape[:2], self.output_size), "unroll")
        return outputs.float()  # type: ignore[no-any-return]

    def step_packed(
        self, sequence: PackedSequence, prev_state: State | None = None
    ) -> tuple[Tensor, State]:
        """Advance each key by its own number of timesteps, by the module's method if it has one."""
        own = getattr(self.module, "step_packed", None)
        if own is None:
            return super().step_packed(sequence, prev_state)
        check_packed(sequence, self.input_size)
        key_count = int(sequence.batch_sizes[0])
        state = self.initial_state(key_count) if prev_state is None else prev_state
        packed = PackedSequence(self.cast(sequence.data), sequence.batch_sizes)
        with AsModelError("step_packed"):
            result = own(packed, state)
        shape = (len(sequence.data), self.output_size)
        return self._checked(result, state, shape, "step_packed")

    def _inner_state(self, batch_size: int) -> Any:
        return self.module.initial_state(batch_size)  # type: ignore[operator]

    def _inner_step(self, inputs: Tensor, state: State) -> Any:
        return self.module.step(self.cast(inputs), state)  # type: ignore[operator]

    def cast(self, inputs: Tensor) -> Tensor:
        """Cast inputs to the dtype that the module accepts."""
        return inputs.to(weights_dtype(self.module)) if self._is_casting else inputs
