"""Models of the user's own: what their classes have to be, and the adapter around them.

A class of a user is any `torch.nn.Module` with two methods:

    initial_state(batch_size) -> state          zeros, or what else a new key begins with
    step(inputs, state) -> (outputs, state)     inputs (N, H_in) to outputs (N, H_out)

where a state is one tensor or a tuple of tensors, of `STATE_DTYPES` and shapes with axis 0 = key;
`()` for a model that keeps nothing. A class may have `unroll` and `step_packed` of its own, as
`StepModel` states them; the adapter supplies what it lacks.

What a class computes with has to be in the arguments of its constructor, as its method `sizes` or
the caller of `save_model` names them, or in its `state_dict`: nothing else is stored. What changes
from event to event has to be in the state.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from livestep.models.contract import State, StepModel, check_inputs, check_packed, check_sequence
from livestep.models.contract import state_tensors as flat
from livestep.models.model_errors import ModelError

#: What a state may be made of: the dtypes whose rows torch can take out, put in and save.
STATE_DTYPES = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.complex64, torch.complex128),
)

#: What code of users may raise. `sys.exit` is no wish to end the worker, least of all with success.
FOREIGN_ERRORS = (Exception, SystemExit)


class StepAdapter(StepModel):
    """A StepModel around something else that steps; looks at what comes back, each time.

    Args:
        input_size: H_in.
        output_size: H_out.

    Raises:
        ModelError: From each method, if what is inside raises, or gives something of another kind,
            dtype, device or shape than it has to.
    """

    @abstractmethod
    def _inner_state(self, batch_size: int) -> Any:
        """Make the state of new keys."""

    @abstractmethod
    def _inner_step(self, inputs: Tensor, state: State) -> Any:
        """Step once."""

    def initial_state(self, batch_size: int) -> State:
        """Make the state of keys that have seen nothing yet; see `StepModel.initial_state`."""
        with Naming("initial_state"):
            state = self._inner_state(batch_size)
        _check_state_kind(state, "initial_state")
        for tensor in flat(state):
            if tensor.ndim < 1 or len(tensor) != batch_size:
                raise ModelError(
                    "initial_state: axis 0 of each tensor of the state has to be the key",
                    expected=f"({batch_size}, ...)",
                    found=tuple(tensor.shape),
                )
        return state  # type: ignore[no-any-return]

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        """Advance every row by one timestep; see `StepModel.step`. Outputs are float32."""
        check_inputs(inputs, self.input_size)
        state = self.initial_state(len(inputs)) if prev_state is None else prev_state
        with Naming("step"):
            result = self._inner_step(inputs, state)
        return self._checked(result, state, (len(inputs), self.output_size), "step")

    def _checked(
        self, result: Any, prev_state: State, shape: tuple[int, ...], method: str
    ) -> tuple[Tensor, State]:
        """Check outputs and next state, and make the outputs float32."""
        if not isinstance(result, tuple) or len(result) != 2:
            raise ModelError(
                f"{method}: it has to return a pair",
                expected="outputs, state",
                found=kind_of(result),
            )
        outputs, state = result
        _check_outputs(outputs, shape, method)
        _check_state_kind(state, method)
        before, after = _layout(prev_state), _layout(state)
        if before != after:
            raise ModelError(
                f"{method}: the state changes in a step; count, shapes, dtypes and device of its "
                "tensors have to stay",
                expected=_in_words(before),
                found=_in_words(after),
            )
        return outputs.float(), state


class AdaptedModel(StepAdapter):
    """A StepModel around a user's module.

    Inputs are cast to the dtype of the module's weights, unless one of them is an index, which a
    half float could not hold: then they are float32, and the module casts by itself.

    Args:
        module: With `initial_state` and `step`.
        input_size: H_in.
        output_size: H_out.
        sizes: The arguments with which the module was made.
        is_casting: Whether inputs are cast.

    Raises:
        ModelError: If the module lacks a method.
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
                raise ModelError(f"{type(module).__name__} has no method {method}", field="class")
        self.module = module
        self._sizes = dict(sizes)
        self._is_casting = is_casting

    def around(self, module: nn.Module) -> AdaptedModel:
        """Make the same adapter around another module of the class."""
        widths = self.input_size, self.output_size
        return AdaptedModel(module, *widths, self._sizes, self._is_casting).eval()

    def sizes(self) -> dict[str, Any]:
        """Return the arguments from which an equal module can be made."""
        return dict(self._sizes)

    def unroll(self, sequence: Tensor, prev_state: State | None = None) -> Tensor:
        """Step over whole sequences offline, by the module's own `unroll` if it has one."""
        own = getattr(self.module, "unroll", None)
        if own is None:
            return super().unroll(sequence, prev_state)
        check_sequence(sequence, self.input_size)
        state = self.initial_state(sequence.shape[1]) if prev_state is None else prev_state
        with Naming("unroll"):
            outputs = own(self.cast(sequence), state)
        _check_outputs(outputs, (*sequence.shape[:2], self.output_size), "unroll")
        return outputs.float()  # type: ignore[no-any-return]

    def step_packed(
        self, sequence: PackedSequence, prev_state: State | None = None
    ) -> tuple[Tensor, State]:
        """Advance every key by its own number of timesteps, by the module's own way if any."""
        own = getattr(self.module, "step_packed", None)
        if own is None:
            return super().step_packed(sequence, prev_state)
        check_packed(sequence, self.input_size)
        key_count = int(sequence.batch_sizes[0])
        state = self.initial_state(key_count) if prev_state is None else prev_state
        packed = PackedSequence(self.cast(sequence.data), sequence.batch_sizes)
        with Naming("step_packed"):
            result = own(packed, state)
        shape = (len(sequence.data), self.output_size)
        return self._checked(result, state, shape, "step_packed")

    def _inner_state(self, batch_size: int) -> Any:
        return self.module.initial_state(batch_size)  # type: ignore[operator]

    def _inner_step(self, inputs: Tensor, state: State) -> Any:
        return self.module.step(self.cast(inputs), state)  # type: ignore[operator]

    def cast(self, inputs: Tensor) -> Tensor:
        """Cast inputs to what the module takes."""
        return inputs.to(weights_dtype(self.module)) if self._is_casting else inputs


