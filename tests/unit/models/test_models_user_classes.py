"""A user's class is imported only if allowed, and steps according to the contract."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from livestep import Category, ModelError, Number, StepModel, Text, load_model, save_model
from livestep.models.foreign.class_imports import import_class
from livestep.models.foreign.user_classes import AdaptedModel
from tests.support import user_models
from tests.support.user_models import (
    ExitsWhenMade,
    FastSum,
    GrowsLate,
    Letters,
    NeedsSize,
    Plain,
    Sum,
    Window,
)

ALLOWED = ("tests",)
ONE_IN, ONE_OUT = [Number("x")], [Number("y")]


def reloaded(module: nn.Module, directory: Path, *fields: Any, **options: Any) -> StepModel:
    save_model(module, directory, *fields, **options)
    return load_model(directory, allowed_packages=ALLOWED).net


@torch.inference_mode()
def stepped(module: Any, sequence: torch.Tensor) -> torch.Tensor:
    """Step a user's module by hand, without an adapter."""
    state = module.initial_state(sequence.shape[1])
    outputs = []
    for inputs in sequence:
        output, state = module.step(inputs, state)
        outputs.append(output)
    return torch.stack(outputs)


def test_a_class_is_loaded_by_name_with_its_weights_and_sizes(tmp_path: Path) -> None:
    # Given a class outside livestep, with states of two dtypes and shapes
    torch.manual_seed(0)
    window = Window(input_size=2, length=4)
    sizes = {"input_size": 2, "length": 4}
    net = reloaded(window, tmp_path, outputs=[Number("a"), Number("b")], sizes=sizes)

    # Then model.json names it, and its steps are those of the module
    members = json.loads((tmp_path / "model.json").read_text())
    assert (members["class"], members["sizes"]) == ("tests.support.user_models:Window", sizes)
    sequence = torch.randn(6, 3, 2)
    with torch.inference_mode():
        assert torch.equal(net.unroll(sequence), stepped(window, sequence))
    state = net.initial_state(5)
    assert [(tuple(t.shape), t.dtype) for t in state] == [
        ((5, 4, 2), torch.float32),
        ((5,), torch.int64),
    ]
    # And the loaded model can be saved again, as the same model
    save_model(net, tmp_path / "again", outputs=[Number("a"), Number("b")])
    again = load_model(tmp_path / "again", allowed_packages=ALLOWED)
    assert again.fingerprint == members["fingerprint"]


def test_embeddings_get_indices_of_a_category_and_of_a_text(tmp_path: Path) -> None:
    inputs = [Category("kind", ("a", "b"), optional=True, encoding="index"), Text("word", "xyz", 2)]
    outputs = [Number("y", 4)]
    save_model(Letters(), tmp_path, inputs, outputs)
    loaded = load_model(tmp_path, allowed_packages=ALLOWED)
    events = [{"kind": "b", "word": "zx"}, {"word": ""}]
    expected = stepped(Letters_of(loaded.net), torch.tensor([[[1.0, 2, 0]], [[-1, -1, -1]]]))
    predicted = torch.tensor([prediction["y"] for prediction in loaded.unroll_events(events)])
    torch.testing.assert_close(predicted, expected.squeeze(1))


