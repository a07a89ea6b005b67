"""The state of a program: its tensors, as the program's signature says or as they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor

from livestep.models.foreign.program_reading import Program
from livestep.models.foreign.user_classes import STATE_DTYPES
from livestep.models.model_errors import ModelError

#: What a state may be made of, as torch names it.
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in STATE_DTYPES}

#: What to do about a program for one number of keys.
HOW_TO_EXPORT = (
    "it has to take any number of keys: torch.export.export(model, (inputs, state), "
    "dynamic_shapes=({0: N}, {0: N})) with N = torch.export.Dim('N'), and examples of two keys"
)


class StateTensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One state tensor of a program.

    Attributes:
        name: Of the argument of its forward.
        shape: Of one key's, without the key axis.
        dtype: As torch names it.
        axis: The key axis in the program; ours is always 0.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    axis: int = 0

    def zeros(self, batch_size: int, device: torch.device) -> Tensor:
        """Make the state of new keys, key first."""
        return torch.zeros((batch_size, *self.shape), dtype=DTYPES[self.dtype], device=device)


class ProgramSizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `model.json` lists as sizes of a program.

    Attributes:
        state: In the order of the arguments.
        time_axis: Where its inputs have an axis of one timestep; None if they are (N, H_in).
    """

    state: tuple[StateTensor, ...]
    time_axis: Literal[0, 1] | None = None


def choose_states(
    program: Program, names: Sequence[str] = (), shapes: Mapping[str, StateTensor] | None = None
) -> tuple[StateTensor, ...]:
    """Find the state tensors of a program: as they are given, else as its signature says.

    Args:
        program: As read.
        names: The arguments that are states; none for all after the first.
        shapes: What is known of them, by name.

    Returns:
        state: In the order of the arguments.

    Raises:
        ModelError: If a name is none of the arguments, or a shape is neither given nor found.
    """
    given = dict(shapes or {})
    chosen = list(names) or program.arguments[1:]
    for name in (*chosen, *given):
        if name not in program.arguments or name not in chosen:
            raise ModelError(
                f"the program has no state {name!r}",
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
                f"a {program.kind} program does not say what shape its state {name!r} has; give "
                f"--state-shape {name}=SIZE,... of one key, with N where the key axis is if it "
                f"isn't the first, and the dtype before it if it isn't float32: {name}=1,N,64, "
                f"{name}=int64:1",
                field="state",
            )
    return tuple(given[name] for name in program.arguments if name in chosen)


def read_state_shape(text: str) -> StateTensor:
    """Read `NAME=[DTYPE:]SIZE,...`, with N for the key axis; without it, the key axis is the first.

    Raises:
        ModelError: If it can't be read.

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
            "no shape of a state",
            field="--state-shape",
            expected="NAME=[DTYPE:]SIZE,... such as h=1,64 or h=1,N,64 or seen=int64:1",
            found=repr(text),
        )
    return StateTensor(name, tuple(map(int, numbers)), dtype or "float32", axis)


def key_axes(
    program: Program, state: Sequence[StateTensor], time_axis: int | None
) -> dict[str, int]:
    """Say by name which axis of each argument is that of the keys.

    Args:
        program: As read.
        state: Its state tensors.
        time_axis: As from `find_time_axis`.
    """
    inputs = dict.fromkeys(program.arguments, 1 if time_axis == 0 else 0)
    return inputs | {one.name: one.axis for one in state}


def find_time_axis(program: Program, state: Sequence[StateTensor]) -> Literal[0, 1] | None:
    """Find where the inputs of a program have an axis of one timestep, if its signature says it.

    Args:
        program: As read.
        state: Its state tensors.

    Returns:
        time_axis: 0 for inputs (1, N, H_in), 1 for (N, 1, H_in), None for (N, H_in) and for a
            program that says nothing about shapes.

    Raises:
        ModelError: If they have another shape.
    """
    names = [one.name for one in state]
    rest = [name for name in program.arguments if name not in names]
    if len(rest) != 1 or not isinstance(example := program.examples.get(rest[0]), Tensor):
        return None
    shape = [str(size) for size in example.shape]
    free = [axis for axis, size in enumerate(example.shape) if not isinstance(size, int)]
    # An export names each size that is free; that of the keys is the same in inputs and states.
    key_sizes = {str(program.examples[one.name].shape[one.axis]) for one in state}
    key_axes = [axis for axis in free if shape[axis] in key_sizes] if state else free
    if len(shape) == 2 and key_axes == [0] == free:
        return None
    if len(shape) == 3 and key_axes in ([0], [1]):
        time_axis = 1 - key_axes[0]
        if (shape[time_axis] == "1" or time_axis in free) and 2 not in free:
            return 1 if time_axis else 0
    raise ModelError(
        f"inputs {rest[0]!r} of the program have a shape that one event a key doesn't give; export "
        "it for examples of (2, columns), or of (2, 1, columns) or (1, 2, columns) if it needs an "
        f"axis of time; {HOW_TO_EXPORT}",
        expected="(N, columns), (N, 1, columns) or (1, N, columns)",
        found="(" + ", ".join(shape) + ")",
    )


def _found_state(name: str, value: Any) -> StateTensor:
    """Read one state tensor from an exported program's signature."""
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise ModelError(f"argument {name!r} of the program is no tensor", found=kind)
    axes = [axis for axis, size in enumerate(value.shape) if not isinstance(size, int)]
    if len(axes) != 1:
        raise ModelError(
            f"state {name!r} of the program has {len(axes)} axes of any size; {HOW_TO_EXPORT}",
            found=tuple(map(str, value.shape)),
        )
    shape = tuple(int(size) for axis, size in enumerate(value.shape) if axis not in axes)
    return StateTensor(name, shape, str(value.dtype).removeprefix("torch."), axes[0])
