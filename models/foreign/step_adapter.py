"""`StepAdapter`: what the adapters of classes and programs share; it checks every result."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from livestep.models.contract import State, StepModel, check_inputs
from livestep.models.contract import state_tensors as flat
from livestep.models.foreign.foreign_errors import AsModelError, kind_of
from livestep.models.model_errors import ModelError

#: Dtypes of state tensors: those whose rows torch can read, write and save.
STATE_DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.complex64, torch.complex128),
)


class StepAdapter(StepModel):
    """A StepModel around foreign code that steps; checks every result.

    Args:
        input_size: H_in.
        output_size: H_out.

    Raises:
        ModelError: From each method, if the code inside raises, or returns a wrong type, dtype,
            device or shape.
    """

    @abstractmethod
    def _inner_state(self, batch_size: int) -> Any:
        """Return the state of new keys."""

    @abstractmethod
    def _inner_step(self, inputs: Tensor, state: State) -> Any:
        """Step once."""

    def initial_state(self, batch_size: int) -> State:
        """Return the state of new keys; see `StepModel.initial_state`."""
        with AsModelError("initial_state"):
            state = self._inner_state(batch_size)
        _check_state_kind(state, "initial_state")
        for tensor in flat(state):
            if tensor.ndim < 1 or len(tensor) != batch_size:
                raise ModelError(
                    "initial_state: axis 0 of each state tensor must be the key",
                    expected=f"({batch_size}, ...)",
                    found=tuple(tensor.shape),
                )
        return state  # type: ignore[no-any-return]

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        """Advance every row by one timestep; see `StepModel.step`. Outputs are float32."""
        check_inputs(inputs, self.input_size)
        state = self.initial_state(len(inputs)) if prev_state is None else prev_state
        with AsModelError("step"):
            result = self._inner_step(inputs, state)
        return self._checked(result, state, (len(inputs), self.output_size), "step")

    def _checked(
        self, result: Any, prev_state: State, shape: tuple[int, ...], method: str
    ) -> tuple[Tensor, State]:
        """Check outputs and next state, and make the outputs float32."""
        if not isinstance(result, tuple) or len(result) != 2:
            raise ModelError(
                f"{method} must return a pair",
                expected="(outputs, state)",
                found=kind_of(result),
            )
        outputs, state = result
        check_outputs(outputs, shape, method)
        _check_state_kind(state, method)
        before, after = _layout(prev_state), _layout(state)
        if before != after:
            raise ModelError(
                f"{method} changed the layout of the state; keep the number, shapes, dtypes and "
                "device of its tensors",
                expected=_in_words(before),
                found=_in_words(after),
            )
        return outputs.float(), state


def weights_dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype of a module's first float tensor, else of its first complex tensor's parts.

    float32 if it has neither.
    """
    dtype = None
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
        if tensor.is_complex() and dtype is None:
            dtype = tensor.dtype.to_real()
    return dtype or torch.float32


def check_outputs(outputs: Any, shape: tuple[int, ...], method: str) -> None:
    """Raise ModelError unless outputs are a float tensor of this shape."""
    if not isinstance(outputs, Tensor):
        raise ModelError(f"{method}: outputs must be a tensor", found=kind_of(outputs))
    if tuple(outputs.shape) != shape:
        problem = (
            f"{method}: the shape of the outputs does not match the output fields in model.json"
        )
        raise ModelError(problem, expected=shape, found=tuple(outputs.shape))
    if not outputs.is_floating_point():
        raise ModelError(f"{method}: outputs must be floats", found=outputs.dtype)


def _check_state_kind(state: Any, method: str) -> None:
    tensors = state if isinstance(state, tuple) else (state,)
    if not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise ModelError(
            f"{method}: a state must be a tensor or a tuple of tensors", found=kind_of(state)
        )
    for tensor in tensors:
        if tensor.dtype not in STATE_DTYPES:
            raise ModelError(
                f"{method}: a state can't have this dtype",
                expected=", ".join(dtype_name(dtype) for dtype in STATE_DTYPES),
                found=dtype_name(tensor.dtype),
            )


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype without `torch.`."""
    return str(dtype).removeprefix("torch.")


def _layout(state: State) -> list[tuple[torch.Size, torch.dtype, torch.device]]:
    """List what a step must not change: shape, dtype and device of each tensor."""
    return [(tensor.shape, tensor.dtype, tensor.device) for tensor in flat(state)]


def _in_words(layout: list[tuple[torch.Size, torch.dtype, torch.device]]) -> str:
    words = [f"{dtype_name(dtype)} {tuple(shape)} on {device}" for shape, dtype, device in layout]
    return " and ".join(words) or "no tensors"
