"""Programs: TorchScript and exported ones, whose states are inputs and outputs; no class needed.

A program's forward takes (inputs, state tensors...) and gives (outputs, next state tensors...): the
inputs are (N, H_in), and each state tensor has its key axis where the program says.

A program is code: what it may do is call the operators of torch, as often as it likes, and those of
TorchScript read and write any file (`from_file`). So a worker opens one only if the operator has
allowed its kind, as with packages of classes, before torch sees a byte of it. `archive_checks` is a
second line for exported programs. Take programs from people you trust, as you would take any other.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import torch
from torch import Tensor, nn
from torch.export.passes import move_to_device_pass

from models.archive_checks import checked_archive
from models.batch_sizes import batch_sizes, step_in_pieces
from models.class_imports import SETTING
from models.contract import State, state_tensors
from models.errors import ModelError
from models.user_classes import STATE_DTYPES, StepAdapter, weights_dtype

Kind = Literal["torchscript", "exported"]

#: What `model.json` names as the class, and the file that lies beside it.
PROGRAM_FILES: Final[Mapping[str, str]] = {"torchscript": "model.pt", "exported": "model.pt2"}

_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in STATE_DTYPES}

_HOW_TO_EXPORT = (
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
        return torch.zeros((batch_size, *self.shape), dtype=_DTYPES[self.dtype], device=device)


class ProgramSizes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `model.json` lists as sizes of a program: its state, in the order of the arguments."""

    state: tuple[StateTensor, ...]


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


def program_kind(content: bytes) -> Kind:
    """Say by the marks of torch's archives which kind of program a file would be."""
    is_exported = b"archive_format" in content and b"models/model.json" in content
    return "exported" if is_exported else "torchscript"


