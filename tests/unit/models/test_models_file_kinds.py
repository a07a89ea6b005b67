"""A file that is no program is named for what it is, and nothing of it runs."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from livestep import ModelError
from livestep.models.foreign.file_kinds import program_kind
from livestep.models.foreign.program_reading import Program
from tests.support.program_files import export, script


def net() -> nn.Module:
    return nn.Linear(3, 2)


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt"), io.BytesIO(b""))
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def onnx() -> bytes:
    """Write a ModelProto: ir_version, producer_name, an empty graph with a name, opset_import."""
    return b"\x08\x0a" + b"\x12\x07pytorch" + b"\x3a\x06\x12\x04main" + b"\x42\x04\x0a\x00\x10\x14"


@pytest.mark.parametrize(
    ("content", "words", "advice"),
    [
        (onnx, "an ONNX model", "torch.export.export"),
        (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, such as Keras", "as a class"),
        (lambda: zipped(**{"model.weights.h5": b""}), "a model of Keras", "as a class of torch"),
        (lambda: safetensors.torch.save(net().state_dict()), "weights in safet", "load_file"),
        (lambda: saved(net().state_dict()), "a state_dict", "load_state_dict.*weights_only=True"),
        (lambda: saved({"epoch": 3, "net": net().state_dict()}), "a state_dict", "save_model"),
        (lambda: saved(net()), r"whole objects \(.*nn.modules.linear.Linear.* torch.save", "never"),
        (
            lambda: saved(net().state_dict(), _use_new_zipfile_serialization=False),
            "before torch 1.6",
            "weights_only=True",
        ),
        (lambda: pickle.dumps(OrderedDict(a=1)), "a Python pickle", "never opened here"),
        (lambda: gzip.compress(b"abc"), "gzip has packed", "unpack it"),
        (tar, "a tar archive", "unpack it"),
        (array, "a NumPy array", "copy the weights"),
        (lambda: b"GGUF" + bytes(20), "a GGUF file", "as a class of torch"),
        (lambda: b"\x1c\0\0\0TFL3" + bytes(20), "a TensorFlow Lite model", "as a class"),
        (lambda: b"\x08\x01\x12\x02\x0a\x00", "a protobuf file, perhaps", "as a class"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git", "lfs pull"),
        (lambda: b"<!doctype html>\n<p>Not f\xc3\xb6und</p>", "a text", "failed download"),
        (lambda: b"", "an empty file", "again"),
        (lambda: script(net())[:-40], "cut short or damaged", "download it again"),
        (lambda: zipped(a=b"1"), "a zip archive of another kind", "what is in it"),
        (lambda: zipped(**{"m/data/aotinductor/m/run.so": b""}), "AOTInductor", "torch.export"),
        (lambda: b"\xff\xfe\x00\x01" * 9, "nothing that is known here", "torch.export"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_file_that_is_no_program_is_named_with_what_can_be_done(
    content: Callable[[], bytes], words: str, advice: str
) -> None:
    message = f"(?s)neither TorchScript nor an exported program, but .*{words}.*{advice}"
    for look in (program_kind, Program):
        with pytest.raises(ModelError, match=message):
            look(content())


def test_programs_are_told_apart() -> None:
    assert program_kind(script(net())) == "torchscript"
    assert program_kind(export(net(), torch.zeros(2, 3), axes=(0,))) == "exported"


class Opens:
    """Writes a file if it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("is_torchs", [True, False], ids=["torch.save", "pickle"])
def test_nothing_is_unpickled(is_torchs: bool, tmp_path: Path) -> None:
    file = tmp_path / "run"
    content = saved(Opens(file)) if is_torchs else pickle.dumps(Opens(file))
    with pytest.raises(ModelError, match="pathlib.Path" if is_torchs else "a Python pickle"):
        program_kind(content)
    assert not file.exists()


@pytest.mark.parametrize("length", [2, 3, 9, 40])
def test_the_beginning_of_any_file_is_named(length: int) -> None:
    for content in (onnx(), script(net()), saved(net()), pickle.dumps(1), b"\x08" * 40):
        with pytest.raises(ModelError, match="neither TorchScript nor an exported program, but"):
            program_kind(content[:length])
