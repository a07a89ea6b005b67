"""The error for a file that is not a program states what it is; nothing of it runs."""

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
        (
            lambda: b"\x89HDF\r\n\x1a\n" + bytes(100),
            "an HDF5 file, such as Keras",
            "as a torch class",
        ),
        (lambda: zipped(**{"model.weights.h5": b""}), "a Keras model", "as a torch class"),
        (lambda: safetensors.torch.save(net().state_dict()), "safetensors weights", "load_file"),
        (lambda: saved(net().state_dict()), "a state_dict", "load_state_dict.*weights_only=True"),
        (lambda: saved({"epoch": 3, "net": net().state_dict()}), "a state_dict", "save_model"),
        (lambda: saved(net()), r"whole objects \(.*nn.modules.linear.Linear.* torch.save", "never"),
        (
            lambda: saved(net().state_dict(), _use_new_zipfile_serialization=False),
            "before torch 1.6",
            "weights_only=True",
        ),
        (lambda: pickle.dumps(OrderedDict(a=1)), "a Python pickle", "livestep never does"),
        (lambda: gzip.compress(b"abc"), "a gzip file", "unpack it"),
        (tar, "a tar archive", "unpack it"),
        (array, "a NumPy array", "copy the weights"),
        (lambda: b"GGUF" + bytes(20), "a GGUF file", "as a torch class"),
        (lambda: b"\x1c\0\0\0TFL3" + bytes(20), "a TensorFlow Lite model", "as a torch class"),
        (lambda: b"\x08\x01\x12\x02\x0a\x00", "a protobuf file, perhaps", "as a torch class"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "lfs pull"),
        (lambda: b"<!doctype html>\n<p>Not f\xc3\xb6und</p>", "a text file", "error page"),
        (lambda: b"", "an empty file", "again"),
        (lambda: script(net())[:-40], "a truncated or damaged", "download it again"),
        (lambda: zipped(a=b"1"), "another kind of zip archive", "its contents"),
        (lambda: zipped(**{"m/data/aotinductor/m/run.so": b""}), "AOTInductor", "torch.export"),
        (lambda: b"\xff\xfe\x00\x01" * 9, "an unknown kind of file", "torch.export"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_error_for_a_file_that_is_not_a_program_states_what_it_is_and_what_to_do(
    content: Callable[[], bytes], words: str, advice: str
) -> None:
    message = f"(?s)neither TorchScript nor an exported program but .*{words}.*{advice}"
    for look in (program_kind, Program):
        with pytest.raises(ModelError, match=message):
            look(content())


def test_the_two_kinds_of_programs_are_distinguished() -> None:
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
def test_the_first_bytes_of_any_file_are_described(length: int) -> None:
    for content in (onnx(), script(net()), saved(net()), pickle.dumps(1), b"\x08" * 40):
        with pytest.raises(ModelError, match="neither TorchScript nor an exported program but"):
            program_kind(content[:length])