def Letters_of(net: StepModel) -> nn.Module:  # noqa: N802
    assert isinstance(net, AdaptedModel)
    return net.module


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_dtypes_accept_and_return_float32(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    net = reloaded(Sum().to(dtype), tmp_path, ONE_IN, ONE_OUT)
    output, state = net.step(torch.tensor([[0.25]]))
    assert output.dtype == torch.float32
    assert isinstance(state, torch.Tensor)
    assert state.dtype == dtype
    assert json.loads((tmp_path / "model.json").read_text())["dtype"] == "mixed"


def test_an_index_is_not_rounded_to_the_dtype_of_the_weights(tmp_path: Path) -> None:
    # float16 can't hold 2,049: cast to it, the index would be 2,048.
    values = tuple(map(str, range(2050)))
    inputs = [Category("kind", values, encoding="index")]
    letters = Letters(values=2050).half()
    letters.embed_letter = nn.Embedding(1, 4).half()
    net = AdaptedModel(letters, 1, 4, {}, is_casting=False)
    last, before = (net.step(torch.tensor([[float(index)]]))[0] for index in (2049, 2048))
    assert not torch.equal(last, before)
    save_model(
        Letters(values=2050).half(), tmp_path, inputs, [Number("y", 4)], sizes={"values": 2050}
    )
    loaded = load_model(tmp_path, allowed_packages=ALLOWED)
    one, other = (loaded.unroll_events([{"kind": kind}])[0]["y"] for kind in (2049, 2048))
    assert one != other


def test_a_class_without_state_or_sizes_can_be_loaded(tmp_path: Path) -> None:
    net = reloaded(Plain(), tmp_path, [Number("x", 2)], ONE_OUT)
    assert net.initial_state(3) == ()
    assert net.step(torch.zeros(3, 2))[1] == ()


def test_a_model_without_any_weights_can_be_loaded(tmp_path: Path) -> None:
    net = reloaded(user_models.Count(), tmp_path, ONE_IN, ONE_OUT)
    assert net.unroll(torch.zeros(3, 1, 1)).flatten().tolist() == [1, 2, 3]


def test_a_class_with_its_own_unroll_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = reloaded(FastSum(), tmp_path, ONE_IN, ONE_OUT)
    monkeypatch.delattr(Sum, "step")
    assert net.unroll(torch.ones(4, 2, 1)).shape == (4, 2, 1)


@pytest.mark.parametrize(
    "allowed", [(), ("test",), ("tests.other",), ("tests.support.user_models.Sum",)]
)
def test_a_class_from_a_package_that_is_not_allowed_is_not_imported(
    allowed: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(Sum(), tmp_path, ONE_IN, ONE_OUT)
    monkeypatch.delitem(sys.modules, "tests.support.user_models")
    message = "class: importing tests.support.user_models runs its code.*--model-packages or LI"
    with pytest.raises(ModelError, match=message) as raised:
        load_model(tmp_path, allowed_packages=allowed)
    assert "model.json" in str(raised.value)
    assert "tests.support.user_models" not in sys.modules


@pytest.mark.parametrize("allowed", ["tests", "tests.support.user_models"])
def test_a_package_or_a_module_can_be_allowed(allowed: str, tmp_path: Path) -> None:
    save_model(Sum(), tmp_path, ONE_IN, ONE_OUT)
    load_model(tmp_path, allowed_packages=(allowed,))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "tests.support.user_models:Nobody",
            "has no torch.nn.Module named 'Nobody' .*nothing with that name",
        ),
        ("tests.support.user_models:not_a_class", "has no torch.nn.Module named 'not_a_class'"),
        ("tests.support.user_models:torch", "has no torch.nn.Module named 'torch'"),
        ("tests.nowhere:Sum", "ModuleNotFoundError: No module named 'tests.nowhere'.*PYTHONPATH"),
        ("tests.support.user_models:Sum.step", "invalid class name .*package.module:Class"),
        ("tests/user_models:Sum", "invalid class name"),
        (":Sum", "invalid class name"),
        ("tests.__main__:Sum", "tests.__main__ would run as a program when imported"),
        ("__main__:Sum", "__main__ would run as a program"),
    ],
)
def test_a_class_name_that_cannot_be_imported_is_explained(path: str, message: str) -> None:
    with pytest.raises(ModelError, match=f"class: .*{message}"):
        import_class(path, ALLOWED)


