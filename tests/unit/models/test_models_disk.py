"""A model loads from disk unchanged, or a clear error explains what is wrong with the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from livestep import (
    GRU,
    LSTM,
    Category,
    EncoderDecoder,
    Feedback,
    FullyConnected,
    Generation,
    Glimpses,
    ModelError,
    Number,
    SequenceRules,
    StepModel,
    VanillaRNN,
    load_model,
    save_model,
)

INPUTS = [Number("wind"), Category("weather", ("sunny", "rainy"))]
OUTPUTS = [Category("dish", ("1", "2"))]


@pytest.fixture
def gru() -> GRU:
    torch.manual_seed(0)
    return GRU(input_size=3, hidden_size=4, output_size=2)


@pytest.fixture
def saved(gru: GRU, tmp_path: Path) -> Path:
    save_model(gru, tmp_path / "cook", INPUTS, OUTPUTS)
    return tmp_path / "cook"


def change_json(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = directory / "model.json"
    members = json.loads(file.read_text())
    change(members)
    file.write_text(json.dumps(members))


def change_weights(directory: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = directory / "model.safetensors"
    weights = safetensors.torch.load(file.read_bytes())
    change(weights)
    file.write_bytes(safetensors.torch.save(weights))


@pytest.mark.parametrize(
    "model",
    [
        VanillaRNN(3, 4, 2),
        GRU(3, 4, 2),
        GRU(3, 4, 2, num_layers=2),
        LSTM(3, 4, 2, num_layers=3),
        FullyConnected(3, 4, 2, num_layers=2),
        Glimpses(rows=3, row_size=1, hidden_size=4, output_size=2),
        EncoderDecoder(source_size=2, target_size=1, hidden_size=4, output_size=2),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_loaded_model_makes_the_same_predictions(model: StepModel, tmp_path: Path) -> None:
    save_model(model, tmp_path, INPUTS, OUTPUTS, codec="float32")
    loaded = load_model(tmp_path)
    sequence = torch.randn(5, 2, 3)
    with torch.inference_mode():
        assert torch.equal(loaded.net.unroll(sequence), model.unroll(sequence))
    assert type(loaded.net) is type(model)
    assert (loaded.inputs, loaded.outputs) == (tuple(INPUTS), tuple(OUTPUTS))
    assert (loaded.codec, loaded.name) == ("float32", tmp_path.name)
    assert loaded.rules == SequenceRules()
    assert not loaded.net.training
    assert not any(parameter.requires_grad for parameter in loaded.net.parameters())


def test_fields_are_x_and_y_by_default(gru: GRU, tmp_path: Path) -> None:
    save_model(gru, tmp_path)
    loaded = load_model(str(tmp_path))
    assert loaded.inputs == (Number("x", 3),)
    assert loaded.outputs == (Number("y", 2),)


def test_events_are_unrolled_offline_as_one_key(saved: Path, gru: GRU) -> None:
    loaded = load_model(saved)
    events = [{"wind": 0.5, "weather": "rainy"}, {"wind": -1, "weather": "sunny"}]
    rows = torch.tensor([[0.5, 0, 1], [-1, 1, 0]])
    with torch.inference_mode():
        expected = gru.unroll(rows.unsqueeze(1)).squeeze(1)
    predictions = loaded.unroll_events(events)
    for prediction, logits in zip(predictions, expected, strict=True):
        probabilities = list(prediction["dish"]["probabilities"].values())
        np.testing.assert_allclose(probabilities, logits.softmax(dim=0).numpy(), atol=1e-6)
        assert prediction["dish"]["label"] == ("1", "2")[int(logits.argmax())]
    assert loaded.unroll_events([]) == []


def fingerprint(directory: Path, model: StepModel, *fields: Any, **options: Any) -> str:
    save_model(model, directory, *fields, **options)
    return load_model(directory).fingerprint


def test_the_fingerprint_identifies_weights_and_meaning(gru: GRU, tmp_path: Path) -> None:
    # Given a model on disk
    original = fingerprint(tmp_path / "a", gru, INPUTS, OUTPUTS)
    assert len(original) == 16
    assert int(original, 16) >= 0

    # When it is saved again, elsewhere, for another codec, or after loading: the same
    assert fingerprint(tmp_path / "a", gru, INPUTS, OUTPUTS) == original
    assert fingerprint(tmp_path / "b", gru, INPUTS, OUTPUTS, codec="float32") == original
    assert fingerprint(tmp_path / "c", load_model(tmp_path / "a").net, INPUTS, OUTPUTS) == original

    # When a field is renamed, values of a category swap, or a bit of a weight changes: another
    renamed = [Number("gust"), INPUTS[1]]
    turned = [Category("dish", ("2", "1"))]
    others = [
        fingerprint(tmp_path / "d", gru, renamed, OUTPUTS),
        fingerprint(tmp_path / "e", gru, INPUTS, turned),
    ]
    with torch.no_grad():
        weight = gru.recurrent.weight_hh_l0[2, 1]
        weight.copy_(torch.nextafter(weight, torch.tensor(9.0)))
    others.append(fingerprint(tmp_path / "f", gru, INPUTS, OUTPUTS))
    assert len({original, *others}) == 4


def test_the_fingerprint_is_the_same_in_every_version(tmp_path: Path) -> None:
    # A running system compares it with what an older version wrote: this number never changes.
    gru = GRU(input_size=3, hidden_size=4, output_size=2)
    with torch.no_grad():
        for parameter in gru.parameters():
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape) / 8)
    assert fingerprint(tmp_path, gru, INPUTS, OUTPUTS) == "0a895eb21192565d"


def test_a_directory_of_an_older_version_loads_unchanged(tmp_path: Path) -> None:
    # Given model.json as version 0.1.0 wrote it, without rules and optional numbers
    lstm = LSTM(input_size=6, hidden_size=2, output_size=4, num_layers=2)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape) / 8)
    (tmp_path / "model.json").write_text(
        """{"format_version": 1, "class": "LSTM",
        "sizes": {"input_size": 6, "hidden_size": 2, "output_size": 4, "num_layers": 2},
        "dtype": "float32", "shape": "synchronized",
        "inputs": [
            {"type": "number", "name": "wind", "size": 1},
            {"type": "number", "name": "x", "size": 2},
            {"type": "category", "name": "dish", "values": ["1", "2", "3"], "optional": true}],
        "outputs": [
            {"type": "category", "name": "dish", "values": ["1", "2", "3"], "optional": false},
            {"type": "number", "name": "y", "size": 1}],
        "codec": "float32", "fingerprint": "895bc9299e2a741d"}"""
    )
    safetensors.torch.save_file(lstm.state_dict(), tmp_path / "model.safetensors")

    # When it is loaded, then the fingerprint is accepted and nothing else has changed
    loaded = load_model(tmp_path)
    assert loaded.fingerprint == "895bc9299e2a741d"
    assert loaded.rules == SequenceRules(shape="synchronized")
    assert loaded.inputs[:2] == (Number("wind"), Number("x", 2))


RULES = SequenceRules(
    feedback=(Feedback("dish", "yesterday", temperature=0.5),), session_gap_ms=60_000
)
WITH_FEEDBACK = [Number("wind"), Category("yesterday", ("1", "2"), optional=True)]


def test_rules_are_loaded_and_are_part_of_the_fingerprint(gru: GRU, tmp_path: Path) -> None:
    names = {fingerprint(tmp_path / "none", gru, WITH_FEEDBACK, OUTPUTS)}
    for rules in (
        RULES,
        SequenceRules(session_gap_ms=60_000),
        SequenceRules(shape="many-to-one"),
        SequenceRules("encode-decode", RULES.feedback, Generation(9, "dish", "2")),
        SequenceRules("encode-decode", RULES.feedback, Generation(8, "dish", "2")),
    ):
        names.add(fingerprint(tmp_path / "some", gru, WITH_FEEDBACK, OUTPUTS, rules=rules))
        assert load_model(tmp_path / "some").rules == rules
    assert len(names) == 6


def test_rules_that_do_not_fit_the_fields_are_not_saved(gru: GRU, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="feedback.input: unknown field .*'yesterday'"):
        save_model(gru, tmp_path / "new", INPUTS, OUTPUTS, rules=RULES)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=2), "format_version: .*expected 1, found 2"),
        (lambda m: m.pop("format_version"), "missing required field `format_version`"),
        (lambda m: m.update({"class": "os.system"}), "class: unknown class .*'os.system'"),
        (lambda m: m.update({"class": "LSTM"}), "wrong shape|no such tensor"),
        (lambda m: m.update({"class": "VanillaRNN"}), "sizes: not the sizes of a VanillaRNN"),
        (lambda m: m.pop("codec"), "missing required field `codec`"),
        (
            lambda m: m.update(codec="xml"),
            r"codec: unknown codec \(expected json or float32, found 'xml'\)",
        ),
        (lambda m: m.update(dtype="float16"), r"expected float32 or mixed, found 'float16'"),
        (
            lambda m: m.update(shape="one-to-all"),
            "shape: unknown shape .*or synchronized, found 'one-to-all'",
        ),
        (
            lambda m: m.update(shape="one-to-many"),
            "generation: required by the shape one-to-many",
        ),
        (lambda m: m.update(session_gap_ms=0), r"at `\$.session_gap_ms`"),
        (lambda m: m.update(session_gap_ms=5), "fingerprint: .*don't belong together"),
        (
            lambda m: m.update(feedback=[{"output": "dish", "input": "weather"}]),
            "feedback.input: input 'weather' must be optional",
        ),
        (lambda m: m["inputs"][0].update(name="end"), "inputs: the name is reserved for a mark"),
        (lambda m: m.update(autor="me"), "unknown field `autor`"),
        (lambda m: m["sizes"].update(hidden_size="4"), "sizes.hidden_size: invalid size .*'4'"),
        (lambda m: m["sizes"].update(hidden_size=0), "hidden_size: invalid size .*from 1 to"),
        (lambda m: m["sizes"].update(hidden_size=10**7), "hidden_size: invalid size"),
        (lambda m: m["sizes"].update(hidden_size=True), "hidden_size: invalid size"),
        (lambda m: m["sizes"].update(num_layers=10**6), "num_layers: invalid size"),
        (lambda m: m["sizes"].pop("num_layers"), "sizes: not the sizes of a GRU"),
        (lambda m: m["sizes"].update(depth=2), "sizes: not the sizes of a GRU"),
        (lambda m: m["sizes"].update(hidden_size=5), r"expected .*, found"),
        (lambda m: m["sizes"].update(num_layers=2), "_l1: the tensor is missing"),
        (lambda m: m["inputs"].pop(), r"inputs: .*expected 3 columns \(input_size\), found 1"),
        (lambda m: m["outputs"][0]["values"].append("3"), "outputs: .*expected 2 columns"),
        (lambda m: m.update(inputs=[]), "inputs: the widths .*found 0 in 0"),
        (lambda m: m["inputs"][1].update(name="wind"), "inputs: two fields have the name 'wind'"),
        (lambda m: m["inputs"][1].update(type="colour"), r"at `\$.inputs\[1\]"),
        (lambda m: m["inputs"][1].update(values=["a", "a"]), r"twice - at `\$.inputs\[1\]`"),
        (lambda m: m["inputs"][0].update(size=0), r"at least 1 - at `\$.inputs\[0\]`"),
        (lambda m: m["inputs"][0].update(name="gust"), "fingerprint: .*don't belong together"),
        (lambda m: m.update(fingerprint=""), "fingerprint: .*expected [0-9a-f]{16}"),
    ],
)
def test_an_invalid_json_or_one_that_contradicts_the_weights_is_refused(
    saved: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    change_json(saved, change)
    with pytest.raises(ModelError, match=message) as raised:
        load_model(saved)
    assert str(saved) in str(raised.value)


def test_the_codec_can_be_changed_by_hand(saved: Path) -> None:
    change_json(saved, lambda members: members.update(codec="float32"))
    assert load_model(saved).codec == "float32"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("head.bias"), "head.bias: the tensor is missing"),
        (lambda w: w.update(tail=torch.zeros(1)), "tail: a GRU of these sizes has no such tensor"),
        (
            lambda w: w.update({"head.weight": torch.zeros(2, 5)}),
            r"head.weight: wrong shape \(expected \(2, 4\), found \(2, 5\)\)",
        ),
        (
            lambda w: w.update({"head.bias": torch.zeros(2, dtype=torch.float64)}),
            r"head.bias: wrong dtype \(expected torch.float32, found torch.float64\)",
        ),
        (lambda w: w["head.bias"].fill_(float("nan")), "head.bias: a weight is not finite"),
        (lambda w: w["head.bias"].add_(1), "fingerprint: .*don't belong together"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(
    saved: Path, change: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    change_weights(saved, change)
    with pytest.raises(ModelError, match=message):
        load_model(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"format_version": 1, "cla'])
def test_a_file_that_is_not_json_is_refused(saved: Path, content: bytes) -> None:
    (saved / "model.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"model.json: not JSON"):
        load_model(saved)


def test_a_json_that_is_not_an_object_is_refused(saved: Path) -> None:
    (saved / "model.json").write_text("[1]")
    with pytest.raises(ModelError, match="model.json: Expected `object`, got `array`"):
        load_model(saved)


def test_weights_truncated_anywhere_are_refused(saved: Path) -> None:
    file = saved / "model.safetensors"
    content = file.read_bytes()
    for length in [0, 4, 8, 9, len(content) // 2, len(content) - 1]:
        file.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"model.safetensors: not a complete safetensors file"):
            load_model(saved)


def test_weights_in_a_pickle_are_never_opened(saved: Path, gru: GRU) -> None:
    torch.save(gru, saved / "model.safetensors")
    with pytest.raises(ModelError, match="not a complete safetensors file"):
        load_model(saved)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_reported(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(ModelError, match=f"{name}: can't be read: No such file"):
        load_model(saved)


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere: no such directory"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (GRU(3, 4, 2).double(), {}, "wrong dtype .*float64"),
        (GRU(3, 4, 2), {"inputs": [Number("x", 2)]}, "expected 3 columns"),
        (GRU(3, 4, 2), {"inputs": [Number("x"), Number("x", 2)]}, "two fields have the name 'x'"),
        (GRU(3, 4, 2), {"outputs": []}, "expected 2 columns"),
        (GRU(3, 4, 2), {"codec": "xml"}, "'xml'"),
    ],
)
def test_a_model_that_could_not_be_loaded_is_not_saved(
    model: StepModel, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        save_model(model, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_a_weight_that_is_not_finite_is_not_saved(gru: GRU, tmp_path: Path) -> None:
    with torch.no_grad():
        gru.head.bias[0] = float("inf")
    with pytest.raises(ModelError, match="head.bias: a weight is not finite"):
        save_model(gru, tmp_path / "new")


def test_a_refused_save_keeps_the_old_model(saved: Path, gru: GRU) -> None:
    before = load_model(saved).fingerprint
    with pytest.raises(ModelError):
        save_model(gru, saved, inputs=[Number("x", 2)])
    assert load_model(saved).fingerprint == before


def test_a_save_that_fails_halfway_leaves_no_temporary_file(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a disk that fails when the second file is renamed
    replace, calls = Path.replace, []

    def fail_second(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_second)

    # When another model is saved, then the error reports it and the mixture is not loaded
    with pytest.raises(ModelError, match="can't be written: Input/output error"):
        save_model(GRU(3, 4, 2), saved, INPUTS, OUTPUTS)
    assert sorted(file.name for file in saved.iterdir()) == ["model.json", "model.safetensors"]
    with pytest.raises(ModelError, match="don't belong together"):
        load_model(saved)


def test_a_directory_that_cannot_be_created_is_reported(gru: GRU, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="file.*can't be written"):
        save_model(gru, tmp_path / "file" / "model")


def test_read_only_rows_can_be_unrolled(saved: Path) -> None:
    loaded = load_model(saved)
    rows = np.frombuffer(bytes(4 * 3 * 2), np.float32).reshape(2, 3)
    assert loaded.unroll_rows(rows).shape == (2, 2)
    assert loaded.unroll_rows(rows[:0]).shape == (0, 2)
