"""`save_model` and `save_program`: a model as a directory of `model.json` and weights or a program.

`model_json.ModelFile` lists what `model.json` describes. The fingerprint, by which everything else
refers to a model, is also written there: so weights and description that don't belong together (an
interrupted save, a mixed-up copy) are detected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args

import msgspec
import torch
from torch import Tensor, nn

from livestep.models.disk.fingerprint import fingerprint_of
from livestep.models.disk.model_files import DESCRIPTION_FILE, WEIGHTS_FILE, write_files
from livestep.models.disk.model_json import (
    ModelFile,
    decode_description,
    encode_description,
    one_of,
)
from livestep.models.disk.net_builder import build_net
from livestep.models.disk.net_differences import Arguments, explain_weights
from livestep.models.disk.own_classes import CELLS
from livestep.models.disk.round_trip import check_round_trip
from livestep.models.disk.safetensors_file import read_weights, weights_of, write_weights
from livestep.models.disk.savable import savable_module
from livestep.models.fields.field_types import CodecName, Field, Number, OutputField
from livestep.models.foreign.class_imports import class_path, import_class
from livestep.models.foreign.foreign_errors import AsModelError, kind_of
from livestep.models.foreign.program_model import PROGRAM_FILES
from livestep.models.foreign.program_reading import Program
from livestep.models.foreign.program_states import StateTensor, find_time_axis
from livestep.models.foreign.user_classes import AdaptedModel
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
    """Write a model to a directory.

    An older model there is replaced. Both files are written in full before the first one is
    renamed; a program that loads between the two renames gets a ModelError, never a mixture.

    Before anything is written, the model is rebuilt as a worker would do it, and both are
    stepped with the same random events of the inputs: outputs and states must be equal bit for
    bit. So an attribute, hook or argument that would be lost is an error here. Neither the model
    nor any random number generator is changed.

    Args:
        model: A model of this package, float32; or any module with `initial_state` and `step` whose
            class can be imported, see `user_classes`. On any device; compiled by torch or not.
        directory: Where to write; created if it is missing.
        inputs: What the H_in columns mean; by default `Number("x", input_size)`.
        outputs: What the H_out columns mean; by default `Number("y", output_size)`.
        codec: Format of a record's value: "json", or "float32" for raw values.
        rules: How events form sequences, and what is answered; by default, each event is.
        sizes: The arguments with which the class makes an equal module, as JSON types; by default
            what the module's method `sizes` returns, or none. For a user's class only.

    Raises:
        ModelError: If the class can't be imported or contradicts itself; a weight is lazy, not
            finite, or of a dtype that can't be saved; the fields don't fit the sizes, or the rules
            the fields; if the model that would be loaded doesn't step like this one; if a step of
            this one writes to its weights or buffers, draws random numbers, or keeps something
            outside the state; or if the directory can't be written. Then nothing was replaced.

    Example:
        >>> import tempfile
        >>> from livestep import GRU, Number, load_model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(GRU(2, 4, 1), folder, inputs=[Number("wind"), Number("rain")])
        ...     loaded = load_model(folder)
        >>> loaded.inputs[0].name, loaded.outputs[0].name, len(loaded.fingerprint)
        ('wind', 'y', 16)
    """
    model = savable_module(model)
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
        check_round_trip(model, net, description.inputs, arguments, is_generating=is_generating)
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
        directory: Where to write; created if it is missing.
        state: Its state tensors, in the order of its arguments; see
            `program_states.choose_states`.
        inputs: What the H_in columns mean.
        outputs: What the H_out columns mean.
        codec: As for `save_model`.
        rules: As for `save_model`.
        time_axis: Where the inputs of the program have an axis of one timestep: 1 for
            (N, 1, H_in), 0 for (1, N, H_in), None for (N, H_in). Detected for an exported program.

    Raises:
        ModelError: If the program can't be read, keeps state inside, doesn't step as described, or
            doesn't accept any number of keys; or if the directory can't be written. Then nothing
            was replaced.
    """
    with kept_random_state():
        read = Program(program)
        kind = read.kind
        contents = {PROGRAM_FILES[kind]: torch.frombuffer(bytearray(program), dtype=torch.uint8)}
        sizes: dict[str, Any] = {"state": msgspec.to_builtins(tuple(state))}
        if time_axis is None:
            time_axis = find_time_axis(read, state)
        if time_axis is not None:
            sizes["time_axis"] = time_axis
        description = _describe(kind, sizes, inputs, outputs, codec, rules)
        text = _with_fingerprint(description, contents)
        build_net(decode_description(text, None), contents, None, torch.device("cpu"), None)
    write_files(Path(directory), {PROGRAM_FILES[kind]: program, DESCRIPTION_FILE: text})