def test_any_error_of_an_import_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "livestep_test_broken.py").write_text("raise RuntimeError('out of order')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="raised RuntimeError: out of order"):
        import_class("livestep_test_broken:Model", ["livestep_test_broken"])


def test_a_package_that_exits_is_explained_and_does_not_end_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "livestep_test_exiting.py").write_text("import sys\nsys.exit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="raised SystemExit: 0"):
        import_class("livestep_test_exiting:Model", ["livestep_test_exiting"])
    with pytest.raises(ModelError, match=r"sizes: ExitsWhenMade\(\) raised SystemExit: 0"):
        save_model(ExitsWhenMade(is_first=True), tmp_path / "new", ONE_IN, ONE_OUT)


def test_the_current_folder_is_searched_only_while_a_package_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an allowed package in the current folder, next to one that would hide an installed one
    code = "import torch, safetensors\n\n\nclass Here(torch.nn.Module):\n    pass\n"
    (tmp_path / "livestep_test_here.py").write_text(code)
    (tmp_path / "safetensors.py").write_text("raise RuntimeError('hidden')")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)

    # When it is imported, then it is found, and nothing else is found there afterwards
    with pytest.raises(ModelError, match="isn't allowed"):
        import_class("livestep_test_here:Here", ["other"])
    assert import_class("livestep_test_here:Here", ["livestep_test_here"]).__name__ == "Here"
    assert sys.path == before
    del sys.modules["livestep_test_here"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Grows",
            r"step changed the layout of the state.*\(2, 1\) on cpu, found float32 \(2, 2\) on cpu",
        ),
        ("ChangesDtype", "step changed the layout of the state.*found float64"),
        ("KeyLast", r"initial_state: axis 0 .*expected \(2, \.\.\.\), found \(1, 2\)"),
        ("LayersFirst", r"initial_state: axis 0 .*expected \(3, \.\.\.\), found \(2, 3, 1\)"),
        (
            "LayersFirstLater",
            r"changed the layout of the state.*expected .*\(3, 2, 1\).*found .*\(2, 3, 1\)",
        ),
        (
            "AsManyColumns",
            r"depends on the number of keys .*'N', 2\), found .*\(3, 3\) for 3 keys",
        ),
        ("BeginsDrawn", "initial_state: all new keys must start alike"),
        (
            "TwoRowsOut",
            r"the shape of the outputs does not match .*expected \(3, 1\), found \(2, 1\)",
        ),
        ("NotAPair", "step must return a pair .*found a Tensor"),
        ("DictState", "initial_state: a state must be a tensor or a tuple of tensors .*a dict"),
        ("TwoOutputs", r"step: the shape of the outputs .*expected \(2, 1\), found \(2, 2\)"),
        ("LongOutputs", "step: outputs must be floats"),
        ("Breaks", "step raised RuntimeError: no such luck"),
        ("Exits", "step raised SystemExit: 0"),
        ("Unsigned", "initial_state: a state can't have this dtype .*, found uint16"),
        ("NoStep", "class: NoStep has no method step"),
        ("NeedsSize", r"sizes: NeedsSize\(\) raised TypeError: .*expected the arguments \(size"),
    ],
)
def test_a_class_that_contradicts_itself_is_neither_saved_nor_loaded(
    name: str, message: str, tmp_path: Path
) -> None:
    # Given the directory of a valid model, changed to name the wrong class
    kind = getattr(user_models, name)
    module = NeedsSize(2) if kind is NeedsSize else kind()
    with pytest.raises(ModelError, match=message):
        save_model(module, tmp_path / "new", ONE_IN, ONE_OUT)
    assert not (tmp_path / "new").exists()

    good = Sum() if kind is not NeedsSize else module
    sizes = {"size": 2} if kind is NeedsSize else {}
    save_model(good, tmp_path / "old", ONE_IN, ONE_OUT, sizes=sizes)
    file = tmp_path / "old" / "model.json"
    members = json.loads(file.read_text())
    members.update({"class": f"tests.support.user_models:{name}", "sizes": {}})
    members["fingerprint"] = "?"
    file.write_text(json.dumps(members))
    with pytest.raises(ModelError, match=r"expected [0-9a-f]{16}|" + message) as raised:
        load_model(tmp_path / "old", allowed_packages=ALLOWED)
    # The fingerprint covers the class: with the right one, the error is that of the class
    if raised.value.field == "fingerprint":
        members["fingerprint"] = raised.value.expected
        file.write_text(json.dumps(members))
        with pytest.raises(ModelError, match=message) as raised:
            load_model(tmp_path / "old", allowed_packages=ALLOWED)
    assert str(file) in str(raised.value)