class Program:
    """A program that was read, and what its signature says. To read it may run it.

    Attributes:
        kind: Of the file, a key of `PROGRAM_FILES`.
        module: Runs it.
        arguments: Names of the arguments of its forward.
        examples: What the file says of the arguments, by name; nothing in TorchScript.
        bounds: The ranges of sizes in the examples.
    """

    def __init__(self, content: bytes, device: torch.device | None = None) -> None:
        """Read a program.

        Args:
            content: Of its file.
            device: Where it will run.

        Raises:
            ModelError: If it is neither kind of program, or has something that isn't opened.
        """
        self.examples: dict[str, Any] = {}
        self.bounds: Mapping[Any, Any] = {}
        self.module: nn.Module
        self.kind = program_kind(content)
        if self.kind == "exported":
            self._read_exported(content, device)
        else:
            self._read_torchscript(content)

    def _read_torchscript(self, content: bytes) -> None:
        try:
            with warnings.catch_warnings():
                # torch calls its own format old; it still reads it, and so do its users.
                warnings.simplefilter("ignore", FutureWarning)
                program = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
            self.arguments = [one.name for one in program.forward.schema.arguments[1:]]
        except (RuntimeError, ValueError, AttributeError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise ModelError(
                f"neither TorchScript nor an exported program: {first_line}"
            ) from error
        self.module = program.eval()

    def _read_exported(self, content: bytes, device: torch.device | None) -> None:
        archive = checked_archive(content)
        try:
            with _quiet():
                program = torch.export.load(archive)
            if device is not None and device.type != "cpu":
                program = move_to_device_pass(program, device)
            # Guards are Python code in the file; `StepAdapter` checks shapes instead.
            self.module = program.module(check_guards=False)
        except Exception as error:  # whatever a broken file makes torch raise
            first_line = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ModelError(
                f"no exported program of this version of torch: {first_line}"
            ) from error
        self.bounds = program.range_constraints
        names = set(program.graph_signature.user_inputs)
        self.examples = {
            node.name: node.meta["val"]
            for node in program.graph.nodes
            if node.op == "placeholder" and node.name in names
        }
        self.arguments = list(self.examples)


class ProgramModel(StepAdapter):
    """A StepModel around a program.

    Attributes:
        program: The module that runs it.
        batch_sizes: How many keys it takes in one call.
        inputs_at: Place of the inputs among the arguments.
        device_mark: Says where states are made, also for a program without weights.

    Args:
        program: As read.
        state: Its state tensors, in the order of its arguments.
        input_size: H_in.
        output_size: H_out.
        device: Where the program runs.
        is_casting: Whether inputs are cast to the dtype of the weights.

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
        self.program = program.module
        axes = {tensor.name: tensor.axis for tensor in state}
        self.batch_sizes = batch_sizes(program.examples, axes, program.bounds)
        self._state = tuple(state)
        self.inputs_at = program.arguments.index(rest[0])
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
            inputs = inputs.to(weights_dtype(self.program))
        if len(inputs) in self.batch_sizes:
            return self._call(inputs, state)
        return step_in_pieces(self._piece, inputs, state_tensors(state), self.batch_sizes)

    def _piece(self, inputs: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, ...]]:
        shape = (len(inputs), self.output_size)
        outputs, following = self._checked(self._call(inputs, state), state, shape, "step")
        return outputs, state_tensors(following)

    def _call(self, inputs: Tensor, state: State) -> Any:
        arguments = [
            tensor.movedim(0, one.axis)
            for tensor, one in zip(state_tensors(state), self._state, strict=True)
        ]
        arguments.insert(self.inputs_at, inputs)
        outputs, *following = _flattened(self.program(*arguments))
        if len(following) != len(self._state):
            raise ModelError(
                "a program gives its outputs, then the next value of each state tensor",
                expected=f"{1 + len(self._state)} tensors",
                found=f"{1 + len(following)}",
            )
        pairs = zip(following, self._state, strict=True)
        return outputs, tuple(tensor.movedim(one.axis, 0) for tensor, one in pairs)


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
        state = msgspec.convert(sizes, ProgramSizes).state
    except msgspec.ValidationError as error:
        raise ModelError(str(error), field="sizes") from error
    for tensor in state:
        if tensor.dtype not in _DTYPES or not 0 <= tensor.axis <= len(tensor.shape):
            raise ModelError("no state tensor", field="sizes.state", found=tensor)
        if any(size < 0 for size in tensor.shape):
            raise ModelError("a size below 0", field="sizes.state", found=tensor.shape)
    program = Program(content, device)
    if program.kind != kind:
        raise ModelError("the file is of another kind", field="class", found=program.kind)
    return ProgramModel(program, state, *widths, device, is_casting)


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
    if not name or "=" not in text or (dtype or "float32") not in _DTYPES or not is_good:
        raise ModelError(
            "no shape of a state",
            field="--state-shape",
            expected="NAME=[DTYPE:]SIZE,... such as h=1,64 or h=1,N,64 or seen=int64:1",
            found=repr(text),
        )
    return StateTensor(name, tuple(map(int, numbers)), dtype or "float32", axis)


def how_to_export(error: ModelError) -> ModelError:
    """Add to what a trial with several batch sizes found how a program is exported for all."""
    return ModelError(
        f"{error.problem}; {_HOW_TO_EXPORT}", expected=error.expected, found=error.found
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging a traceback of what is raised as well."""
    logger = logging.getLogger("torch.export")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was_disabled


def _found_state(name: str, value: Any) -> StateTensor:
    """Read one state tensor from an exported program's signature."""
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise ModelError(f"argument {name!r} of the program is no tensor", found=kind)
    axes = [axis for axis, size in enumerate(value.shape) if not isinstance(size, int)]
    if len(axes) != 1:
        raise ModelError(
            f"state {name!r} of the program has {len(axes)} axes of any size; {_HOW_TO_EXPORT}",
            found=tuple(map(str, value.shape)),
        )
    shape = tuple(int(size) for axis, size in enumerate(value.shape) if axis not in axes)
    return StateTensor(name, shape, str(value.dtype).removeprefix("torch."), axes[0])


def _flattened(result: Any) -> list[Any]:
    """Flatten what a program gives: one tensor, or tuples of them."""
    if isinstance(result, tuple | list):
        return [tensor for inner in result for tensor in _flattened(inner)]
    return [result]
