"""What is saved is what is read back; whatever lies in a directory is one error at most."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from models import (
    GRU,
    Category,
    Feedback,
    ModelError,
    Number,
    SequenceRules,
    Text,
    load_model,
    save_model,
)
from tests.user_models import Sum

INPUTS = [Number("wind"), Category("yesterday", ("1", "2"), optional=True)]
OUTPUTS = [Category("dish", ("1", "2"))]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(GRU(3, 4, 2), tmp_path / "cook", INPUTS, OUTPUTS)
    return tmp_path / "cook"


def test_an_integer_where_a_float_is_meant_is_the_same_model(tmp_path: Path) -> None:
    gru, names = GRU(3, 4, 2), set()
    for temperature in (1, 1.0):
        rules = SequenceRules(feedback=(Feedback("dish", "yesterday", temperature),))
        save_model(gru, tmp_path, INPUTS, OUTPUTS, rules=rules)
        names.add(load_model(tmp_path).fingerprint)
    assert len(names) == 1


def test_a_field_that_is_none_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"at `\$.inputs\[0\]`"):
        save_model(GRU(1, 4, 1), tmp_path / "new", ["x"])  # type: ignore[list-item]
    assert not (tmp_path / "new").exists()


def test_packages_are_names_in_a_list_not_one_text(saved: Path) -> None:
    with pytest.raises(ModelError, match="allowed_packages: names in a list, .*found 'my_model'"):
        load_model(saved, allowed_packages="my_model")


def test_lists_that_are_too_deep_are_refused(saved: Path) -> None:
    members = (saved / "model.json").read_text()
    deep = '"deep": ' + "[" * 50_000 + "]" * 50_000
    (saved / "model.json").write_text(members.replace('"sizes": {', f'"sizes": {{{deep}, ', 1))
    with pytest.raises(ModelError, match="model.json: lists or objects that are too deep"):
        load_model(saved)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(name: str, saved: Path) -> None:
    (saved / name).unlink()
    os.mkfifo(saved / name)
    with pytest.raises(ModelError, match=f"{name}: can't be read: it is no file"):
        load_model(saved)


def test_the_dtype_that_is_described_is_that_of_the_weights(tmp_path: Path) -> None:
    save_model(Sum().double(), tmp_path, [Number("x")], [Number("y")])
    file = tmp_path / "model.json"
    members = json.loads(file.read_text())
    assert members["dtype"] == "mixed"
    file.write_text(json.dumps(members | {"dtype": "float32"}))
    message = "dtype: the tensor weight is of another .*torch.float32, found torch.float64"
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path, allowed_packages=["tests"])


def test_an_index_is_an_input_of_json_models_only(tmp_path: Path) -> None:
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
    with pytest.raises(ModelError, match=r"'text' - at `\$.outputs\[0\]"):
        save_model(gru, tmp_path / "new", outputs=[text])  # type: ignore[list-item]
    fed = Category("dish", ("1", "2"), optional=True, encoding="index")
    rules = SequenceRules(feedback=(Feedback("dish", "dish"),))
    with pytest.raises(ModelError, match="feedback.input: input 'dish' is an index; .*one-hot"):
        save_model(gru, tmp_path / "new", [fed, Number("x", 2)], OUTPUTS, rules=rules)
    assert not (tmp_path / "new").exists()