class Naming:
    """Turn whatever foreign code raises to a ModelError that names the method."""

    def __init__(self, method: str) -> None:
        self._method = method

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, FOREIGN_ERRORS) and not isinstance(error, ModelError):
            raise ModelError(f"{self._method} raised {error_in_words(error)}") from error


def error_in_words(error: BaseException) -> str:
    """Name an error in one line; one of TorchScript by its last, which follows the source code."""
    text = str(error)
    if text.startswith("The following operation failed in the TorchScript interpreter"):
        text = text.strip().splitlines()[-1].removeprefix("RuntimeError: ")
    return f"{type(error).__name__}: {' '.join(text.split())}"


def weights_dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype of a module's first floating tensor, else of its first complex one's parts.

    float32 if it has neither.
    """
    dtype = None
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
        if tensor.is_complex() and dtype is None:
            dtype = tensor.dtype.to_real()
    return dtype or torch.float32


@torch.inference_mode()
def try_step(
    net: StepAdapter,
    device: torch.device,
    explain: Callable[[ModelError], ModelError] | None = None,
) -> None:
    """Step once from zeros in batches of several sizes, to find what contradicts itself.

    A size that equals another dimension proves nothing: (2 layers, N, H) has a row for each of two
    keys. So two of the sizes are such that no state tensor has them.

    Args:
        net: On its device.
        device: That device.
        explain: Adds to an error that the first size did not show.

    Raises:
        ModelError: If a state has no row for each key, changes in a step, or is not the same for
            all new keys; or if an output has no row for each key.
    """
    first = _try_size(net, device, 2)
    dims = {size for tensor in first for size in tensor.shape[1:]}
    unlike_others = itertools.islice((size for size in itertools.count(3) if size not in dims), 2)
    try:
        for batch_size in (*unlike_others, 1):
            _check_alike(first, _try_size(net, device, batch_size))
    except ModelError as error:
        raise explain(error) if explain else error from error.__cause__


def _try_size(net: StepAdapter, device: torch.device, batch_size: int) -> tuple[Tensor, ...]:
    """Step once from zeros with a number of keys; give the state that these begin with."""
    with Naming("inputs"):
        inputs = torch.zeros(batch_size, net.input_size, device=device)
    state = net.initial_state(batch_size)
    for tensor in flat(state):
        if tensor.device.type != device.type:
            raise ModelError(
                "initial_state: the state has to be made on the device of the weights",
                expected=device,
                found=tensor.device,
            )
    kept = tuple(tensor.clone() for tensor in flat(state))  # a step may write to what it is given
    net.step(inputs, state)
    return kept


def _check_alike(some: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> None:
    """Check that new keys begin alike, however many there are: one of them stands for all."""
    if len(some) != len(others):
        raise ModelError(
            "initial_state: the number of tensors depends on the number of keys",
            expected=len(some),
            found=len(others),
        )
    for one, other in zip(some, others, strict=True):
        if one.shape[1:] != other.shape[1:] or one.dtype != other.dtype:
            raise ModelError(
                "initial_state: what a key begins with depends on how many keys there are",
                expected=f"{_dtype_name(one.dtype)} {('N', *one.shape[1:])}",
                found=f"{_dtype_name(other.dtype)} {tuple(other.shape)} for {len(other)} keys",
            )
        rows = torch.cat([one, other])
        if rows.numel() and not torch.equal(rows[:1].expand_as(rows), rows):
            problem = "initial_state: new keys have to begin alike, with zeros or what was learned"
            raise ModelError(problem, found="rows that differ")


def _check_outputs(outputs: Any, shape: tuple[int, ...], method: str) -> None:
    if not isinstance(outputs, Tensor):
        raise ModelError(f"{method}: outputs are no tensor", found=kind_of(outputs))
    if tuple(outputs.shape) != shape:
        problem = f"{method}: the outputs have not the shape that model.json's fields give them"
        raise ModelError(problem, expected=shape, found=tuple(outputs.shape))
    if not outputs.is_floating_point():
        raise ModelError(f"{method}: outputs have to be floats", found=outputs.dtype)


def _check_state_kind(state: Any, method: str) -> None:
    tensors = state if isinstance(state, tuple) else (state,)
    if not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise ModelError(
            f"{method}: a state is one tensor, or a tuple of tensors", found=kind_of(state)
        )
    for tensor in tensors:
        if tensor.dtype not in STATE_DTYPES:
            raise ModelError(
                f"{method}: a state of this dtype can't be kept",
                expected=", ".join(_dtype_name(dtype) for dtype in STATE_DTYPES),
                found=_dtype_name(tensor.dtype),
            )


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _layout(state: State) -> list[tuple[torch.Size, torch.dtype, torch.device]]:
    """List what may not change in a step: shape, dtype and device of each tensor."""
    return [(tensor.shape, tensor.dtype, tensor.device) for tensor in flat(state)]


def _in_words(layout: list[tuple[torch.Size, torch.dtype, torch.device]]) -> str:
    words = [f"{_dtype_name(dtype)} {tuple(shape)} on {device}" for shape, dtype, device in layout]
    return " and ".join(words) or "no tensors"


def kind_of(value: Any) -> str:
    """Name the kind of a value, for errors."""
    if isinstance(value, tuple):
        return f"a tuple of {', '.join(type(one).__name__ for one in value) or 'nothing'}"
    return f"a {type(value).__name__}"
