"""Choosing the CPU or a CUDA device, or an error that explains why it is unavailable."""

import pytest
import torch

from livestep import ModelError
from livestep.models.devices import choose_device


def test_a_device_is_the_cpu_cuda_or_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ModelError, match="device: unknown device .*'tpu'"):
        choose_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ModelError, match="device: torch finds no CUDA device"):
        choose_device("cuda")


def test_cuda_computes_in_full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert choose_device("auto") == torch.device("cuda")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
