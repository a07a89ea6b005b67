"""Weights are read from a file bit for bit, also complex ones; all others are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from livestep import ModelError, Number, check_model, load_model, save_model
from livestep.models.foreign.user_classes import AdaptedModel
from tests.support.altered_models import Resonator
from tests.support.user_models import Sum

ONE_IN, ONE_OUT = [Number("x")], [Number("y")]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_weights_are_loaded_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    # Given complex weights, of which safetensors files can't hold complex128, and a view
    resonator = Resonator(dtype=dtype)
    resonator.phase = resonator.phase.conj()
    save_model(resonator, tmp_path, ONE_IN, [Number("y", 2)])
    net = load_model(tmp_path, allowed_packages=["tests"]).net

    # Then they are loaded unchanged, and step as before
    assert isinstance(net, AdaptedModel)
    for name, tensor in resonator.state_dict().items():
        loaded = net.module.state_dict()[name]
        assert loaded.dtype == dtype
        assert torch.equal(loaded, tensor)
    sequence = torch.randn(4, 3, 1)
    with torch.inference_mode():
        expected, state = [], resonator.initial_state(3)
        for inputs in sequence.to(dtype.to_real()):
            outputs, state = resonator.step(inputs, state)
            expected.append(outputs.float())
        assert torch.equal(net.unroll(sequence), torch.stack(expected))
    save_model(net, tmp_path / "again", ONE_IN, [Number("y", 2)])
    assert (tmp_path / "again" / "model.json").read_text() == (tmp_path / "model.json").read_text()
    check_model(net)


def test_a_real_weight_in_place_of_a_complex_one_is_refused(tmp_path: Path) -> None:
    resonator = Resonator()
    resonator.mix = nn.Parameter(torch.randn(4, 2))
    with pytest.raises(ModelError, match="mix: wrong dtype .*complex64, found torch.float32"):
        save_model(resonator, tmp_path / "new", ONE_IN, [Number("y", 2)])


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(1, dtype=torch.uint16), "wrong dtype .*found torch.uint16"),
        (torch.zeros(1, device="meta"), "a weight on the meta device has no values"),
        (torch.zeros(2, 2).to_sparse(), "only dense tensors can be saved .*found torch.sparse_coo"),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")),
)
def test_a_tensor_that_a_file_cannot_hold_is_refused(
    tensor: torch.Tensor, message: str, tmp_path: Path
) -> None:
    module = Sum()
    module.register_buffer("table", tensor)
    with pytest.raises(ModelError, match=f"table: {message}"):
        save_model(module, tmp_path / "new", ONE_IN, ONE_OUT)
    assert not (tmp_path / "new").exists()
