"""A saved model loads unchanged; anything else in a directory is a ModelError."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from livestep import (
    GRU,
    Category,
    FedBack,
    Feedback,
    ModelError,
    Number,
    SequenceRules,
    Text,
    load_model,
    save_model,
)
from livestep.models.foreign.program_reading import Program
from tests.support.program_files import script
from tests.support.user_models import NoStep, Sum

INPUTS = [Number("wind"), Category("yesterday", ("1", "2"), optional=True)]
OUTPUTS = [Category("dish", ("1", "2"))]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(GRU(3, 4, 2), tmp_path / "cook", INPUTS, OUTPUTS)
    return tmp_path / "cook"


def test_a_compiled_model_is_saved_as_the_original_model(tmp_path: Path) -> None:
    for name, model in (("own", GRU(1, 4, 1)), ("user's", Sum())):
        fields = ([Number("x")], [Number("y")])
        save_model(model, tmp_path / name, *fields)
        save_model(torch.compile(model), tmp_path / "compiled", *fields)
        one, other = (
            load_model(tmp_path / folder, allowed_packages=["tests"])
            for folder in (name, "compiled")
        )
        assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            nn.GRU(3, 2),
            "class: GRU has no method initial_state and no method step: torch's GRU can't be "
            r"stepped as it is: use livestep.GRU\(input_size, hidden_size, output_size\)",
        ),
        (
            nn.LSTMCell(3, 2),
            r"torch's LSTMCell can't be stepped as it is: use livestep.LSTM\(",
        ),
        (nn.Sequential(nn.Linear(3, 2)), "Sequential has no method .*write a class with initial"),
        (NoStep(), r"class: NoStep has no method step: a class needs initial_state\(batch_size\)"),
        (nn.DataParallel(Sum()), r"DataParallel has no .*save_model\(model.module\), a Sum"),
        (torch.fx.symbolic_trace(nn.Linear(3, 2)), "model: a program without its class"),
        (
            Sum().state_dict(),
            "model: weights alone are not a model: .*load_state_dict.*found a OrderedD",
        ),
        (Sum, r"model: a class, not a model: create one, Sum\(...\)"),
        (Sum().step, "model: a function has no state .*write a class with initial_state"),
        ("model.pt", r"model: not a model .*expected a torch.nn.Module, found a str"),
        (None, "model: not a model .*found a NoneType"),
        (
            FedBack(
                GRU(2, 4, 1), [Number("x"), Number("was")], [Number("y")], [Feedback("y", "was")]
            ),
            r"model: a FedBack can't be saved.*save_model\(model.net, ..., rules=",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_error_for_a_wrong_argument_states_what_to_save_instead(
    model: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        save_model(model, tmp_path / "new", [Number("x", 3)], [Number("y", 2)])
    assert not (tmp_path / "new").exists()


def test_the_error_for_a_program_names_the_command_that_imports_it(tmp_path: Path) -> None:
    exported = torch.export.export(nn.Linear(3, 2), (torch.zeros(2, 3),))
    scripted = Program(script(nn.Linear(3, 2))).module
    for program, kind in ((exported, "ExportedProgram"), (scripted, "RecursiveScriptModule")):
        message = f"model: a program without its class.*`livestep model import .*found a {kind}"
        with pytest.raises(ModelError, match=message):
            save_model(program, tmp_path / "new")


def test_an_integer_in_place_of_a_float_is_the_same_model(tmp_path: Path) -> None:
    gru, names = GRU(3, 4, 2), set()
    for temperature in (1, 1.0):
        rules = SequenceRules(feedback=(Feedback("dish", "yesterday", temperature),))
        save_model(gru, tmp_path, INPUTS, OUTPUTS, rules=rules)
        names.add(load_model(tmp_path).fingerprint)
    assert len(names) == 1


def test_an_invalid_field_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="inputs: .* each a Number or Category or Text, found a str"
    ):
        save_model(GRU(1, 4, 1), tmp_path / "new", ["x"])  # type: ignore[list-item]
    assert not (tmp_path / "new").exists()


def test_allowed_packages_must_be_a_list_of_names(saved: Path) -> None:
    with pytest.raises(ModelError, match="allowed_packages: a list of names, .*found 'my_model'"):
        load_model(saved, allowed_packages="my_model")


def test_lists_nested_too_deeply_are_refused(saved: Path) -> None:
    members = (saved / "model.json").read_text()
    deep = '"deep": ' + "[" * 50_000 + "]" * 50_000
    (saved / "model.json").write_text(members.replace('"sizes": {', f'"sizes": {{{deep}, ', 1))
    with pytest.raises(ModelError, match="model.json: lists or objects are nested too deeply"):
        load_model(saved)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(name: str, saved: Path) -> None:
    (saved / name).unlink()
    os.mkfifo(saved / name)
    with pytest.raises(ModelError, match=f"{name}: can't be read: not a regular file"):
        load_model(saved)


def test_the_described_dtype_must_be_that_of_the_weights(tmp_path: Path) -> None:
    save_model(Sum().double(), tmp_path, [Number("x")], [Number("y")])
    file = tmp_path / "model.json"
    members = json.loads(file.read_text())
    assert members["dtype"] == "mixed"
    file.write_text(json.dumps(members | {"dtype": "float32"}))
    message = "dtype: the tensor weight has another dtype .*torch.float32, found torch.float64"
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path, allowed_packages=["tests"])


def test_only_json_models_can_have_an_index_as_input(tmp_path: Path) -> None:
    gru = GRU(3, 4, 2)
    index = Category("dish", ("1", "2"), encoding="index")
    text = Text("word", "ab", 2)
    save_model(gru, tmp_path / "good", [index, text], OUTPUTS)
    assert load_model(tmp_path / "good").inputs == (index, text)
    for inputs in ([index, Number("x", 2)], [Number("x"), text]):
        with pytest.raises(ModelError, match="codec: input .* is an index.*use json"):
            save_model(gru, tmp_path / "new", inputs, OUTPUTS, codec="float32")
    outputs = [index, Number("y")]
    with pytest.raises(ModelError, match="outputs: output 'dish' needs a logit for each value"):
        save_model(gru, tmp_path / "new", outputs=outputs)
    with pytest.raises(ModelError, match="outputs: .* each a Number or Category, found a Text"):
        save_model(gru, tmp_path / "new", outputs=[text])  # type: ignore[list-item]
    fed = Category("dish", ("1", "2"), optional=True, encoding="index")
    rules = SequenceRules(feedback=(Feedback("dish", "dish"),))
    with pytest.raises(ModelError, match="feedback.input: input 'dish' is an index, but .*one-hot"):
        save_model(gru, tmp_path / "new", [fed, Number("x", 2)], OUTPUTS, rules=rules)
    assert not (tmp_path / "new").exists()
