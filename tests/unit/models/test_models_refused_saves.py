"""The errors of `save_model` for a net that would be lost: the one cause, and how to fix it."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from livestep import GRU, ModelError, Number, Text, load_model, save_model
from tests.support.altered_models import Plain, PlainSized

X, Y = [Number("x")], [Number("y")]


def refusal(net: nn.Module, folder: Path, inputs: Any = None, **options: Any) -> str:
    """Save a net that is refused; return the error, which is one line."""
    given = (X if inputs is None else inputs, options.pop("outputs", Y))
    with pytest.raises(ModelError) as raised:
        save_model(net, folder / "new", *given, **options)
    assert not (folder / "new").exists()
    text = str(raised.value)
    assert "\n" not in text
    return text


def batch_first(net: GRU) -> None:
    net.recurrent = nn.GRU(1, 4, batch_first=True)


def other_kind(net: GRU) -> None:
    net.recurrent = nn.LSTM(1, 4)  # type: ignore[assignment]


def other_head(net: GRU) -> None:
    net.head = nn.Linear(4, 2)


def exiting(net: GRU) -> None:
    net.initial_state = lambda batch_size: sys.exit(1)  # type: ignore[method-assign]


def lines(net: GRU) -> None:
    def fail(module: nn.Module, arguments: Any) -> None:
        raise RuntimeError("one\n  two")

    net.head.register_forward_pre_hook(fail)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            batch_first,
            r"the given model: unroll raised RuntimeError: .*; the loaded model: no error; "
            r"recurrent.batch_first is True as given, False as loaded$",
        ),
        (other_kind, "wrong shape; recurrent is a LSTM as given, a GRU as loaded "),
        (other_head, "head.bias: wrong shape; head.out_features is 2 as given, 1 as loaded "),
        (
            exiting,
            "given model: initial_state raised SystemExit: 1; the loaded model: no error; the "
            "method initial_state was replaced after construction",
        ),
        (
            lines,
            "step raised RuntimeError: one two; the loaded model: no error; a forward pre-hook ",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_replaced_part_of_a_model_of_this_package_is_reported(
    change: Callable[[GRU], None], message: str, tmp_path: Path
) -> None:
    net = GRU(1, 4, 1)
    change(net)
    assert re.search(message, refusal(net, tmp_path))


class TrainsToNothing(Plain):
    """Does not return the module from `train`, and can't be copied."""

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)


class ExitsInCopy(Plain):
    def __deepcopy__(self, memo: Any) -> Plain:
        sys.exit("no copies")


class ExitsInStateDict(Plain):
    def state_dict(self, *args: Any, **options: Any) -> Any:
        sys.exit(3)


def test_every_error_of_a_users_net_becomes_a_model_error(tmp_path: Path) -> None:
    assert "SystemExit: no copies" in refusal(ExitsInCopy(), tmp_path)
    assert refusal(ExitsInStateDict(), tmp_path) == "state_dict raised SystemExit: 3"
    save_model(TrainsToNothing(), tmp_path, X, Y)
    assert load_model(tmp_path, allowed_packages=[__name__]).net.input_size == 1


@pytest.mark.parametrize(
    ("net", "sizes", "message"),
    [
        (
            Plain(8),
            None,
            r"Plain has no method sizes\(\) and no sizes= was given, so it is loaded "
            r'with the defaults of the argument hidden: save_model\(..., sizes={"hidden": ...}\) ',
        ),
        (Plain(8), {"act": "tanh"}, "sizes= omits the argument hidden "),
        (PlainSized(8), None, r"sizes\(\) omits the argument hidden "),
        (
            Plain(4, "relu"),
            {"hidden": 4},
            "a ReLU as given, a Tanh as loaded; sizes= omits the argument act$",
        ),
        (Plain(8), {"hidden": 5}, "cell.out_features is 8 as given, 5 as loaded"),
    ],
)
def test_missing_arguments_are_reported_with_where_to_add_them(
    net: nn.Module, sizes: Mapping[str, Any] | None, message: str, tmp_path: Path
) -> None:
    assert re.search(message, refusal(net, tmp_path, sizes=sizes))


