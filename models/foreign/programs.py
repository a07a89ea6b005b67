"""Programs: TorchScript and exported ones, whose states are inputs and outputs; no class needed.

A program's forward takes (inputs, state tensors...) and gives (outputs, next state tensors...): the
inputs are (N, H_in), or have an axis of one timestep, and each state tensor has its key axis where
the program says. Tuples, such as the pair of an LSTM, are opened.

A program is code: what it may do is call the operators of torch, as often as it likes, and those of
TorchScript read and write any file (`from_file`). So a worker opens one only if the operator has
allowed its kind, as with packages of classes, before torch sees a byte of it. `archive_checks` is a
second line for exported programs. Take programs from people you trust, as you would take any other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from torch import Tensor

from livestep.models.contract import State, state_tensors
from livestep.models.foreign.batch_sizes import batch_sizes, step_in_pieces
from livestep.models.foreign.class_imports import SETTING
from livestep.models.foreign.program_reading import STATE_OUTSIDE, Program
from livestep.models.foreign.program_states import (
    DTYPES,
    HOW_TO_EXPORT,
    ProgramSizes,
    StateTensor,
    key_axes,
)
from livestep.models.foreign.user_classes import StepAdapter, kind_of, weights_dtype
from livestep.models.model_errors import ModelError

#: What `model.json` names as the class, and the file that lies beside it.
PROGRAM_FILES: Final[Mapping[str, str]] = {"torchscript": "model.pt", "exported": "model.pt2"}


def check_program_allowed(
    kind: str, allowed_packages: Collection[str], file: Path | None = None
) -> None:
    """Check that the operator allows a kind of program; nothing of it was given to torch yet.

    Args:
        kind: A key of `PROGRAM_FILES`.
        allowed_packages: Names of packages, and of kinds of programs.
        file: For errors.

    Raises:
        ModelError: If it isn't allowed.
    """
    if kind not in allowed_packages:
        raise ModelError(
            f"opening this program would run what stands in it, and it isn't allowed; if you trust "
            f"it, give {SETTING} with {kind}",
            file=file,
            field="class",
            expected=", ".join(allowed_packages) or "no program",
            found=kind,
        )


class ProgramModel(StepAdapter):
    """A StepModel around a program.

    Attributes:
        program: As read.
        module: Runs it.
        batch_sizes: How many keys it takes in one call.
        device_mark: Says where states are made, also for a program without weights.

    Args:
        program: As read.
        state: Its state tensors, in the order of its arguments.
        input_size: H_in.
        output_size: H_out.
        device: Where the program runs.
        is_casting: Whether inputs are cast to the dtype of the weights.
        time_axis: Where its inputs have an axis of one timestep; None if they are (N, H_in).

    Raises:
        ModelError: If the program has not one argument more than there are state tensors.
    """

    def __init__(
        self,
        program: Program,
        state: Sequence[StateTensor],
        input_size: int,
        output_size: int,
        device: torch.device,
        is_casting: bool = True,
        time_axis: int | None = None,
    ) -> None:
        super().__init__(input_size, output_size)
        names = [tensor.name for tensor in state]
        rest = [name for name in program.arguments if name not in names]
        if names != [name for name in program.arguments if name in names] or len(rest) != 1:
            raise ModelError(
                "the state tensors have to be all arguments of the program but one, in their order",
                field="state",
                expected=", ".join(program.arguments),
                found=", ".join(names) or "none",
            )
        self.program = program
        self.module = program.module
        self._time_axis = time_axis
        axes = key_axes(program, state, time_axis)
        self.batch_sizes = batch_sizes(program.examples, axes, program.bounds)
        self._state = tuple(state)
        self._inputs_at = program.arguments.index(rest[0])
        self.register_buffer("device_mark", torch.empty(0, device=device), persistent=False)
        self._is_casting = is_casting

    device_mark: Tensor

    def train(self, mode: bool = True) -> ProgramModel:
        """Set the mode of this module only: an exported program has no other than its own."""
        self.training = mode
        return self

    def _inner_state(self, batch_size: int) -> State:
        device = self.device_mark.device
        return tuple(one.zeros(batch_size, device) for one in self._state)

    def _inner_step(self, inputs: Tensor, state: State) -> Any:
        if self._is_casting:
            inputs = inputs.to(weights_dtype(self.module))
        if len(inputs) in self.batch_sizes:
            return self._call(inputs, state)
        return step_in_pieces(self._piece, inputs, state_tensors(state), self.batch_sizes)

    def _piece(self, inputs: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        shape = (len(inputs), self.output_size)
        outputs, following = self._checked(self._call(inputs, state), state, shape, "step")
        return outputs, state_tensors(following)

    def _call(self, inputs: Tensor, state: State) -> Any:
        if self._time_axis is not None:
            inputs = inputs.unsqueeze(self._time_axis)  # (N, 1, H_in) or (1, N, H_in)
        arguments = [
            tensor.movedim(0, one.axis)
            for tensor, one in zip(state_tensors(state), self._state, strict=True)
        ]
        arguments.insert(self._inputs_at, inputs)
        outputs, *following = self.program.run(arguments)
        if len(following) != len(self._state):
            raise ModelError(
                "a program gives its outputs, then the next value of each state tensor",
                expected=f"{1 + len(self._state)} tensors",
                found=f"{1 + len(following)}",
            )
        names = ["outputs", *(one.name for one in self._state)]
        for name, result in zip(names, (outputs, *following), strict=True):
            if not isinstance(result, Tensor):
                raise ModelError(f"a program gives tensors; {name} is none", found=kind_of(result))
        axis = self._time_axis
        if axis is not None and outputs.ndim == 3 and outputs.shape[axis] == 1:
            outputs = outputs.squeeze(axis)
        pairs = zip(following, self._state, strict=True)
        return outputs, tuple(tensor.movedim(one.axis, 0) for tensor, one in pairs)

    def check_width(self) -> None:
        """Check that an exported program takes inputs of as many columns as the fields give.

        Raises:
            ModelError: If its signature says another number.
        """
        example = self.program.examples.get(self.inputs_name)
        stated = example.shape[-1] if isinstance(example, Tensor) else self.input_size
        if isinstance(stated, int) and stated != self.input_size:
            raise self._wrong_width(stated)

    @torch.inference_mode()
    def explained(self, error: ModelError) -> ModelError:
        """Look whether a step has failed because the fields don't give as many columns as needed.

        TorchScript doesn't say how many: inputs of each size that its weights have are tried, and
        if it steps with one of them only, that is the number.

        Args:
            error: Of the step.

        Returns:
            error: The same, or one that says how many columns are needed.
        """
        if self.inputs_name in self.program.examples:
            return error
        tensors = (*self.module.parameters(), *self.module.buffers())
        sizes = {size for tensor in tensors for size in tensor.shape if size > 0}
        widths = [size for size in sorted({*sizes, self.input_size}) if self._can_step(size)]
        if len(widths) != 1 or widths[0] == self.input_size:
            return error
        return self._wrong_width(widths[0])

    def _can_step(self, width: int) -> bool:
        inputs = torch.zeros(2, width, device=self.device_mark.device)
        try:
            self._inner_step(inputs, self.initial_state(2))
        except ModelError:
            return False
        return True

    def _wrong_width(self, needed: int) -> ModelError:
        return ModelError(
            f"not as many columns as {self.inputs_name!r} of the program needs",
            field="inputs",
            expected=f"{needed} columns",
            found=self.input_size,
        )

    @property
    def inputs_name(self) -> str:
        """Name of the argument that takes the inputs."""
        return self.program.arguments[self._inputs_at]

    @property
    def state_names(self) -> set[str]:
        """Names of the arguments that are states."""
        return {one.name for one in self._state}

    @torch.inference_mode()
    def check_keeps_nothing(self, inputs: Tensor) -> None:
        """Check that the same step gives the same again, and that no buffer changes in it.

        Args:
            inputs: (N, H_in), of any events.

        Raises:
            ModelError: If the program keeps something inside, or draws random numbers.
        """
        before = {name: tensor.clone() for name, tensor in self.module.named_buffers()}
        state = self.initial_state(len(inputs))
        first, again = self.step(inputs, state), self.step(inputs, state)
        buffers = dict(self.module.named_buffers())
        if changed := [name for name in before if not _is_same(before[name], buffers[name])]:
            raise ModelError(
                f"the program keeps state inside: its forward writes to "
                f"{', '.join(map(repr, changed))}; {STATE_OUTSIDE}"
            )
        tensors = [(outputs, *state_tensors(state)) for outputs, state in (first, again)]
        if not all(map(_is_same, *tensors)):
            raise ModelError(
                "the program gives something else for the same inputs and states the second time: "
                f"it keeps state inside, or draws random numbers; {STATE_OUTSIDE}"
            )


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, NaN and NaN too."""
    if torch.equal(one, other):
        return True
    is_float = one.is_floating_point() and one.shape == other.shape
    return is_float and torch.equal(one.nan_to_num(), other.nan_to_num())


