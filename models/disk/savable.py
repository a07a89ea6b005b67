"""Which module `save_model` stores, or what the user can save instead."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from livestep.models.contract import StepModel
from livestep.models.foreign.foreign_errors import kind_of
from livestep.models.foreign.user_classes import AdaptedModel
from livestep.models.model_errors import ModelError
from livestep.models.sequences.feedback import FedBack

#: Modules of torch that run whole sequences, and the classes of this package that replace them.
_STEPPED_IN_PLACE_OF = {
    nn.RNN: "livestep.VanillaRNN",
    nn.GRU: "livestep.GRU",
    nn.LSTM: "livestep.LSTM",
    nn.RNNCell: "livestep.VanillaRNN",
    nn.GRUCell: "livestep.GRU",
    nn.LSTMCell: "livestep.LSTM",
}

_WRITE_A_CLASS = (
    "write a class with initial_state(batch_size) and step(inputs, state) around it; "
    "`livestep model init` writes an example"
)


def savable_module(model: Any) -> nn.Module:
    """Return the module to save; of a compiled module, the original.

    Args:
        model: The argument of `save_model`.

    Returns:
        model: A `StepModel`, or a user's module with `initial_state` and `step`.

    Raises:
        ModelError: If it is anything else; states what is missing, and what can be saved instead.
    """
    if isinstance(model, nn.Module):  # torch.compile keeps the module, whose weights it shares
        model = dict(model.named_children()).get("_orig_mod", model)
    if not isinstance(model, nn.Module):
        raise _refused(model)
    if isinstance(model, torch.jit.ScriptModule | torch.fx.GraphModule):
        raise _refused_program(type(model).__name__)
    if isinstance(model, FedBack):
        raise ModelError(
            "a FedBack can't be saved; save its net, and the feedback in the rules: "
            "save_model(model.net, ..., rules=SequenceRules(feedback=...))",
            field="model",
            found="a FedBack",
        )
    if isinstance(model, StepModel) and not isinstance(model, AdaptedModel):
        return model
    _check_methods(model.module if isinstance(model, AdaptedModel) else model)
    return model


def _check_methods(module: nn.Module) -> None:
    names = ("initial_state", "step")
    missing = [name for name in names if not callable(getattr(module, name, None))]
    if not missing:
        return
    kind = type(module).__name__
    problem = f"{kind} has no method {' and no method '.join(missing)}"
    inner = getattr(module, "module", None)
    if all(callable(getattr(inner, name, None)) for name in names):
        advice = f"the module inside has both: save_model(model.module), a {type(inner).__name__}"
    elif steps := _STEPPED_IN_PLACE_OF.get(type(module)):
        advice = (
            f"torch's {kind} can't be stepped as it is: use {steps}(input_size, hidden_size, "
            f"output_size), whose `recurrent` is torch's, or {_WRITE_A_CLASS}"
        )
    elif type(module).__module__.startswith("torch."):
        advice = _WRITE_A_CLASS
    else:
        advice = "initial_state(batch_size) -> state and step(inputs, state) -> (outputs, state)"
        advice = f"a class needs {advice}; `livestep model init` writes an example"
    raise ModelError(f"{problem}: {advice}", field="class")


def _refused(model: Any) -> ModelError:
    if isinstance(model, torch.export.ExportedProgram):
        return _refused_program("ExportedProgram")
    if isinstance(model, type):
        problem = f"a class, not a model: create one, {model.__name__}(...)"
    elif isinstance(model, dict) and model and all(map(torch.is_tensor, model.values())):
        problem = (
            "weights alone are not a model: create the model, load them with "
            "model.load_state_dict(weights), and save the model"
        )
    elif callable(model):
        problem = f"a function has no state and no weights to save: {_WRITE_A_CLASS}"
    else:
        problem = "not a model"
    return ModelError(problem, field="model", expected="a torch.nn.Module", found=kind_of(model))


def _refused_program(kind: str) -> ModelError:
    return ModelError(
        "a program without its class: write it to a file with torch.export.save or "
        "torch.jit.save, then use `livestep model import FILE DIR`, or livestep.save_program",
        field="model",
        found=f"a {kind}",
    )