def _described_and_stored(
    model: nn.Module,
    inputs: Sequence[Field] | None,
    outputs: Sequence[OutputField] | None,
    codec: CodecName,
    rules: SequenceRules,
    sizes: Mapping[str, Any] | None,
) -> tuple[bytes, bytes]:
    """Return the content of both files of a class."""
    is_own = type(model) in CELLS.values()
    module = model.module if isinstance(model, AdaptedModel) else model
    given = sizes
    if sizes is None or is_own:
        sizes = _sizes(model)
    for one in (sizes, {} if given is None else given):
        if not isinstance(one, Mapping):
            problem = "not the arguments of the class by name"
            raise ModelError(problem, field="sizes", expected="a dict", found=kind_of(one))
    if given is not None and is_own and any(sizes.get(n) != value for n, value in given.items()):
        problem = f"not those of this {type(model).__name__}, which needs no sizes="
        raise ModelError(problem, field="sizes", expected=dict(sizes), found=dict(given))
    weights = weights_of(module)
    is_float32 = all(tensor.dtype == torch.float32 for tensor in weights.values())
    if inputs is None:
        inputs = [_default_field("x", model, "input_size")]
    if outputs is None:
        outputs = [_default_field("y", model, "output_size")]
    name = type(model).__name__ if is_own else class_path(module)
    description = _describe(name, dict(sizes), inputs, outputs, codec, rules)
    description.dtype = "float32" if is_float32 or is_own else "mixed"
    return _with_fingerprint(description, weights), write_weights(weights)


def _describe(
    name: str,
    sizes: dict[str, Any],
    inputs: Sequence[Field],
    outputs: Sequence[OutputField],
    codec: CodecName,
    rules: SequenceRules,
) -> ModelFile:
    """Describe a model of float32, without its fingerprint."""
    _check_kinds("inputs", inputs, Field)
    _check_kinds("outputs", outputs, OutputField)
    return ModelFile(
        cell=name,
        sizes=sizes,
        dtype="float32",
        rules=rules,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        codec=codec,
    )


def _with_fingerprint(description: ModelFile, contents: Mapping[str, Tensor]) -> bytes:
    """Encode `model.json` with the fingerprint of what will be read, where 1 may become 1.0."""
    try:
        read = decode_description(encode_description(description), None)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"not JSON: {error}", field="sizes") from error
    read.fingerprint = fingerprint_of(read, contents)
    return encode_description(read)


def _sizes(model: nn.Module) -> Any:
    """Ask a model for the arguments that make an equal one; none if it has no method `sizes`."""
    with AsModelError("sizes"):
        made_with = getattr(model, "sizes", None)
        return made_with() if callable(made_with) else {}


def _default_field(name: str, model: nn.Module, size_name: str) -> Number:
    """Make one field of all columns of a model; ModelError if the model doesn't state their number.

    Args:
        name: Of the field.
        model: The model.
        size_name: The attribute that states the number of columns.
    """
    size = getattr(model, size_name, None)
    if not isinstance(size, int):
        member = size_name.replace("_size", "s")
        problem = f"{type(model).__name__} has no {size_name}: describe its columns"
        raise ModelError(problem, field=member, expected=f"{member}=[Number(...), ...]")
    return Number(name, size)


def _check_kinds(member: str, fields: Any, kinds: UnionType) -> None:
    """Raise ModelError unless fields are a list of fields of these kinds."""
    wrong = fields
    if isinstance(fields, Sequence) and not isinstance(fields, str):
        wrong = next((field for field in fields if not isinstance(field, kinds)), None)
        if wrong is None:
            return
    names = one_of(kind.__name__ for kind in get_args(kinds))
    raise ModelError(
        "describe the columns by a list of fields",
        field=member,
        expected=f"{member}=[...], each a {names}",
        found=kind_of(wrong),
    )
