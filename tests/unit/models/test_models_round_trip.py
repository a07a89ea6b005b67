"""A model is stored only if what would be loaded is the model that was given, bit for bit."""

from __future__ import annotations

import copy
import random
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from livestep import (
    GRU,
    Category,
    EncoderDecoder,
    Feedback,
    FullyConnected,
    Generation,
    Glimpses,
    LoadedModel,
    ModelError,
    Number,
    SequenceRules,
    Text,
    load_model,
    save_model,
    save_program,
)
from livestep.models.foreign.user_classes import AdaptedModel
from livestep.models.seeding import random_states
from tests.support import altered_models
from tests.support.altered_models import (
    Act,
    Changing,
    DrawsWhenMade,
    Indexed,
    Normed,
    Packing,
    Unrolling,
)
from tests.support.program_files import script
from tests.support.user_models import Letters

TWO_IN, ONE_IN, ONE_OUT = [Number("x", 2)], [Number("x")], [Number("y")]


def saved(module: nn.Module, directory: Path, inputs: Any = None, **options: Any) -> LoadedModel:
    save_model(module, directory, inputs or TWO_IN, ONE_OUT, **options)
    return load_model(directory, allowed_packages=["tests"])


@torch.no_grad()
def trained(module: nn.Module) -> nn.Module:
    """Set weights that no constructor creates."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def change_scale(net: Act) -> None:
    net.scale = 1.001


def change_eps(net: Act) -> None:
    net.norm.eps = 1e-3


def change_mean(net: Act) -> None:
    net.mean = torch.tensor([0.5, -0.5])


def add_hook(net: Act) -> None:
    def twice(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        return 2 * output

    net.head.register_forward_hook(twice)


def add_pre_hook(net: Act) -> None:
    net.cell.register_forward_pre_hook(lambda module, arguments: (arguments[0] + 1,))


def replace_part(net: Act) -> None:
    net.act = nn.Sigmoid()


def replace_step(net: Act) -> None:
    def step(self: Act, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, state = type(self).step(self, inputs, state)
        return outputs + 1, state

    net.step = types.MethodType(step, net)


def add_attribute(net: Act) -> None:
    net.norm.bias_scale = 3.0  # type: ignore[assignment]
    add_hook(net)


def halve_buffer(net: Act) -> None:
    net.mean = net.mean.half() + 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_scale, r"scale is 1.001 as given, 1.0 as loaded"),
        (change_eps, r"norm.eps is 0.001 as given, 1e-05 as loaded"),
        (change_mean, "the buffer mean differs and isn't stored: persistent=False"),
        (halve_buffer, "the buffer mean differs and isn't stored"),
        (add_hook, r"a forward hook of head was registered after construction \(add_hook.*twice\)"),
        (add_pre_hook, "a forward pre-hook of cell was registered after construction"),
        (replace_part, "act is a Sigmoid as given, a Tanh as loaded"),
        (replace_step, r"the method step was replaced after construction \(replace_step"),
        (
            add_attribute,
            r"norm.bias_scale was set after construction \(3.0\); a forward hook of head",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_model_that_would_change_by_saving_is_refused_with_the_difference(
    change: Callable[[Act], None], message: str, tmp_path: Path
) -> None:
    # Given a model that can be saved, until something changes it that no file stores
    net = Act(6)
    trained(net)
    saved(net, tmp_path / "before")
    files = {path.name: path.read_bytes() for path in (tmp_path / "before").iterdir()}
    change(net)

    # Then it is refused with difference, place and cause; nothing is written or replaced
    found = r"^model: the loaded model would differ from the given one: the (outputs|state) "
    found += r".*differ by \d.* \(given .*, loaded .*\) with .*, first in .*; "
    for place in ("new", "before"):
        with pytest.raises(ModelError, match=found + ".*" + message):
            save_model(net, tmp_path / place, TWO_IN, ONE_OUT)
    assert not (tmp_path / "new").exists()
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "before").iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["before"]


def test_an_argument_that_is_missing_in_sizes_is_named(tmp_path: Path) -> None:
    message = (
        "the outputs of step .* with random numbers.*activation is 'relu' as given, 'tanh' as "
        "loaded; act is a ReLU as given, a Tanh as loaded; sizes.. omits the argument "
        "activation$"
    )
    net = trained(Act(6, "relu"))
    with pytest.raises(ModelError, match=message):
        save_model(net, tmp_path / "new", TWO_IN, ONE_OUT)
    loaded = saved(net, tmp_path, sizes={"hidden": 6, "activation": "relu"})
    inputs = torch.randn(3, 2)
    with torch.inference_mode():
        expected, _ = copy.deepcopy(net).eval().step(inputs, net.initial_state(3))
        assert torch.equal(loaded.net.step(inputs)[0], expected)


@pytest.mark.parametrize(("kind", "place"), [(Packing, "step_packed"), (Unrolling, "unroll")])
def test_a_models_own_unroll_and_step_packed_are_also_compared(
    kind: type[Packing | Unrolling], place: str, tmp_path: Path
) -> None:
    net = kind(4)
    saved(net, tmp_path / "good")
    net.gain = 1.5
    message = f"the outputs of {place} differ by .*, first in the outputs of {place}; gain is 1"
    with pytest.raises(ModelError, match=message):
        save_model(net, tmp_path / "new", TWO_IN, ONE_OUT)


def test_a_model_of_livestep_is_also_compared(tmp_path: Path) -> None:
    net = GRU(2, 4, 1)
    net.head.register_forward_hook(lambda module, arguments, output: output * 2)
    with pytest.raises(ModelError, match="a forward hook of head was registered"):
        save_model(net, tmp_path / "new")
    net = GRU(2, 4, 1)
    parametrizations.weight_norm(net.head)
    with pytest.raises(ModelError, match=r"^head.weight: it is parametrized, which"):
        save_model(net, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_model_that_cannot_step_all_numbers_is_compared_with_those_that_it_accepts(
    tmp_path: Path,
) -> None:
    assert saved(Indexed(), tmp_path / "good", ONE_IN).net.input_size == 1
    with pytest.raises(ModelError, match="with zeros.*; scale is 3.0 as given, 1.0 as loaded"):
        save_model(Indexed(scale=3.0), tmp_path / "new", ONE_IN, ONE_OUT)


def test_a_model_that_raises_only_before_or_only_after_loading_is_refused(tmp_path: Path) -> None:
    net = Indexed()
    net.embed.register_forward_hook(lambda module, arguments, output: 1 / 0)
    message = (
        "the given model: .* ZeroDivisionError: .*; the loaded model: no error; a forward hook"
    )
    with pytest.raises(ModelError, match=message):
        save_model(net, tmp_path / "new", ONE_IN, ONE_OUT)


@pytest.mark.parametrize(
    "net",
    [Act(6), Normed(4), GRU(2, 4, 1, num_layers=2), FullyConnected(2, 4, 1), Glimpses(1, 2, 4, 1)],
    ids=lambda net: type(net).__name__,
)
@pytest.mark.parametrize("mode", [True, False])
def test_a_valid_model_is_saved_and_not_changed(net: nn.Module, mode: bool, tmp_path: Path) -> None:
    # Given a model in either mode, trained and stepped with gradients
    trained(net).train(mode)
    outputs, _ = net.step(torch.randn(3, 2), net.initial_state(3))  # type: ignore[operator]
    outputs.sum().backward()
    tensors = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    gradients = {
        name: one.grad.clone() for name, one in net.named_parameters() if one.grad is not None
    }
    before = random_states()

    # When it is saved and loaded
    saved(net, tmp_path)

    # Then mode, weights, gradients and random numbers are as they were
    assert random_states() == before
    assert all(module.training == mode for module in net.modules())
    assert net.state_dict().keys() == tensors.keys()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, tensors[name])
    assert gradients
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad
        assert (parameter.grad is None) == (name not in gradients)
        assert parameter.grad is None or torch.equal(parameter.grad, gradients[name])


def test_generated_sequences_and_texts_are_compared_with_their_own_inputs(tmp_path: Path) -> None:
    words = [Category("kind", ("a", "b"), optional=True, encoding="index"), Text("word", "xyz", 2)]
    letters = Letters()
    save_model(letters, tmp_path / "letters", words, [Number("y", 4)])
    letters.embed_value.register_forward_hook(lambda module, arguments, output: -output)
    with pytest.raises(ModelError, match="a forward hook of embed_value"):
        save_model(letters, tmp_path / "new", words, [Number("y", 4)])

    labels = ("a", "b")
    net = EncoderDecoder(source_size=2, target_size=2, hidden_size=4, output_size=2)
    fields = [Category("in", labels, optional=True), Category("was", labels, optional=True)]
    rules = SequenceRules(
        shape="encode-decode", feedback=(Feedback("y", "was"),), generation=Generation(steps_max=3)
    )
    save_model(net, tmp_path / "spelling", fields, [Category("y", labels)], rules=rules)
    net.decoder.register_forward_pre_hook(
        lambda module, arguments: (arguments[0] + 1, arguments[1])
    )
    message = "differ by .* with (random numbers|the inputs that start a generated sequence).*"
    with pytest.raises(ModelError, match=message + "a forward pre-hook of decoder"):
        save_model(net, tmp_path / "new", fields, [Category("y", labels)], rules=rules)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Counts", "count: a step writes to count, which all keys share"),
        ("CountsLarge", "count: a step writes to count"),
        ("Learns", "weight: a step writes to weight"),
        ("RunningStatistics", "a step writes to norm.running_mean, norm.running_var, norm.num_b"),
        (
            "KeepsScratch",
            "step: .*something else the second time.*outside the state.*buffer scratch",
        ),
        ("KeepsAttribute", r"outside the state \(lines is .* keep it in the state"),
        ("DropsAlways", "step: .*a step draws random numbers.*pass training=self.training"),
        ("DrawsInPython", "step: .*a step draws random numbers"),
    ],
)
def test_memory_outside_the_state_is_refused_and_named(
    name: str, message: str, tmp_path: Path
) -> None:
    net = getattr(altered_models, name)()
    with pytest.raises(ModelError, match=message):
        save_model(net, tmp_path / "new", ONE_IN, ONE_OUT)
    assert not (tmp_path / "new").exists()
    assert float(net.count) == 0
    assert net.weight.tolist() == [0.5]


def test_an_attribute_without_any_effect_is_not_an_error(tmp_path: Path) -> None:
    net = altered_models.LogsOnly()
    saved(net, tmp_path, ONE_IN)
    assert net.lines == []


def test_saving_and_loading_draw_no_random_numbers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    net = DrawsWhenMade()
    before = random_states()
    for kind in (net, altered_models.DropsAlways()):
        try:
            saved(kind, tmp_path, ONE_IN)
        except ModelError as error:
            assert "draws random numbers" in str(error)
        assert random_states() == before


def test_a_program_that_draws_is_refused_without_drawing_random_numbers(tmp_path: Path) -> None:
    class Draws(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x)

    content = script(Draws())
    before = random_states()
    with pytest.raises(ModelError, match="or draws random numbers"):
        save_program(content, tmp_path / "new", (), ONE_IN, ONE_OUT)
    assert random_states() == before


def test_a_model_that_cannot_be_copied_is_refused(tmp_path: Path) -> None:
    net = altered_models.Locked(threading.Lock)
    with pytest.raises(ModelError, match="model: the model can't be copied.*cannot pickle"):
        save_model(net, tmp_path / "new", ONE_IN, ONE_OUT)
    saved(altered_models.Locked(), tmp_path, ONE_IN)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_comparison_uses_the_dtype_of_the_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    net = saved(trained(Changing()).to(dtype), tmp_path, ONE_IN).net
    assert isinstance(net, AdaptedModel)
    assert net.module.weight.dtype == dtype


def test_weights_with_another_memory_layout_are_the_same_weights(tmp_path: Path) -> None:
    net = trained(Act(64))
    assert isinstance(net, Act)
    net.cell.weight = nn.Parameter(net.cell.weight.detach().t().contiguous().t())
    assert not net.cell.weight.is_contiguous()
    saved(net, tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_cuda_is_compared_on_the_cpu(tmp_path: Path) -> None:
    net = trained(Act(6)).cuda()
    state = torch.cuda.get_rng_state()
    saved(net, tmp_path)
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert next(net.parameters()).is_cuda
