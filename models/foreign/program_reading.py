"""`Program`: a TorchScript or exported program, read from its file. Reading may run its code."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument
from torch.export.passes import move_to_device_pass
from torch.utils import _pytree as pytree

from livestep.models.foreign.archive_checks import checked_archive
from livestep.models.foreign.file_kinds import program_kind
from livestep.models.model_errors import ModelError

#: How to fix a program that keeps state inside.
STATE_OUTSIDE = (
    "make its states arguments and results: forward(x, state) returns (outputs, next state)"
)

_SHAPES_ARE_GIVEN = " (TorchScript has no shapes; set them with --state-shape and --time-axis)"


class Program:
    """A program and its signature. Reading it may run its code.

    Attributes:
        kind: The kind of file, a key of `PROGRAM_FILES`.
        module: Runs the program.
        arguments: Names of the tensors that its forward accepts, tuples flattened: a pair `state`
            becomes `state_0` and `state_1`.
        constants: Arguments that are not tensors, with their fixed values.
        examples: The file's description of each argument, by name; empty for TorchScript.
        bounds: The ranges of sizes in the examples.
    """

    def __init__(self, content: bytes, device: torch.device | None = None) -> None:
        """Read a program.

        Args:
            content: The bytes of its file.
            device: Where it will run.

        Raises:
            ModelError: If the file is not a program, contains something that livestep doesn't open,
                needs arguments other than tensors, or keeps state inside.
        """
        self.arguments: list[str] = []
        self.constants: dict[str, Any] = {}
        self.examples: dict[str, Any] = {}
        self.bounds: Mapping[Any, Any] = {}
        self._leaves: list[str] = []
        self.module: nn.Module
        self.kind = program_kind(content)
        if self.kind == "exported":
            self._read_exported(content, device)
        else:
            self._read_torchscript(content)

    def _read_torchscript(self, content: bytes) -> None:
        try:
            with warnings.catch_warnings():
                # torch calls its own format old, but still reads it; users still have such files.
                warnings.simplefilter("ignore", FutureWarning)
                program = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
            taken = program.forward.schema.arguments[1:]
        except (RuntimeError, ValueError, AttributeError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise ModelError(
                f"this version of torch can't read the TorchScript: {first_line}"
            ) from error
        self.module = program.eval()
        self._check_sets_nothing(program)
        template = tuple(self._script_argument(one, one.name, one.type) for one in taken)
        self._structure = pytree.tree_structure((template, {}))

    @staticmethod
    def _check_sets_nothing(program: Any) -> None:
        """Check that the TorchScript forward sets no attribute."""
        graph = program.inlined_graph
        nodes = graph.findAllNodes("prim::SetAttr", recurse=True)
        if names := sorted({node.s("name") for node in nodes}):
            raise ModelError(
                "the program keeps state inside: its forward sets "
                f"{', '.join(map(repr, names))}; {STATE_OUTSIDE}"
            )

    def _script_argument(self, argument: Any, name: str, kind: Any) -> Any:
        """Record the leaves of an argument; return its structure."""
        if isinstance(kind, torch.OptionalType):
            inner = kind.getElementType()
            if isinstance(inner, torch.TensorType | torch.TupleType):
                return self._script_argument(argument, name, inner)
        if isinstance(kind, torch.TupleType):
            return tuple(
                self._script_argument(argument, f"{name}_{index}", inner)
                for index, inner in enumerate(kind.elements())
            )
        self._leaves.append(name)
        if isinstance(kind, torch.TensorType):
            self.arguments.append(name)
        elif name == argument.name and argument.has_default_value():
            self.constants[name] = argument.default_value
        else:
            raise _no_tensor(name, str(kind))
        return name

    def _read_exported(self, content: bytes, device: torch.device | None) -> None:
        archive = checked_archive(content)
        try:
            with _quiet():
                program = torch.export.load(archive)
            if device is not None and device.type != "cpu":
                program = move_to_device_pass(program, device)
            # Guards are Python code from the file; `StepAdapter` checks shapes instead.
            self.module = program.module(check_guards=False)
        except Exception as error:  # a broken file can make torch raise anything
            first_line = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ModelError(
                f"this version of torch can't read the exported program: {first_line}"
            ) from error
        self.bounds = program.range_constraints
        self._read_signature(program)

    def _read_signature(self, program: torch.export.ExportedProgram) -> None:
        signature = program.graph_signature
        if kept := sorted(signature.buffers_to_mutate.values()):
            raise ModelError(
                "the program keeps state inside: its forward writes to "
                f"{', '.join(map(repr, kept))}; {STATE_OUTSIDE}"
            )
        values = {node.name: node.meta.get("val") for node in program.graph.nodes}
        for spec in signature.input_specs:
            if spec.kind != InputKind.USER_INPUT:
                continue
            name = spec.arg.name
            self._leaves.append(name)
            if isinstance(spec.arg, TensorArgument):
                self.arguments.append(name)
                self.examples[name] = values[name]
            elif isinstance(spec.arg, ConstantArgument):
                self.constants[name] = spec.arg.value
            else:
                raise _no_tensor(name, type(spec.arg).__name__)
        self._structure = program.call_spec.in_spec

    def run(self, tensors: Sequence[Tensor]) -> list[Any]:
        """Call the program.

        Args:
            tensors: For `arguments`, in their order.

        Returns:
            results: Outputs and next states, tuples flattened.

        Raises:
            ModelError: If it raises anything; states the shapes of the arguments.
        """
        given: Mapping[str, Any] = dict(zip(self.arguments, tensors, strict=True)) | self.constants
        leaves = [given[name] for name in self._leaves]
        args, options = pytree.tree_unflatten(leaves, self._structure)
        try:
            return _flattened(self.module(*args, **options))
        except Exception as error:  # a program can raise anything
            kind = type(error).__name__
            lines = [line for line in str(error).splitlines() if line.strip()]
            last = lines[-1].strip().removeprefix(f"{kind}: ") if lines else ""
            shapes = ", ".join(
                f"{name} {tuple(tensor.shape)}"
                for name, tensor in zip(self.arguments, tensors, strict=True)
            )
            hint = _SHAPES_ARE_GIVEN if self.kind == "torchscript" else ""
            raise ModelError(
                f"the program raised {kind}: {last}; it was called with {shapes}{hint}"
            ) from error


def _no_tensor(name: str, kind: str) -> ModelError:
    return ModelError(
        f"argument {name!r} of the program has type {kind}, but a worker passes tensors only; "
        "wrap the program in a module that sets the argument, and export or script that: "
        f"def forward(self, x, state): return self.program(x, state, {name}=...)",
        field="class",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging a traceback of an error that it also raises."""
    logger = logging.getLogger("torch.export")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was_disabled


def _flattened(result: Any) -> list[Any]:
    """Flatten the results of a program: one tensor, or nested tuples."""
    if isinstance(result, tuple | list):
        return [tensor for inner in result for tensor in _flattened(inner)]
    return [result]
