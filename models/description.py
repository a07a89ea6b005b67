"""What `model.json` says: which cell, how large, and what its columns mean.

Everything here looks at values only; files are `disk.py`'s. Each check says in a ModelError what
was expected and what was found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import torch
from torch import Tensor

from models.cells import GRU, LSTM, FusedCell, VanillaRNN
from models.errors import ModelError
from models.fields import Category, Number, total_width

#: The classes that a directory can name.
CELLS: Final[Mapping[str, type[FusedCell]]] = {
    cell.__name__: cell for cell in (VanillaRNN, GRU, LSTM)
}

#: The layout of `model.json` that this code writes and reads; a change of meaning counts it up.
FORMAT_VERSION = 1

#: Hexadecimal characters of the SHA-256 that are kept: 64 bits, short enough for each record.
FINGERPRINT_LENGTH = 16

Codec = Literal["json", "float32"]
Shape = Literal["synchronized"]

#: A size above these is a mistake in `model.json`, not a model.
Size = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
LayerCount = Annotated[int, msgspec.Meta(ge=1, le=1_000)]


class Sizes(msgspec.Struct, forbid_unknown_fields=True):
    """The arguments of a cell's class; `num_layers` is not one of `VanillaRNN`'s."""

    input_size: Size
    hidden_size: Size
    output_size: Size
    num_layers: LayerCount | msgspec.UnsetType = msgspec.UNSET

    def by_name(self) -> dict[str, int]:
        """Return the sizes that are set."""
        sizes: dict[str, int] = msgspec.to_builtins(self)
        return sizes


class ModelFile(msgspec.Struct, forbid_unknown_fields=True, rename={"cell": "class"}):
    """The members of `model.json`, all of them required.

    Attributes:
        format_version: `FORMAT_VERSION`.
        cell: Written as `class`: a key of `CELLS`.
        sizes: The arguments of that class.
        dtype: Of every tensor in the weights.
        shape: Shape of sequence: one output for each event of each key.
        inputs: What the H_in columns mean, side by side.
        outputs: What the H_out columns mean, side by side.
        codec: What a record's value is: "json", or "float32" for raw little-endian values.
        fingerprint: Of weights and meaning, see `fingerprint_of`.
    """

    format_version: int
    cell: str
    sizes: Sizes
    dtype: Literal["float32"]
    shape: Shape
    inputs: tuple[Number | Category, ...]
    outputs: tuple[Number | Category, ...]
    codec: Codec
    fingerprint: str


class _Version(msgspec.Struct):
    """The one member that can be read whatever the layout."""

    format_version: int


def fingerprint_of(description: ModelFile, weights: Mapping[str, Tensor]) -> str:
    """Hash the weights and what gives them meaning; not the codec, not any name of a file.

    Each tensor's bytes follow a line with its name, dtype and shape, which says how many they are.
    """
    meaning = {
        "class": description.cell,
        "sizes": description.sizes,
        "shape": description.shape,
        "inputs": description.inputs,
        "outputs": description.outputs,
    }
    digest = hashlib.sha256(msgspec.json.encode(meaning, order="sorted") + b"\n")
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(msgspec.json.encode([name, str(tensor.dtype), list(tensor.shape)]) + b"\n")
        digest.update(tensor.numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()[:FINGERPRINT_LENGTH]


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
    except msgspec.ValidationError as error:  # says what was expected, what was found, and where
        raise ModelError(str(error), file=file) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"not JSON: {error}", file=file) from error


def empty_cell(description: ModelFile, file: Path) -> FusedCell:
    """Build the cell that a description names, without memory for its weights."""
    cell_class = CELLS.get(description.cell)
    if cell_class is None:
        raise ModelError(
            "no such class",
            file=file,
            field="class",
            expected=one_of(CELLS),
            found=repr(description.cell),
        )
    sizes = description.sizes.by_name()
    if set(sizes) != set(cell_class.SIZES):
        raise ModelError(
            f"not the sizes of a {description.cell}",
            file=file,
            field="sizes",
            expected=", ".join(cell_class.SIZES),
            found=", ".join(sizes),
        )
    with torch.device("meta"):
        return cell_class(**sizes)


def check_description(description: ModelFile, cell: FusedCell, file: Path | None) -> None:
    """Raise ModelError unless the fields are distinct and fit the cell's sizes."""
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


def check_weights(weights: Mapping[str, Tensor], cell: FusedCell, file: Path | None) -> None:
    """Raise ModelError unless the weights are those of the cell: names, dtypes, shapes, values."""
    wanted = cell.state_dict()
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
        if tensor.dtype != torch.float32:
            raise ModelError(
                "wrong dtype", file=file, field=name, expected=torch.float32, found=tensor.dtype
            )
        if not bool(torch.isfinite(tensor).all()):
            problem = "a weight is not finite"
            raise ModelError(problem, file=file, field=name, found="NaN or infinity")


def one_of(names: Iterable[str]) -> str:
    """Join names to a phrase for an error."""
    return " or ".join(names)
