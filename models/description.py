"""What `model.json` says: which class, how large, and what its columns mean.

Everything here looks at values only; files are `disk.py`'s. Each check says in a ModelError what
was expected and what was found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import torch
from torch import Tensor, nn

from models.cells import GRU, LSTM, VanillaRNN
from models.contract import SizedModel, StepModel
from models.errors import ModelError
from models.field_types import Category, Field, Number, OutputField, is_index, total_width
from models.nets import EncoderDecoder, FullyConnected, Glimpses
from models.rules import Feedback, Generation, SequenceRules, Shape, check_rules

#: The classes that a directory can name.
CELLS: Final[Mapping[str, type[SizedModel]]] = {
    cell.__name__: cell
    for cell in (VanillaRNN, GRU, LSTM, FullyConnected, Glimpses, EncoderDecoder)
}

#: The layout of `model.json` that this code writes and reads; a change of meaning counts it up.
FORMAT_VERSION = 1

#: Hexadecimal characters of the SHA-256 that are kept: 64 bits, short enough for each record.
FINGERPRINT_LENGTH = 16

Codec = Literal["json", "float32"]

#: A size of a class of this package above these, or more columns than these, is a mistake in
#: `model.json`, not a model.
SIZE_MAX = 1_000_000
LAYERS_MAX = 1_000

#: What a tensor in the weights of a user's class may be.
DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)


class ModelFile(
    msgspec.Struct,
    forbid_unknown_fields=True,
    kw_only=True,
    omit_defaults=True,
    rename={"cell": "class"},
):
    """The members of `model.json`: required, but for those of the rules that have a default.

    Attributes:
        format_version: `FORMAT_VERSION`.
        cell: Written as `class`: a key of `CELLS`, `package.module:Class` for a class of a user's,
            or a kind of program, see `programs`.
        sizes: The arguments of that class; the state tensors of a program.
        dtype: Of every tensor in the weights; "mixed" if it isn't float32.
        shape: Shape of sequence, see `rules.SequenceRules`.
        feedback: As in `rules.SequenceRules`, like the two that follow.
        generation: Of the shapes that generate.
        session_gap_ms: Event time after which a key begins anew.
        inputs: What the H_in columns mean, side by side.
        outputs: What the H_out columns mean, side by side.
        codec: What a record's value is: "json", or "float32" for raw little-endian values.
        fingerprint: Of weights and meaning, see `fingerprint_of`.
    """

    format_version: int
    cell: str
    sizes: dict[str, Any]
    dtype: Literal["float32", "mixed"]
    shape: Shape
    feedback: tuple[Feedback, ...] = ()
    generation: Generation | None = None
    session_gap_ms: Annotated[int, msgspec.Meta(ge=1)] | None = None
    inputs: tuple[Field, ...]
    outputs: tuple[OutputField, ...]
    codec: Codec
    fingerprint: str

    @property
    def rules(self) -> SequenceRules:
        """The rules that the members state."""
        return SequenceRules(
            shape=self.shape,
            feedback=self.feedback,
            generation=self.generation,
            session_gap_ms=self.session_gap_ms,
        )


class _Version(msgspec.Struct):
    """The one member that can be read whatever the layout."""

    format_version: int


def fingerprint_of(description: ModelFile, weights: Mapping[str, Tensor]) -> str:
    """Hash the weights and what gives them meaning; not the codec, not any name of a file.

    The code of a class is not looked at: who changes what it computes gives it another name.

    Each tensor's bytes follow a line with its name, dtype and shape, which says how many they are.
    """
    meaning: dict[str, Any] = {
        "class": description.cell,
        "sizes": description.sizes,
        "shape": description.shape,
        "inputs": [_field_meaning(field) for field in description.inputs],
        "outputs": [_field_meaning(field) for field in description.outputs],
    }
    # What a directory of an older version can't say is hashed only where it says something.
    for member in ("feedback", "generation", "session_gap_ms"):
        if value := getattr(description, member):
            meaning[member] = value
    digest = hashlib.sha256(msgspec.json.encode(meaning, order="sorted") + b"\n")
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(msgspec.json.encode([name, str(tensor.dtype), list(tensor.shape)]) + b"\n")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())  # little-endian
    return digest.hexdigest()[:FINGERPRINT_LENGTH]


def _field_meaning(field: Field) -> dict[str, Any]:
    """List a field's members, those that older versions did not know only if they are set."""
    members: dict[str, Any] = msgspec.to_builtins(field)
    if isinstance(field, Number) and not field.optional:
        del members["optional"]
    if isinstance(field, Category) and field.encoding == "one-hot":
        del members["encoding"]
    return members


def decode_description(text: bytes, file: Path | None) -> ModelFile:
    """Decode `model.json` strictly: every member, its type, no other member."""
    try:
        version = msgspec.json.decode(text, type=_Version).format_version
        if version != FORMAT_VERSION:
            raise ModelError(
                "written by another version of this program",
                file=file,
                field="format_version",
                expected=FORMAT_VERSION,
                found=version,
            )
        return msgspec.json.decode(text, type=ModelFile)
    except RecursionError as error:
        raise ModelError("lists or objects that are too deep", file=file) from error
    except msgspec.ValidationError as error:  # says what was expected, what was found, and where
        raise ModelError(str(error), file=file) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"not JSON: {error}", file=file) from error


