"""A model on disk: a directory with `model.safetensors` and `model.json`.

`model.json` says what the weights mean; `description.ModelFile` lists its members. Loading runs no
code from the files: the class is looked up in `CELLS`, and safetensors holds numbers only.

The fingerprint names a model everywhere else. It stands in `model.json` as well, so that weights
and description which don't belong together (an interrupted save, a mixed-up copy) are found.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from models.cells import FusedCell
from models.contract import StepModel
from models.description import (
    CELLS,
    FORMAT_VERSION,
    Codec,
    ModelFile,
    Shape,
    Sizes,
    check_description,
    check_weights,
    decode_description,
    empty_cell,
    fingerprint_of,
    one_of,
)
from models.devices import choose_device
from models.errors import ModelError
from models.fields import Field, Number, decode, encode

WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model and what its numbers mean.

    Attributes:
        net: The model, in eval mode, without gradients, on its device.
        inputs: What the H_in columns mean, side by side.
        outputs: What the H_out columns mean, side by side.
        codec: What a record's value is: "json" or "float32".
        shape: Shape of sequence: "synchronized", one output for each event of each key.
        fingerprint: 16 hexadecimal characters that name weights and meaning.
        name: The directory's name, for people only.
    """

    net: StepModel
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    codec: Codec
    shape: Shape
    fingerprint: str
    name: str

    def unroll_events(self, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Predict one key's events offline: the truth that a stream is compared with.

        Args:
            events: All events of one key, from its first, as decoded from JSON.

        Returns:
            predictions: One for each event, as `fields.decode` gives them.

        Raises:
            FieldError: If an event doesn't fit the inputs.
        """
        return decode(self.outputs, self.unroll_rows(encode(self.inputs, events)))

    @torch.inference_mode()
    def unroll_rows(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Predict one key's events offline, from and to arrays.

        Args:
            rows: (L, H_in) float32. All events of one key, from its first.

        Returns:
            outputs: (L, H_out) float32 ndarray; logits for a category, not yet activated.
        """
        if len(rows) == 0:
            return np.zeros((0, self.net.output_size), np.float32)
        device = next(self.net.parameters()).device
        copied = np.array(rows, np.float32)  # rows of a record may be read-only, torch can't
        sequence = torch.from_numpy(copied).to(device).unsqueeze(1)  # (L, 1, H_in)
        outputs: npt.NDArray[np.float32] = self.net.unroll(sequence).squeeze(1).cpu().numpy()
        return outputs


def save_model(
    model: StepModel,
    directory: str | Path,
    inputs: Sequence[Field] | None = None,
    outputs: Sequence[Field] | None = None,
    codec: Codec = "json",
) -> None:
    """Write a model to a directory, which is made if it is not there.

    A model that stands there already is replaced. Both files are written in full beside the old
    ones before either takes its place; whoever loads between the two renames gets a ModelError,
    never a mixture.

    Args:
        model: One of the cells in this package, float32, on any device.
        directory: Where to write.
        inputs: What the H_in columns mean; by default `Number("x", input_size)`.
        outputs: What the H_out columns mean; by default `Number("y", output_size)`.
        codec: What a record's value will be: "json", or "float32" for raw values.

    Raises:
        ModelError: If the class is none of `CELLS`, a weight is not a finite float32, the fields
            don't fit the sizes, or the directory can't be written. Nothing was replaced then.

    Example:
        >>> import tempfile
        >>> from models import GRU, Number
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(GRU(2, 4, 1), folder, inputs=[Number("wind"), Number("rain")])
        ...     loaded = load_model(folder)
        >>> loaded.inputs[0].name, loaded.outputs[0].name, len(loaded.fingerprint)
        ('wind', 'y', 16)
    """
    folder = Path(directory)
    if type(model) not in CELLS.values():
        raise ModelError(
            "only the cells of this package can be saved",
            field="class",
            expected=one_of(CELLS),
            found=type(model).__name__,
        )
    cell = cast(FusedCell, model)
    weights = _weights(cell)
    check_weights(weights, cell, file=None)
    description = ModelFile(
        format_version=FORMAT_VERSION,
        cell=type(cell).__name__,
        sizes=Sizes(**cell.sizes()),
        dtype="float32",
        shape="synchronized",
        inputs=tuple(inputs if inputs is not None else [Number("x", cell.input_size)]),
        outputs=tuple(outputs if outputs is not None else [Number("y", cell.output_size)]),
        codec=codec,
        fingerprint="",
    )
    check_description(description, cell, file=None)
    description.fingerprint = fingerprint_of(description, weights)
    text = msgspec.json.format(msgspec.json.encode(description), indent=2) + b"\n"
    decode_description(text, file=None)  # what can't be read back is not written
    content = safetensors.torch.save(weights)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace_files({folder / WEIGHTS_FILE: content, folder / DESCRIPTION_FILE: text})
    except OSError as error:
        raise ModelError(f"can't be written: {error.strerror}", file=folder) from error


def load_model(directory: str | Path, device: str = "cpu") -> LoadedModel:
    """Read a model from a directory and check that its two files fit each other.

    Args:
        directory: What `save_model` wrote.
        device: "cpu", "cuda", or "auto" for CUDA if there is one.

    Returns:
        loaded: The model with what its numbers mean.

    Raises:
        ModelError: If a file is missing, truncated or of another format version; if the class, a
            size, a field, a tensor's name, shape, dtype or value is not as it has to be; if the
            fingerprint is another; or if there is no such device.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise ModelError("there is no such directory", file=folder)
    description_file, weights_file = folder / DESCRIPTION_FILE, folder / WEIGHTS_FILE
    description = decode_description(_read(description_file), description_file)
    net = empty_cell(description, description_file)
    check_description(description, net, description_file)
    try:
        weights = safetensors.torch.load(_read(weights_file))
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        problem = f"not a whole safetensors file: {error}"
        raise ModelError(problem, file=weights_file) from error
    check_weights(weights, net, weights_file)
    fingerprint = fingerprint_of(description, weights)
    if fingerprint != description.fingerprint:
        raise ModelError(
            f"the fingerprint is not that of {WEIGHTS_FILE} and these members; the two files don't "
            "belong together, or one was changed: save the model again",
            file=description_file,
            field="fingerprint",
            expected=fingerprint,
            found=description.fingerprint,
        )
    net.load_state_dict(weights, assign=True)
    net.eval().requires_grad_(False)
    return LoadedModel(
        net=net.to(choose_device(device)),
        inputs=description.inputs,
        outputs=description.outputs,
        codec=description.codec,
        shape=description.shape,
        fingerprint=fingerprint,
        name=folder.resolve().name,
    )


def _weights(cell: FusedCell) -> dict[str, Tensor]:
    """Copy a cell's weights to the CPU, each with memory of its own."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in cell.state_dict().items()
    }


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"can't be read: {error.strerror}", file=file) from error


def _replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write all files beside their places, then rename them one after the other."""
    written: list[tuple[Path, Path]] = []
    try:
        for file, content in contents.items():
            beside = file.with_name(f".{file.name}.{os.getpid()}.part")
            written.append((beside, file))
            with beside.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())  # a rename must not reach the disk before the bytes
        for beside, file in written:
            beside.replace(file)
    finally:
        for beside, _ in written:
            beside.unlink(missing_ok=True)
