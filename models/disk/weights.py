"""The weights beside `model.json`: the classes that take them, their checks, the fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from torch import Tensor, nn

from livestep.models.contract import SizedModel, StepModel
from livestep.models.disk.description import SIZE_MAX, ModelFile, one_of
from livestep.models.fields.field_types import Category, Field, Number
from livestep.models.model_errors import ModelError
from livestep.models.nets.cells import GRU, LSTM, VanillaRNN
from livestep.models.nets.nets import EncoderDecoder, FullyConnected, Glimpses

#: The classes that a directory can name.
CELLS: Final[Mapping[str, type[SizedModel]]] = {
    cell.__name__: cell
    for cell in (VanillaRNN, GRU, LSTM, FullyConnected, Glimpses, EncoderDecoder)
}

#: Hexadecimal characters of the SHA-256 that are kept: 64 bits, short enough for each record.
FINGERPRINT_LENGTH = 16

#: More layers of a class of this package than these, or sizes in a list, are a mistake in
#: `model.json`; so is a size above `SIZE_MAX`.
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
    torch.complex64,
    torch.complex128,
)


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


def check_dtype(description: ModelFile, weights: Mapping[str, Tensor], file: Path | None) -> None:
    """Raise ModelError if the weights are float32 only in what the description says."""
    for name, tensor in weights.items():
        if description.dtype == "float32" and tensor.dtype != torch.float32:
            problem = f"the tensor {name} is of another"
            raise ModelError(
                problem, file=file, field="dtype", expected=torch.float32, found=tensor.dtype
            )


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
        is_other_size = not is_own and _is_other_size(dtype, tensor.dtype)
        if (tensor.dtype != dtype and not is_other_size) or tensor.dtype not in DTYPES:
            raise ModelError(
                "wrong dtype", file=file, field=name, expected=dtype, found=tensor.dtype
            )
        # A buffer may hold infinity on purpose: a mask.
        if name in parameters and not bool(torch.isfinite(tensor).all()):
            problem = "a weight is not finite"
            raise ModelError(problem, file=file, field=name, found="NaN or infinity")


def _is_other_size(one: torch.dtype, other: torch.dtype) -> bool:
    """Whether both are floats, or both are complex."""
    are_floats = one.is_floating_point and other.is_floating_point
    return are_floats or (one.is_complex and other.is_complex)