def empty_cell(description: ModelFile, file: Path | None) -> StepModel:
    """Build the class of this package that a description names, without memory for its weights."""
    cell_class = CELLS.get(description.cell)
    if cell_class is None:
        raise ModelError(
            "no such class",
            file=file,
            field="class",
            expected=f"{one_of(CELLS)} or package.module:Class",
            found=repr(description.cell),
        )
    sizes = description.sizes
    if set(sizes) != set(cell_class.SIZES):
        raise ModelError(
            f"not the sizes of a {description.cell}",
            file=file,
            field="sizes",
            expected=", ".join(cell_class.SIZES),
            found=", ".join(sizes),
        )
    for name, value in sizes.items():
        _check_size(name, value, file)
    try:
        with torch.device("meta"):
            cell = cell_class(**sizes)
    except ValueError as error:
        raise ModelError(str(error), file=file, field="sizes") from error
    return cell


def _check_size(name: str, value: Any, file: Path | None) -> None:
    """Raise ModelError unless a size is an integer within its limits, or a list of such."""
    limit = LAYERS_MAX if name == "num_layers" else SIZE_MAX
    sizes = value if isinstance(value, list) else [value]
    if len(sizes) > LAYERS_MAX or not all(
        type(size) is int and 1 <= size <= limit for size in sizes
    ):
        expected = f"an integer from 1 to {limit}"
        raise ModelError(
            "no size", file=file, field=f"sizes.{name}", expected=expected, found=repr(value)
        )


def check_widths(description: ModelFile, file: Path | None) -> None:
    """Raise ModelError if fields have more columns than any model: before anything is built."""
    for member, fields in (("inputs", description.inputs), ("outputs", description.outputs)):
        if total_width(fields) > SIZE_MAX:
            raise ModelError(
                "too many columns",
                file=file,
                field=member,
                expected=f"{SIZE_MAX} at most",
                found=total_width(fields),
            )


def check_dtype(description: ModelFile, weights: Mapping[str, Tensor], file: Path | None) -> None:
    """Raise ModelError if the weights are float32 only in what the description says."""
    for name, tensor in weights.items():
        if description.dtype == "float32" and tensor.dtype != torch.float32:
            problem = f"the tensor {name} is of another"
            raise ModelError(
                problem, file=file, field="dtype", expected=torch.float32, found=tensor.dtype
            )


def check_description(description: ModelFile, cell: StepModel, file: Path | None) -> None:
    """Raise ModelError unless fields are distinct and fit the cell's sizes, and rules fit them."""
    for member, fields, size_name in (
        ("inputs", description.inputs, "input_size"),
        ("outputs", description.outputs, "output_size"),
    ):
        names = [field.name for field in fields]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            problem = f"two fields have the name {duplicates[0]!r}"
            raise ModelError(problem, file=file, field=member)
        size = getattr(cell, size_name)
        if total_width(fields) != size:
            raise ModelError(
                "the widths of the fields don't add up",
                file=file,
                field=member,
                expected=f"{size} columns ({size_name})",
                found=f"{total_width(fields)} in {len(fields)} field(s)",
            )
    _check_index_fields(description, file)
    try:
        check_rules(description.rules, description.inputs, description.outputs, description.codec)
    except ModelError as error:
        raise error.in_file(file) from None


def _check_index_fields(description: ModelFile, file: Path | None) -> None:
    """Raise ModelError if an index stands where it has no meaning, or can't be checked."""
    for output in description.outputs:
        if is_index(output):
            problem = f"output {output.name!r} needs a logit for each value: one-hot"
            raise ModelError(problem, file=file, field="outputs")
    fed = {link.input for link in description.feedback}
    for field in description.inputs:
        if is_index(field) and field.name in fed:
            problem = f"input {field.name!r} is an index; what is fed back comes one-hot"
            raise ModelError(problem, file=file, field="feedback.input")
        if is_index(field) and description.codec != "json":
            # Raw numbers are not looked at: any number would be taken for an index.
            problem = f"input {field.name!r} is an index, which raw float32 can't check; use json"
            raise ModelError(problem, file=file, field="codec")


def check_weights(
    weights: Mapping[str, Tensor], cell: nn.Module, file: Path | None, *, is_own: bool = True
) -> None:
    """Raise ModelError unless the weights are those of a module: names, dtypes, shapes, values.

    Args:
        weights: What is to be its `state_dict`.
        cell: The module.
        file: Where the weights are from, for errors.
        is_own: Whether it is a class of this package, which is float32 throughout.
    """
    wanted = cell.state_dict()
    parameters = {name for name, _ in cell.named_parameters()}
    for name in sorted(wanted.keys() | weights.keys()):
        if name not in weights:
            raise ModelError("the tensor is missing", file=file, field=name)
        if name not in wanted:
            problem = f"a {type(cell).__name__} of these sizes has no such tensor"
            raise ModelError(problem, file=file, field=name)
        tensor = weights[name]
        expected_shape, found_shape = tuple(wanted[name].shape), tuple(tensor.shape)
        if found_shape != expected_shape:
            raise ModelError(
                "wrong shape", file=file, field=name, expected=expected_shape, found=found_shape
            )
        dtype = torch.float32 if is_own else wanted[name].dtype
        is_other_float = not is_own and dtype.is_floating_point and tensor.is_floating_point()
        if (tensor.dtype != dtype and not is_other_float) or tensor.dtype not in DTYPES:
            raise ModelError(
                "wrong dtype", file=file, field=name, expected=dtype, found=tensor.dtype
            )
        # A buffer may hold infinity on purpose: a mask.
        if name in parameters and not bool(torch.isfinite(tensor).all()):
            problem = "a weight is not finite"
            raise ModelError(problem, file=file, field=name, found="NaN or infinity")


def one_of(names: Iterable[str]) -> str:
    """Join names to a phrase for an error."""
    return " or ".join(names)