def program_model(
    content: bytes,
    kind: str,
    sizes: Mapping[str, Any],
    widths: tuple[int, int],
    is_casting: bool,
    device: torch.device,
) -> ProgramModel:
    """Build the model that `model.json` describes from a program's file.

    Args:
        content: Of the file.
        kind: A key of `PROGRAM_FILES`.
        sizes: The members of `ProgramSizes`.
        widths: H_in and H_out.
        is_casting: Whether inputs are cast to the dtype of the weights.
        device: Where it will run.

    Raises:
        ModelError: If they don't fit each other.
    """
    try:
        read = msgspec.convert(sizes, ProgramSizes)
    except msgspec.ValidationError as error:
        raise ModelError(str(error), field="sizes") from error
    for tensor in read.state:
        if tensor.dtype not in DTYPES or not 0 <= tensor.axis <= len(tensor.shape):
            raise ModelError("no state tensor", field="sizes.state", found=tensor)
        if any(size < 0 for size in tensor.shape):
            raise ModelError("a size below 0", field="sizes.state", found=tensor.shape)
    program = Program(content, device)
    if program.kind != kind:
        raise ModelError("the file is of another kind", field="class", found=program.kind)
    return ProgramModel(program, read.state, *widths, device, is_casting, read.time_axis)


def how_to_export(error: ModelError) -> ModelError:
    """Add to what a trial with several batch sizes found how a program is exported for all."""
    return ModelError(
        f"{error.problem}; {HOW_TO_EXPORT}", expected=error.expected, found=error.found
    )
