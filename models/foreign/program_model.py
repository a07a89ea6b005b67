"""`ProgramModel`: a TorchScript or exported program as a StepModel; it needs no class.

The states of a program are inputs and outputs: its forward accepts (inputs, state tensors...) and
returns (outputs, next state tensors...). The inputs are (N, H_in), or have an axis of one timestep,
and each state tensor has its own key axis. Tuples, such as the pair of an LSTM, are flattened.

A program is code: it may call torch's operators without limit, and TorchScript operators can read
and write any file (`from_file`). So a worker opens a program only if the operator allows its kind,
as with packages of classes; torch doesn't see a byte of it before. `archive_checks` is a second
line of defense for exported programs. Use programs only from people you trust.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from torch import Tensor

from livestep.models.contract import State, state_tensors
from livestep.models.foreign.class_imports import SETTING
from livestep.models.foreign.foreign_errors import kind_of
from livestep.models.foreign.program_batches import batch_sizes, step_in_pieces
from livestep.models.foreign.program_reading import STATE_OUTSIDE, Program
from livestep.models.foreign.program_states import (
    DTYPES,
    HOW_TO_EXPORT,
    ProgramSizes,
    StateTensor,
    key_axes,
)
from livestep.models.foreign.step_adapter import StepAdapter, weights_dtype
from livestep.models.model_errors import ModelError

#: The class in `model.json`, and the name of the file next to it.
PROGRAM_FILES: Final[Mapping[str, str]] = {"torchscript": "model.pt", "exported": "model.pt2"}


def check_program_allowed(
    kind: str, allowed_packages: Collection[str], file: Path | None = None
) -> None:
    """Check that the operator allows a kind of program, before torch sees any of it.

    Args:
        kind: A key of `PROGRAM_FILES`.
        allowed_packages: Names of packages, and of kinds of programs.
        file: The file, for errors.

    Raises:
        ModelError: If the kind isn't allowed.
    """
    if kind not in allowed_packages:
        raise ModelError(
            f"opening this program runs its code, and {kind} isn't allowed; if you trust it, add "
            f"{kind} to {SETTING}",
            file=file,
            field="class",
            expected=", ".join(allowed_packages) or "no program",
            found=kind,
        )


class ProgramModel(StepAdapter):
    """A StepModel around a program.

    Attributes:
        program: The program.
        module: Runs it.
        batch_sizes: How many keys it accepts per call.
        device_mark: An empty tensor on the device for states; a program may have no weights.

    Args:
        program: The program.
        state: Its state tensors, in the order of its arguments.
        input_size: H_in.
        output_size: H_out.
        device: Where the program runs.
        is_casting: Whether inputs are cast to the dtype of the weights.
        time_axis: The axis of length one for time in its inputs; None if they are (N, H_in).

    Raises:
        ModelError: If the program doesn't have exactly one argument that is not a state.
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
                "the state tensors must be all arguments of the program but one, in their order",
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
        """Set the mode of this module only: an exported program can't change its mode."""
        self.training = mode
        return self

    def nearest_batch_size(self, wanted: int) -> int:
        """Return the number of keys per call closest to `wanted` that the program accepts."""
        return self.batch_sizes.at_least(min(wanted, self.batch_sizes.most))

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
                "the program must return its outputs, then the next value of each state tensor",
                expected=f"{1 + len(self._state)} tensors",
                found=f"{1 + len(following)}",
            )
        names = ["outputs", *(one.name for one in self._state)]
        for name, result in zip(names, (outputs, *following), strict=True):
            if not isinstance(result, Tensor):
                raise ModelError(
                    f"the program must return tensors; {name} is not one", found=kind_of(result)
                )
        axis = self._time_axis
        if axis is not None and outputs.ndim == 3 and outputs.shape[axis] == 1:
            outputs = outputs.squeeze(axis)
        pairs = zip(following, self._state, strict=True)
        return outputs, tuple(tensor.movedim(one.axis, 0) for tensor, one in pairs)

    def check_width(self) -> None:
        """Check that an exported program accepts as many columns as the input fields have.

        Raises:
            ModelError: If its signature has another number.
        """
        example = self.program.examples.get(self.inputs_name)
        stated = example.shape[-1] if isinstance(example, Tensor) else self.input_size
        if isinstance(stated, int) and stated != self.input_size:
            raise self._wrong_width(stated)

    @torch.inference_mode()
    def explained(self, error: ModelError) -> ModelError:
        """Find out whether a step failed because the input fields have too many or too few columns.

        TorchScript doesn't state the number, so each size in its weights is tried: if the program
        steps with exactly one of them, that is the number.

        Args:
            error: The error of the step.

        Returns:
            error: The same error, or one that states the number of columns.
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
            f"wrong number of columns for {self.inputs_name!r} of the program",
            field="inputs",
            expected=f"{needed} columns",
            found=self.input_size,
        )

    @property
    def inputs_name(self) -> str:
        """Name of the argument for the inputs."""
        return self.program.arguments[self._inputs_at]

    @property
    def state_names(self) -> set[str]:
        """Names of the arguments that are states."""
        return {one.name for one in self._state}

    @torch.inference_mode()
    def check_keeps_nothing(self, inputs: Tensor) -> None:
        """Check that a repeated step returns the same, and changes no buffer.

        Args:
            inputs: (N, H_in), of any events.

        Raises:
            ModelError: If the program keeps state inside, or draws random numbers.
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
                "the program returns a different result for the same inputs and states: it keeps "
                f"state inside or draws random numbers; {STATE_OUTSIDE}"
            )


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal; NaN equals NaN."""
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
        content: The bytes of the file.
        kind: A key of `PROGRAM_FILES`.
        sizes: The content of `ProgramSizes`.
        widths: H_in and H_out.
        is_casting: Whether inputs are cast to the dtype of the weights.
        device: Where it will run.

    Raises:
        ModelError: If the parts don't fit each other.
    """
    try:
        read = msgspec.convert(sizes, ProgramSizes)
    except msgspec.ValidationError as error:
        raise ModelError(str(error), field="sizes") from error
    for tensor in read.state:
        if tensor.dtype not in DTYPES or not 0 <= tensor.axis <= len(tensor.shape):
            raise ModelError("invalid state tensor", field="sizes.state", found=tensor)
        if any(size < 0 for size in tensor.shape):
            raise ModelError("negative size", field="sizes.state", found=tensor.shape)
    program = Program(content, device)
    if program.kind != kind:
        raise ModelError("the file is another kind of program", field="class", found=program.kind)
    return ProgramModel(program, read.state, *widths, device, is_casting, read.time_axis)


def how_to_export(error: ModelError) -> ModelError:
    """Extend an error of a trial with several batch sizes: how to export for any number of keys."""
    return ModelError(
        f"{error.problem}; {HOW_TO_EXPORT}", expected=error.expected, found=error.found
    )