def test_a_state_that_changes_its_shape_in_a_later_step_is_an_error(tmp_path: Path) -> None:
    net = reloaded(GrowsLate(), tmp_path, ONE_IN, ONE_OUT)
    _, state = net.step(torch.zeros(2, 1))
    with pytest.raises(ModelError, match="step changed the layout of the state"):
        net.step(torch.ones(2, 1), state)


class Nested:
    class Inner(Sum):
        """Not at the top level of its module."""


def test_a_class_that_cannot_be_imported_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Local(Sum):
        """Local to a function."""

    for module in (Local(), Nested.Inner()):
        with pytest.raises(ModelError, match="class: .* is not at the top level of"):
            save_model(module, tmp_path / "new", ONE_IN, ONE_OUT)
    monkeypatch.setattr(Sum, "__module__", "__main__")
    with pytest.raises(ModelError, match="class: Sum is defined in the running program"):
        save_model(Sum(), tmp_path / "new", ONE_IN, ONE_OUT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": ONE_OUT}, r"inputs: Sum has no input_size.*inputs=\[Number"),
        ({"inputs": ONE_IN}, "outputs: Sum has no output_size"),
        ({"inputs": [], "outputs": ONE_OUT}, "inputs: no fields"),
        ({"inputs": ONE_IN, "outputs": ONE_OUT, "sizes": {"a": object()}}, "sizes: not JSON"),
        ({"inputs": ONE_IN, "outputs": ONE_OUT, "sizes": {"a": 1}}, "unexpected keyword argument"),
    ],
)
def test_missing_or_wrong_arguments_of_a_save_are_named(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        save_model(Sum(), tmp_path / "new", **options)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (user_models.ListSizes(), "sizes: not the arguments of the class by name .*found a list"),
        (user_models.BreaksSizes(), "sizes raised KeyError: 'hidden_size'"),
        (user_models.Lazy(), "head.weight: a lazy weight has no values yet"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_module_without_valid_sizes_or_weights_is_not_saved(
    module: nn.Module, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        save_model(module, tmp_path / "new", ONE_IN, ONE_OUT)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("size", [10**13, 2**62, 10**30])
def test_too_many_columns_are_refused_before_the_model_is_built(size: int, tmp_path: Path) -> None:
    save = functools.partial(save_model, user_models.Count(), tmp_path)
    with pytest.raises(ModelError, match=f"inputs: too many columns .*found {size}"):
        save([Number("x", size)], ONE_OUT)
    with pytest.raises(ModelError, match=f"outputs: too many columns .*found {size}"):
        save(ONE_IN, [Number("y", size)])


def test_weights_that_do_not_fit_the_class_are_refused(tmp_path: Path) -> None:
    broken = Sum()
    with torch.no_grad():
        broken.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="weight: a weight is not finite"):
        save_model(broken, tmp_path / "new", ONE_IN, ONE_OUT)
    with pytest.raises(ModelError, match="weight: wrong dtype .*float8"):
        save_model(Sum().to(torch.float8_e4m3fn), tmp_path / "new", ONE_IN, ONE_OUT)
    window = Window(2)
    window.head = nn.Linear(5, 2)
    with pytest.raises(ModelError, match=r"head.weight: wrong shape; .* \(expected \(2, 6\)"):
        save_model(window, tmp_path / "new", outputs=[Number("y", 2)], sizes={"input_size": 2})
