"""A model on disk: a directory with `model.json` and `model.safetensors`, or a program.

`model.json` says what the weights mean; `description.ModelFile` lists its members. A class is
looked up in `CELLS`, or imported from a package that the operator has allowed; safetensors holds
numbers only. A program is code: it is opened only if the operator has allowed its kind.

The fingerprint names a model everywhere else. It stands in `model.json` as well, so that weights
and description which don't belong together (an interrupted save, a mixed-up copy) are found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor, nn

from livestep.models.devices import choose_device
from livestep.models.disk.building import WEIGHTS_FILE, build_net, contents_file
from livestep.models.disk.describing import default_field, describe
from livestep.models.disk.description import ModelFile, decode_description
from livestep.models.disk.net_differences import Arguments, explain_weights
from livestep.models.disk.reading import DESCRIPTION_FILE, read_description, read_file
from livestep.models.disk.same_net import check_same_net
from livestep.models.disk.storable import storable_model
from livestep.models.disk.stored_weights import read_weights, weights_of, write_weights
from livestep.models.disk.weights import CELLS, fingerprint_of
from livestep.models.disk.writing import write_files
from livestep.models.fields.field_types import CodecName, Field, OutputField
from livestep.models.foreign.class_imports import class_path, import_class
from livestep.models.foreign.foreign_errors import AsModelError, kind_of
from livestep.models.foreign.program_model import PROGRAM_FILES, check_program_allowed
from livestep.models.foreign.program_reading import Program
from livestep.models.foreign.program_states import StateTensor, find_time_axis
from livestep.models.foreign.user_classes import AdaptedModel
from livestep.models.loaded_model import LoadedModel
from livestep.models.model_errors import ModelError
from livestep.models.seeding import kept_random_state
from livestep.models.sequences.rules import DEFAULT_RULES, SequenceRules


def save_model(
    model: nn.Module,
    directory: str | Path,
    inputs: Sequence[Field] | None = None,
    outputs: Sequence[OutputField] | None = None,
    codec: CodecName = "json",
    rules: SequenceRules = DEFAULT_RULES,
    sizes: Mapping[str, Any] | None = None,
) -> None:
    """Write a model to a directory, which is made if it is not there.

    A model that stands there already is replaced. Both files are written in full beside the old
    ones before either takes its place; whoever loads between the two renames gets a ModelError,
    never a mixture.

    Before anything is written, the model is built again as a worker will do it, and both are
    stepped with the same random events of the inputs: outputs and states have to be equal bit for
    bit. So an attribute, hook or argument that would be lost is an error here. Neither the model
    nor any generator of random numbers is changed.

    Args:
        model: A model of this package, float32; or any module with `initial_state` and `step` whose
            class can be imported, see `user_classes`. On any device; compiled by torch or not.
        directory: Where to write.
        inputs: What the H_in columns mean; by default `Number("x", input_size)`.
        outputs: What the H_out columns mean; by default `Number("y", output_size)`.
        codec: What a record's value will be: "json", or "float32" for raw values.
        rules: How events become sequences, and what is answered; by default each event.
        sizes: The arguments with which the class makes an equal module, as JSON has them; by
            default what the module's method `sizes` says, else none. For a user's class only.

    Raises:
        ModelError: If the class can't be imported or contradicts itself, a weight is lazy, not
            finite, or of a dtype that can't be saved, the fields don't fit the sizes, the rules
            don't fit the fields; if the model that would be loaded doesn't step like this one, or a
            step of this one writes to its weights or buffers, draws random numbers or keeps
            something beside the state; or if the directory can't be written. Nothing was replaced.

    Example:
        >>> import tempfile
        >>> from livestep import GRU, Number
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(GRU(2, 4, 1), folder, inputs=[Number("wind"), Number("rain")])
        ...     loaded = load_model(folder)
        >>> loaded.inputs[0].name, loaded.outputs[0].name, len(loaded.fingerprint)
        ('wind', 'y', 16)
    """
    model = storable_model(model)
    with kept_random_state():
        text, content = _described_and_stored(model, inputs, outputs, codec, rules, sizes)
        # What can't be loaded, or would be loaded as another model, is not written.
        description = decode_description(text, None)
        path = description.cell
        kind = import_class(path, [path.partition(":")[0]]) if ":" in path else None
        module = model.module if isinstance(model, AdaptedModel) else model
        has_sizes = callable(getattr(model, "sizes", None))
        source = "sizes=" if sizes is not None else "sizes()" if has_sizes else ""
        arguments = Arguments(description.sizes, source)

        def explain(error: ModelError, loaded: nn.Module) -> ModelError:
            return explain_weights(error, module, loaded, arguments)

        weights = read_weights(content)
        net = build_net(description, weights, kind, torch.device("cpu"), None, explain)
        is_generating = rules.is_generating
        check_same_net(model, net, description.inputs, arguments, is_generating=is_generating)
    write_files(Path(directory), {WEIGHTS_FILE: content, DESCRIPTION_FILE: text})


def save_program(
    program: bytes,
    directory: str | Path,
    state: Sequence[StateTensor],
    inputs: Sequence[Field],
    outputs: Sequence[OutputField],
    codec: CodecName = "json",
    rules: SequenceRules = DEFAULT_RULES,
    time_axis: Literal[0, 1] | None = None,
) -> None:
    """Write a TorchScript or exported program to a directory, as `save_model` does a model.

    The program is read and tried, which runs it.

    Args:
        program: Content of its file.
        directory: Where to write.
        state: Its state tensors, in the order of its arguments; see
            `program_states.choose_states`.
        inputs: What the H_in columns mean.
        outputs: What the H_out columns mean.
        codec: As for `save_model`.
        rules: As for `save_model`.
        time_axis: Where the inputs of the program have an axis of one timestep: 1 for
            (N, 1, H_in), 0 for (1, N, H_in), None for (N, H_in). An exported program says it
            itself.

    Raises:
        ModelError: If it can't be read, keeps state inside, doesn't step as it is described,
            doesn't take any number of keys, or the directory can't be written. Nothing was
            replaced then.
    """
    with kept_random_state():
        read = Program(program)
        kind = read.kind
        contents = {PROGRAM_FILES[kind]: torch.frombuffer(bytearray(program), dtype=torch.uint8)}
        description = describe(kind, inputs, outputs, codec, rules)
        description.sizes = {"state": msgspec.to_builtins(tuple(state))}
        if time_axis is None:
            time_axis = find_time_axis(read, state)
        if time_axis is not None:
            description.sizes["time_axis"] = time_axis
        text = _describe(description, contents)
        build_net(decode_description(text, None), contents, None, torch.device("cpu"), None)
    write_files(Path(directory), {PROGRAM_FILES[kind]: program, DESCRIPTION_FILE: text})


def load_model(
    directory: str | Path, device: str = "cpu", allowed_packages: Collection[str] = ()
) -> LoadedModel:
    """Read a model from a directory and check that its two files fit each other.

    Args:
        directory: What `save_model` wrote.
        device: "cpu", "cuda", or "auto" for CUDA if there is one.
        allowed_packages: Packages whose classes may be imported, which runs their code; and
            "torchscript" or "exported" if a program may be opened, which runs it.

    Returns:
        loaded: The model with what its numbers mean.

    Raises:
        ModelError: If a file is missing, truncated or of another format version; if the class, a
            size, a field, a rule, a tensor's name, shape, dtype or value is not as it has to be; if
            the class is in a package, or the program of a kind, that is not allowed; if the class
            can't be imported or contradicts the description; if the fingerprint is another; or if
            there is no such device.
    """
    if isinstance(allowed_packages, str):
        problem = "names in a list, not one text"
        raise ModelError(problem, field="allowed_packages", found=repr(allowed_packages))
    description = read_description(directory)
    folder = Path(directory)
    description_file = folder / DESCRIPTION_FILE
    with kept_random_state():
        user_class = None
        if ":" in description.cell:
            user_class = import_class(description.cell, allowed_packages, description_file)
        if description.cell in PROGRAM_FILES:
            check_program_allowed(description.cell, allowed_packages, description_file)
        chosen = choose_device(device)
        contents = _read_contents(folder / contents_file(description))
        net = build_net(description, contents, user_class, chosen, folder)
    return LoadedModel(
        net=net,
        inputs=description.inputs,
        outputs=description.outputs,
        codec=description.codec,
        fingerprint=description.fingerprint,
        name=folder.resolve().name,
        rules=description.rules,
    )


def _described_and_stored(
    model: nn.Module,
    inputs: Sequence[Field] | None,
    outputs: Sequence[OutputField] | None,
    codec: CodecName,
    rules: SequenceRules,
    sizes: Mapping[str, Any] | None,
) -> tuple[bytes, bytes]:
    """Give the content of both files of a class."""
    is_own = type(model) in CELLS.values()
    module = model.module if isinstance(model, AdaptedModel) else model
    given = sizes
    if sizes is None or is_own:
        sizes = _sizes(model)
    for one in (sizes, {} if given is None else given):
        if not isinstance(one, Mapping):
            problem = "the arguments of the class, by name"
            raise ModelError(problem, field="sizes", expected="a dict", found=kind_of(one))
    if given is not None and is_own and any(sizes.get(n) != value for n, value in given.items()):
        problem = f"not those of this {type(model).__name__}, which needs no sizes="
        raise ModelError(problem, field="sizes", expected=dict(sizes), found=dict(given))
    weights = weights_of(module)
    is_float32 = all(tensor.dtype == torch.float32 for tensor in weights.values())
    if inputs is None:
        inputs = [default_field("x", model, "input_size")]
    if outputs is None:
        outputs = [default_field("y", model, "output_size")]
    description = describe(
        type(model).__name__ if is_own else class_path(module), inputs, outputs, codec, rules
    )
    description.sizes = dict(sizes)
    description.dtype = "float32" if is_float32 or is_own else "mixed"
    return _describe(description, weights), write_weights(weights)


def _describe(description: ModelFile, contents: Mapping[str, Tensor]) -> bytes:
    """Write `model.json`, with the fingerprint: of what will be read, where 1 may become 1.0."""
    try:
        read = decode_description(msgspec.json.encode(description), None)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"not JSON: {error}", field="sizes") from error
    read.fingerprint = fingerprint_of(read, contents)
    return msgspec.json.format(msgspec.json.encode(read), indent=2) + b"\n"


def _sizes(model: nn.Module) -> Any:
    """Ask a model for the arguments that make an equal one; none if it has no method `sizes`."""
    with AsModelError("sizes"):
        made_with = getattr(model, "sizes", None)
        return made_with() if callable(made_with) else {}


def _read_contents(file: Path) -> dict[str, Tensor]:
    """Read weights; of a program, its bytes under its name."""
    content = read_file(file)
    if file.name != WEIGHTS_FILE:
        return {file.name: torch.frombuffer(bytearray(content), dtype=torch.uint8)}
    try:
        return read_weights(content)
    except ModelError as error:
        raise error.in_file(file) from error.__cause__
