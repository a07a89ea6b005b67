"""The classes of this package that `model.json` can name, and their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from livestep.models.contract import SizedModel, StepModel
from livestep.models.disk.model_json import SIZE_MAX, ModelFile, one_of
from livestep.models.model_errors import ModelError
from livestep.models.nets.cells import GRU, LSTM, VanillaRNN
from livestep.models.nets.encoder_decoder import EncoderDecoder
from livestep.models.nets.stateless import FullyConnected, Glimpses

#: The classes that a directory can name.
CELLS: Final[Mapping[str, type[SizedModel]]] = {
    cell.__name__: cell
    for cell in (VanillaRNN, GRU, LSTM, FullyConnected, Glimpses, EncoderDecoder)
}

#: More layers of a class of this package than these, or more sizes in a list, are a mistake in
#: `model.json`; so is a size above `SIZE_MAX`.
LAYERS_MAX = 1_000


def empty_cell(description: ModelFile, file: Path | None) -> StepModel:
    """Build the class of this package that a description names, without memory for its weights.

    Args:
        description: Of the model.
        file: `model.json`, for errors; None while saving.

    Raises:
        ModelError: If the class is unknown, or its sizes are not the ones that it needs.
    """
    cell_class = CELLS.get(description.cell)
    if cell_class is None:
        raise ModelError(
            "unknown class",
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
            "invalid size", file=file, field=f"sizes.{name}", expected=expected, found=repr(value)
        )
