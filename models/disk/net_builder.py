"""From the content of a model directory to a net that steps: our class, a user's, or a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from livestep.models.checks.random_events import random_rows
from livestep.models.contract import StepModel
from livestep.models.devices import device_of
from livestep.models.disk.fingerprint import fingerprint_of
from livestep.models.disk.model_files import DESCRIPTION_FILE, WEIGHTS_FILE
from livestep.models.disk.model_json import ModelFile, check_description, check_widths
from livestep.models.disk.own_classes import CELLS, empty_cell
from livestep.models.disk.safetensors_file import module_weights
from livestep.models.disk.weight_checks import check_dtype, check_weights
from livestep.models.fields.field_types import is_index, total_width
from livestep.models.foreign.class_imports import build_module
from livestep.models.foreign.foreign_errors import AsModelError
from livestep.models.foreign.program_model import (
    PROGRAM_FILES,
    ProgramModel,
    how_to_export,
    program_model,
)
from livestep.models.foreign.step_adapter import StepAdapter
from livestep.models.foreign.trial_step import try_step
from livestep.models.foreign.user_classes import AdaptedModel
from livestep.models.model_errors import ModelError


def contents_file(description: ModelFile) -> str:
    """Name the file next to `model.json`: weights, or a program."""
    return PROGRAM_FILES.get(description.cell, WEIGHTS_FILE)


def build_net(
    description: ModelFile,
    contents: dict[str, Tensor],
    user_class: type[nn.Module] | None,
    device: torch.device,
    folder: Path | None,
    explain: Callable[[ModelError, nn.Module], ModelError] | None = None,
) -> StepModel:
    """Build what a description names, with its weights, in eval mode, on a device.

    Args:
        description: Of the model.
        contents: Weights on the CPU, which the net uses without a copy; of a program, its file's
            bytes under the file's name.
        user_class: The class, if it is a user's.
        device: Where to put the net.
        folder: For errors; None while saving.
        explain: Adds the cause to an error about weights that don't fit the module.

    Raises:
        ModelError: If description, contents and class don't fit each other.
    """
    file = folder and folder / DESCRIPTION_FILE
    weights_file = folder and folder / contents_file(description)
    check_widths(description, file)
    net, module = _without_weights(description, contents, user_class, device, file)
    check_description(description, net, file)
    weights: dict[str, Tensor] = {}
    if module is not None:
        weights = module_weights(contents, module)
        try:
            check_weights(weights, module, weights_file, is_own=net is module)
        except ModelError as error:
            raise explain(error, module) if explain else error from error.__cause__
        check_dtype(description, contents, file)
    _check_fingerprint(description, contents, file)
    if module is not None:
        with AsModelError("load_state_dict"):
            module.load_state_dict(weights, assign=True)
    with AsModelError("eval"):
        net.eval().requires_grad_(False)
    net.to(device)
    _try(net, description, file)
    return net


def _without_weights(
    description: ModelFile,
    contents: Mapping[str, Tensor],
    user_class: type[nn.Module] | None,
    device: torch.device,
    file: Path | None,
) -> tuple[StepModel, nn.Module | None]:
    """Build the net of a description.

    Returns:
        net: A class of this package without memory for its weights; a user's class with the
            weights that its constructor made; or a whole program.
        module: What accepts the weights; None for a program.
    """
    if description.cell in CELLS or (user_class is None and description.cell not in PROGRAM_FILES):
        cell = empty_cell(description, file)
        return cell, cell
    _check_has_fields(description, file)
    try:
        if user_class is None:
            return _program(description, contents, device), None
        module = build_module(user_class, description.sizes)
        adapted = AdaptedModel(
            module,
            total_width(description.inputs),
            total_width(description.outputs),
            description.sizes,
            is_casting=_is_casting(description),
        )
    except ModelError as error:
        raise error.in_file(file) from error
    return adapted, module


def _try(net: StepModel, description: ModelFile, file: Path | None) -> None:
    """Step a user's class or a program once, and raise ModelError if that shows a defect."""
    try:
        if isinstance(net, ProgramModel):
            net.check_width()
        if isinstance(net, StepAdapter):
            is_program = description.cell in PROGRAM_FILES
            # A net without weights makes its states on the CPU.
            try_step(net, device_of(net), how_to_export if is_program else None)
        if isinstance(net, ProgramModel):
            rows = random_rows(net, 2, torch.Generator().manual_seed(0), description.inputs)
            net.check_keeps_nothing(rows)
    except ModelError as error:
        cause = net.explained(error) if isinstance(net, ProgramModel) else error
        raise cause.in_file(file) from error


def _program(
    description: ModelFile, contents: Mapping[str, Tensor], device: torch.device
) -> StepAdapter:
    return program_model(
        contents[PROGRAM_FILES[description.cell]].numpy().tobytes(),
        description.cell,
        description.sizes,
        (total_width(description.inputs), total_width(description.outputs)),
        _is_casting(description),
        device,
    )


def _is_casting(description: ModelFile) -> bool:
    """Whether inputs may be cast to the dtype of the weights, which would round an index."""
    return not any(map(is_index, description.inputs))


def _check_has_fields(description: ModelFile, file: Path | None) -> None:
    for member in ("inputs", "outputs"):
        if not getattr(description, member):
            raise ModelError("no fields", file=file, field=member)


def _check_fingerprint(
    description: ModelFile, contents: Mapping[str, Tensor], file: Path | None
) -> None:
    fingerprint = fingerprint_of(description, contents)
    if fingerprint != description.fingerprint:
        raise ModelError(
            f"the fingerprint is not that of {contents_file(description)} and these members; the "
            "two files don't belong together, or one was changed: save the model again",
            file=file,
            field="fingerprint",
            expected=fingerprint,
            found=description.fingerprint,
        )