def hook(net: Plain) -> None:
    net.cell.register_forward_hook(lambda module, arguments, output: 2 * output)


def step(net: Plain) -> None:
    original = net.step

    def replaced(inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, state = original(inputs, state)
        return outputs + 1, state

    net.step = replaced  # type: ignore[method-assign]


@pytest.mark.parametrize("change", [hook, step])
@pytest.mark.parametrize(("kind", "sizes"), [(Plain, None), (Plain, {}), (PlainSized, None)])
def test_no_argument_is_reported_for_a_hook_or_a_replaced_method(
    change: Callable[[Plain], None], kind: type[Plain], sizes: Any, tmp_path: Path
) -> None:
    net = kind()
    change(net)
    text = refusal(net, tmp_path, sizes=sizes)
    cause = {hook: "a forward hook of cell was registered", step: "the method step was replaced"}
    assert cause[change] in text
    assert "sizes" not in text
    assert "argument" not in text


def test_sizes_that_contradict_a_model_of_this_package_are_refused(tmp_path: Path) -> None:
    net = GRU(1, 4, 1)
    for wrong in ({**net.sizes(), "hidden_size": 5}, {"hidden": 4}):
        text = refusal(net, tmp_path, sizes=wrong)
        assert text.startswith("sizes: not those of this GRU, which needs no sizes= (expected {")
        assert f"found {wrong}" in text
    assert "expected a dict, found a str" in refusal(net, tmp_path, sizes="hidden_size")
    save_model(net, tmp_path, X, Y, sizes=net.sizes())
    assert load_model(tmp_path).net.input_size == 1


def pruned(cell: nn.Module) -> None:
    prune.l1_unstructured(cell, "weight", 0.5)  # type: ignore[no-untyped-call]


def old_norm(cell: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(cell)


@pytest.mark.parametrize(
    ("change", "how", "way_out"),
    [
        (pruned, "pruned", "prune.remove"),
        (parametrizations.weight_norm, "parametrized", "parametrize.remove_parametrizations"),
        (parametrizations.orthogonal, "parametrized", "parametrize.remove_parametrizations"),
        (old_norm, "computed by a WeightNorm", "remove_weight_norm"),
        (nn.utils.spectral_norm, "computed by a SpectralNorm", "remove_spectral_norm"),
    ],
)
def test_a_weight_computed_from_others_is_reported_with_how_to_fix_it(
    change: Callable[[nn.Module], Any], how: str, way_out: str, tmp_path: Path
) -> None:
    net = Plain()
    change(net.cell)
    text = refusal(net, tmp_path)
    assert text.startswith(f"cell.weight: it is {how}, which the class itself doesn't do")
    assert text.endswith(f'torch.nn.utils.{way_out}(module, "weight")')

    # When that is done, then the net is saved
    remove = getattr(torch.nn.utils, way_out.split(".")[0])
    for name in way_out.split(".")[1:]:
        remove = getattr(remove, name)
    remove(net.cell, "weight")
    save_model(net, tmp_path, X, Y)


def test_a_pruned_weight_of_a_model_of_this_package_is_reported_too(tmp_path: Path) -> None:
    net = GRU(1, 4, 1)
    prune.l1_unstructured(net.recurrent, "weight_ih_l0", 0.5)  # type: ignore[no-untyped-call]
    text = refusal(net, tmp_path)
    assert text.startswith("recurrent.weight_ih_l0: it is pruned")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codec": "xml"}, "codec: unknown codec (expected json or float32, found 'xml')"),
        (
            {"inputs": ["x"]},
            "inputs: describe the columns by a list of fields (expected "
            "inputs=[...], each a Number or Category or Text, found a str)",
        ),
        ({"inputs": Number("x")}, "found a Number)"),
        ({"outputs": [Text("y", "ab", 1)]}, "each a Number or Category, found a Text)"),
    ],
)
def test_an_unknown_codec_or_invalid_fields_are_reported(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert refusal(Plain(), tmp_path, **options).endswith(message)


def test_a_field_without_a_name_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="^a field must have a name$"):
        Number("")
