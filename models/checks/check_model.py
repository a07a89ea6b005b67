"""`check_model`: all checks of a model in one call, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from livestep.models.checks.check_list import CHECKS, make_check_data
from livestep.models.contract import StepModel
from livestep.models.fields.field_types import Field
from livestep.models.loaded_model import LoadedModel


@torch.inference_mode()
def check_model(
    model: StepModel | LoadedModel, seed: int = 0, inputs: Sequence[Field] | None = None
) -> None:
    """Check on random events that a model keeps the contract of `StepModel`.

    Call it in a test of your own model, before you give the model to a worker.

    Args:
        model: Any model; one from `load_model` brings its own input fields.
        seed: Seed of the random events.
        inputs: The model's input fields, so that indices are valid; None for plain numbers.

    Raises:
        AssertionError: If a rule is broken: states which, and by how much. Of several broken rules,
            the first in `CHECKS`, which causes the others.
        ModelError: If a user's class raises or returns something invalid.

    Example:
        >>> from livestep import GRU
        >>> check_model(GRU(input_size=3, hidden_size=8, output_size=2))
    """
    net = model.net if isinstance(model, LoadedModel) else model
    fields = model.inputs if isinstance(model, LoadedModel) else inputs
    data = make_check_data(net, seed, fields)
    for check in CHECKS:
        check.run(data)
