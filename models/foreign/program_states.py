"""The state tensors of a program, from its signature or as the user describes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor

from livestep.models.foreign.program_reading import Program
from livestep.models.foreign.step_adapter import STATE_DTYPES
from livestep.models.model_errors import ModelError

#: Dtypes of states by torch's names.
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in STATE_DTYPES}

#: How to fix a program that accepts one number of keys only.
HOW_TO_EXPORT = (
    "export it for any number of keys: torch.export.export(model, (inputs, state), "
    "dynamic_shapes=({0: N}, {0: N})) with N = torch.export.Dim('N') and examples of two keys"
)


class StateTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One state tensor of a program.

    Attributes:
        name: The argument of the program's forward.
        shape: The shape for one key, without the key axis.
        dtype: Torch's name of the dtype.
        axis: The key axis in the program; in the engine it is always 0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    axis: int = 0

    def zeros(self, batch_size: int, device: torch.device) -> Tensor:
        """Return the state of new keys, axis 0 is the key."""
        return torch.zeros((batch_size, *self.shape), dtype=DTYPES[self.dtype], device=device)


class ProgramSizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `sizes` of a program in `model.json`.

    Attributes:
        state: The state tensors, in the order of the arguments.
        time_axis: The axis of length one for time in the inputs; None if they are (N, H_in).
    """

    state: tuple[StateTensor, ...]
    time_axis: Literal[0, 1] | None = None


def choose_states(
    program: Program, names: Sequence[str] = (), shapes: Mapping[str, StateTensor] | None = None
) -> tuple[StateTensor, ...]:
    """Choose the state tensors of a program: as given, else from its signature.

    Args:
        program: The program.
        names: The arguments that are states; empty for all after the first.
        shapes: Known state tensors, by name.

    Returns:
        state: The state tensors, in the order of the arguments.

    Raises:
        ModelError: If a name is not an argument, or a shape is neither given nor in the signature.
    """
    given = dict(shapes or {})
    chosen = list(names) or program.arguments[1:]
    for name in (*chosen, *given):
        if name not in program.arguments or name not in chosen:
            raise ModelError(
                f"the program has no argument {name!r} that is a state",
                field="state",
                expected="some of " + ", ".join(program.arguments),
            )
    for name in chosen:
        if name in given:
            continue
        if name in program.examples:
            given[name] = _found_state(name, program.examples[name])
        else:
            raise ModelError(
                f"a {program.kind} program does not contain the shape of its state {name!r}; add "
                f"--state-shape {name}=SIZE,... with the shape of one key. Write N for the key "
                f"axis if it isn't the first, and the dtype if it isn't float32: {name}=1,N,64 or "
                f"{name}=int64:1",
                field="state",
            )
    return tuple(given[name] for name in program.arguments if name in chosen)


def read_state_shape(text: str) -> StateTensor:
    """Parse `NAME=[DTYPE:]SIZE,...`; N is the key axis, which is the first if there is no N.

    Raises:
        ModelError: If the text is invalid.

    Example:
        >>> read_state_shape("h=1,N,64")
        StateTensor(name='h', shape=(1, 64), dtype='float32', axis=1)
        >>> read_state_shape("seen=int64:")
        StateTensor(name='seen', shape=(), dtype='int64', axis=0)
    """
    name, _, rest = text.partition("=")
    dtype, _, sizes = rest.rpartition(":")
    parts = [part.strip() for part in sizes.split(",") if part.strip()]
    axis = parts.index("N") if "N" in parts else 0
    numbers = [part for part in parts if part != "N"]
    is_good = all(number.isascii() and number.isdigit() for number in numbers)
    if not name or "=" not in text or (dtype or "float32") not in DTYPES or not is_good:
        raise ModelError(
            "invalid shape of a state",
            field="--state-shape",
            expected="NAME=[DTYPE:]SIZE,... such as h=1,64 or h=1,N,64 or seen=int64:1",
            found=repr(text),
        )
    return StateTensor(name, tuple(map(int, numbers)), dtype or "float32", axis)


def key_axes(
    program: Program, state: Sequence[StateTensor], time_axis: int | None
) -> dict[str, int]:
    """Return the key axis of each argument, by name.

    Args:
        program: The program.
        state: Its state tensors.
        time_axis: From `find_time_axis`.
    """
    inputs = dict.fromkeys(program.arguments, 1 if time_axis == 0 else 0)
    return inputs | {one.name: one.axis for one in state}


def find_time_axis(program: Program, state: Sequence[StateTensor]) -> Literal[0, 1] | None:
    """Find the time axis of a program's inputs from its signature.

    Args:
        program: The program.
        state: Its state tensors.

    Returns:
        time_axis: 0 for inputs (1, N, H_in), 1 for (N, 1, H_in), None for (N, H_in) and for a
            program without shapes.

    Raises:
        ModelError: If the inputs have another shape.
    """
    names = [one.name for one in state]
    rest = [name for name in program.arguments if name not in names]
    if len(rest) != 1 or not isinstance(example := program.examples.get(rest[0]), Tensor):
        return None
    shape = [str(size) for size in example.shape]
    free = [axis for axis, size in enumerate(example.shape) if not isinstance(size, int)]
    # An export names each free size; that of the key axis is the same in inputs and states.
    key_sizes = {str(program.examples[one.name].shape[one.axis]) for one in state}
    key_axes = [axis for axis in free if shape[axis] in key_sizes] if state else free
    if len(shape) == 2 and key_axes == [0] == free:
        return None
    if len(shape) == 3 and key_axes in ([0], [1]):
        time_axis = 1 - key_axes[0]
        if (shape[time_axis] == "1" or time_axis in free) and 2 not in free:
            return 1 if time_axis else 0
    raise ModelError(
        f"the shape of inputs {rest[0]!r} of the program does not fit one event per key; export "
        "it with example inputs (2, columns), or (2, 1, columns) or (1, 2, columns) if it needs a "
        f"time axis; {HOW_TO_EXPORT}",
        expected="(N, columns), (N, 1, columns) or (1, N, columns)",
        found="(" + ", ".join(shape) + ")",
    )


def _found_state(name: str, value: Any) -> StateTensor:
    """Read one state tensor from the signature of an exported program."""
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise ModelError(f"argument {name!r} of the program is not a tensor", found=kind)
    axes = [axis for axis, size in enumerate(value.shape) if not isinstance(size, int)]
    if len(axes) != 1:
        raise ModelError(
            f"state {name!r} of the program has {len(axes)} axes of variable size, not one; "
            f"{HOW_TO_EXPORT}",
            found=tuple(map(str, value.shape)),
        )
    shape = tuple(int(size) for axis, size in enumerate(value.shape) if axis not in axes)
    return StateTensor(name, shape, str(value.dtype).removeprefix("torch."), axes[0])
