"""`load_model`: a directory with `model.json` and weights or a program, read and checked.

A class is looked up in `own_classes.CELLS`, or imported from a package that the operator has
allowed; safetensors holds numbers only. A program is code: it is opened only if the operator has
allowed its kind.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

from livestep.models.devices import choose_device
from livestep.models.disk.model_files import DESCRIPTION_FILE, WEIGHTS_FILE, read_file
from livestep.models.disk.model_json import read_description
from livestep.models.disk.net_builder import build_net, contents_file
from livestep.models.disk.safetensors_file import read_weights
from livestep.models.foreign.class_imports import import_class
from livestep.models.foreign.program_model import PROGRAM_FILES, check_program_allowed
from livestep.models.loaded_model import LoadedModel
from livestep.models.model_errors import ModelError
from livestep.models.seeding import kept_random_state


def load_model(
    directory: str | Path, device: str = "cpu", allowed_packages: Collection[str] = ()
) -> LoadedModel:
    """Read a model from a directory and check that its two files fit each other.

    Args:
        directory: What `save_model` wrote.
        device: "cpu", "cuda", or "auto" for CUDA if it is available.
        allowed_packages: Packages whose classes may be imported, which runs their code; and
            "torchscript" or "exported" if a program may be opened, which runs it.

    Returns:
        loaded: The model with the meaning of its numbers.

    Raises:
        ModelError: If a file is missing, truncated, or of another format version; if the class, a
            size, a field, a rule, or a tensor's name, shape, dtype or value is invalid; if the
            class is in a package, or the program of a kind, that is not allowed; if the class
            can't be imported or contradicts the description; if the fingerprint differs; or if the
            device is unknown or missing.
    """
    if isinstance(allowed_packages, str):
        problem = "a list of names, not a single string"
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


def _read_contents(file: Path) -> dict[str, Tensor]:
    """Read weights; of a program, its bytes under the file's name."""
    content = read_file(file)
    if file.name != WEIGHTS_FILE:
        return {file.name: torch.frombuffer(bytearray(content), dtype=torch.uint8)}
    try:
        return read_weights(content)
    except ModelError as error:
        raise error.in_file(file) from error.__cause__
