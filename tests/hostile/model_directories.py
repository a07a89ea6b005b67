"""Model directories that can't be right: each way to spoil a good one."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch

from livestep import GRU, Category, Number, save_model

Spoil = Callable[[Path], Any]

JSON, WEIGHTS = "model.json", "model.safetensors"


class Row(NamedTuple):
    """One way to spoil a directory.

    Attributes:
        name: What is wrong.
        spoil: Does it to a good directory.
        message: A piece of the ModelError; the command exits with 6.
    """

    name: str
    spoil: Spoil
    message: str


def make_good(folder: Path) -> None:
    """Write a model that loads."""
    torch.manual_seed(0)
    inputs = [Number("wind"), Category("weather", ("sunny", "rainy"))]
    save_model(GRU(3, 4, 2), folder, inputs, [Category("dish", ("1", "2"))])


def file(name: str, content: bytes) -> Spoil:
    """Write a file as it is."""
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str, length: int) -> Spoil:
    """Keep the first bytes of a file."""
    return lambda folder: os.truncate(folder / name, length)


def grow(name: str, size: int) -> Spoil:
    """Make a file long, without a disk that is."""
    return lambda folder: os.truncate(folder / name, size)


def members(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    """Change `model.json`."""

    def spoil(folder: Path) -> None:
        found = json.loads((folder / JSON).read_text())
        change(found)
        (folder / JSON).write_text(json.dumps(found))

    return spoil


def member(**values: Any) -> Spoil:
    """Set members of `model.json`; `class_` is `class`."""
    named = {name.rstrip("_"): value for name, value in values.items()}
    return members(lambda found: found.update(named))


def size(**values: Any) -> Spoil:
    """Set sizes."""
    return members(lambda found: found["sizes"].update(values))


def first_input(**values: Any) -> Spoil:
    """Set members of the first input."""
    return members(lambda found: found["inputs"][0].update(values))


def text(before: str, after: str) -> Spoil:
    """Replace a part of `model.json`, which need not be JSON any more."""

    def spoil(folder: Path) -> None:
        found = (folder / JSON).read_text()
        assert before in found
        (folder / JSON).write_text(found.replace(before, after, 1))

    return spoil


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Spoil:
    """Change the weights."""

    def spoil(folder: Path) -> None:
        found = safetensors.torch.load((folder / WEIGHTS).read_bytes())
        change(found)
        (folder / WEIGHTS).write_bytes(safetensors.torch.save(found))

    return spoil


def tensor(name: str, make: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    """Replace one tensor."""
    return tensors(lambda found: found.update({name: make(found[name]).contiguous()}))


def header(entries: Mapping[str, Any] | bytes, length: int | None = None, data: int = 0) -> Spoil:
    """Write weights with a header by hand."""
    body = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    head = struct.pack("<Q", len(body) if length is None else length)
    return file(WEIGHTS, head + body + bytes(data))


def link(name: str, target: str) -> Spoil:
    """Put a symbolic link in a file's place."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return spoil


def instead(name: str, make: Callable[[Path], Any]) -> Spoil:
    """Put something else in a file's place."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return spoil


def archive(path: Path, program: bool = True) -> None:
    """Write a zip bomb where a program belongs: a gigabyte of zeros, packed to a megabyte."""
    with zipfile.ZipFile(path / "model.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as writer:
        with writer.open("model/data.pkl", "w", force_zip64=True) as stream:
            for _ in range(64):
                stream.write(bytes(1 << 20))
    if program:
        member(class_="torchscript", sizes={"state": []})(path)


HEAD = "head.weight"
F32 = {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]}

DIRECTORIES = (
    Row("no directory", lambda f: f.rename(f.with_name("gone")), "no such directory"),
    Row("an empty directory", lambda f: [(f / n).unlink() for n in (JSON, WEIGHTS)],
        "No such file"),
    Row("a file for a directory", lambda f: (_remove(f), f.write_text("x")), "no such directory"),
    Row("no weights", lambda folder: (folder / WEIGHTS).unlink(), "No such file"),
    Row("a directory for model.json", instead(JSON, Path.mkdir), "not a regular file"),
    Row("a pipe for model.json", instead(JSON, os.mkfifo), "not a regular file"),
    Row("an endless device for the weights", link(WEIGHTS, "/dev/zero"), "not a regular"),
    Row("a link to itself", link(JSON, JSON), "can't be read"),
    Row("a link to another file", link(WEIGHTS, "/etc/passwd"), "not a complete safetensors file"),
    Row("a link upwards to nothing", link(WEIGHTS, "../../nowhere"), "No such file"),
    # model.json as bytes.
    Row("an empty model.json", file(JSON, b""), "not JSON"),
    Row("half a model.json", cut(JSON, 100), "not JSON"),
    Row("a model.json of NUL bytes", file(JSON, bytes(500)), "not JSON"),
    Row("a model.json that is not UTF-8",
        file(JSON, b'{"format_version": 1, "class": "\xff"}'), "not JSON"),
    Row("a model.json in UTF-16", file(JSON, '{"format_version": 1}'.encode("utf-16")), "not JSON"),
    Row("a byte order mark", text("{", "\ufeff{"), "not JSON"),
    Row("a list", file(JSON, b"[1]"), "Expected `object`"),
    Row("lists 100,000 deep", file(JSON, b"[" * 100_000), "got `array`"),
    Row("sizes 100,000 deep", text('"sizes": {', '"sizes": {"a": ' + "[" * 100_000), "too deep"),
    Row("a model.json of a terabyte", grow(JSON, 1 << 40), "too long"),
    Row("an unpaired surrogate", text("wind", "\\ud800"), "not JSON"),
    # Its members.
    Row("another version", member(format_version=2), "format_version: written by another version"),
    Row("a version of 30 digits", member(format_version=10**30), "format_version"),
    Row("no version", members(lambda m: m.pop("format_version")), "format_version"),
    Row("a member too many", member(on_load="rm"), "unknown field `on_load`"),
    Row("a member less", members(lambda m: m.pop("codec")), "missing required field `codec`"),
    Row("no such class", member(class_="os.system"), "class: unknown class"),
    Row("a class that is not allowed", member(class_="os:system"), "--model-packages"),
    Row("a class up the path", member(class_="../../evil:Net"), "invalid class name"),
    Row("a class that is the program", member(class_="__main__:Net"), "would run as a program"),
    Row("a program that is not allowed", member(class_="torchscript"), "isn't allowed"),
    Row("a zip bomb for a program", archive, "isn't allowed"),
    Row("another class's name", member(class_="LSTM"), "wrong shape"),
    Row("sizes of another class", member(class_="VanillaRNN"), "not the sizes of a VanillaRNN"),
    Row("an unknown codec", member(codec="pickle"), "unknown codec"),
    Row("an unknown dtype", member(dtype="object"), "unknown dtype"),
    Row("an unknown shape", member(shape="one-to-all"), "unknown shape"),
    Row("a shape that lacks its rules", member(shape="encode-decode"), "required by the shape"),
    Row("a session gap of 0", member(session_gap_ms=0), "$.session_gap_ms"),
    Row("a session gap without a fingerprint for it", member(session_gap_ms=5), "fingerprint"),
    Row("feedback from nowhere", member(feedback=[{"output": "x", "input": "y"}]), "unknown field"),
    Row("a million steps", member(generation={"steps_max": 1_000_000}), "$.generation.steps_max"),
    Row("a size that is a text", size(hidden_size="4"), "hidden_size: invalid size"),
    Row("a size of 0", size(hidden_size=0), "hidden_size: invalid size"),
    Row("a size below 0", size(hidden_size=-1), "hidden_size: invalid size"),
    Row("a size that is true", size(hidden_size=True), "hidden_size: invalid size"),
    Row("a size of a list", size(hidden_size=[3, 4]), "hidden_size"),
    Row("a size of 10 million", size(hidden_size=10**7), "hidden_size: invalid size"),
    Row("a size of 30 digits", size(hidden_size=10**30), "hidden_size: invalid size"),
    Row("a size of 5,000 digits", text('"hidden_size": 4', '"hidden_size": ' + "9" * 5_000),
        "out of range"),
    Row("1e999 for a size", text('"hidden_size": 4', '"hidden_size": 1e999'), "out of range"),
    Row("a net of a petabyte", size(hidden_size=10**6, num_layers=1_000), "wrong shape"),
    Row("a million layers", size(num_layers=10**6), "num_layers: invalid size"),
    Row("an argument too many", size(exec="x"), "not the sizes of a GRU"),
    Row("10**30 columns", first_input(size=10**30), "too many columns"),
    Row("columns that don't add up", first_input(size=7), "the widths of the fields don't add up"),
    Row("a width of 0", first_input(size=0), "at least 1"),
    Row("a field without a name", first_input(name=""), "must have a name"),
    Row("a name with a quote in it", first_input(name='a"b'), "contains a quote"),
    Row("a name that a mark has", first_input(name="end"), "reserved for a mark"),
    Row("a field of another kind", first_input(type="colour"), "$.inputs[0]"),
    Row("two fields of a name", first_input(name="weather"), "two fields have the name"),
    Row("no fields", member(inputs=[]), "the widths of the fields don't add up"),
    Row("a category twice", members(lambda m: m["inputs"][1].update(values=["a", "a"])), "twice"),
    Row("another fingerprint", member(fingerprint="0" * 16), "don't belong together"),
    Row("another name for a field", first_input(name="gust"), "don't belong together"),
    # The weights.
    Row("empty weights", file(WEIGHTS, b""), "not a complete safetensors file"),
    Row("half the weights", cut(WEIGHTS, 500), "not a complete safetensors file"),
    Row("weights without their last byte", lambda f: _shorten(f / WEIGHTS), "not a complete"),
    Row("weights of eight terabytes", grow(WEIGHTS, 1 << 43), "too long"),
    Row("a pickle for weights", lambda f: torch.save({}, f / WEIGHTS), "not a complete"),
    Row("a header of 2**63 bytes", header(b"{}", length=2**63), "not a complete safetensors file"),
    Row("a header of 2**64 - 1 bytes", header(b"{}", length=2**64 - 1), "not a complete"),
    Row("a header that is not JSON", header(b"{'a'}"), "not a complete safetensors file"),
    Row("a header 10,000 deep", header(b"[" * 10_000), "not a complete safetensors file"),
    Row("a tensor of 2**62 numbers",
        header({HEAD: {**F32, "shape": [2**31, 2**31]}}, data=32), "not a complete"),
    Row("a tensor beyond the file", header({HEAD: {**F32, "data_offsets": [0, 2**40]}}), "not a"),
    Row("offsets that run backwards", header({HEAD: {**F32, "data_offsets": [32, 0]}}), "not a"),
    Row("two tensors in one place", header({"a": F32, HEAD: F32}, data=32), "not a complete"),
    Row("a dtype that isn't known", header({HEAD: {**F32, "dtype": "PY"}}, data=32), "not a"),
    Row("a tensor less", tensors(lambda w: w.pop(HEAD)), "head.weight: the tensor is missing"),
    Row("a tensor too many", tensors(lambda w: w.update(x=torch.ones(1))), "has no such tensor"),
    Row("a tensor without elements", tensor(HEAD, lambda w: w[:0]), "wrong shape"),
    Row("a tensor that was turned", tensor(HEAD, torch.Tensor.t), "head.weight: wrong shape"),
    Row("half floats", tensor(HEAD, torch.Tensor.half), "head.weight: wrong dtype"),
    Row("complex numbers", tensor(HEAD, lambda w: w.to(torch.complex64)), "wrong dtype"),
    Row("NaN in a weight", tensor(HEAD, lambda w: w * torch.nan), "not finite"),
    Row("infinity in a weight", tensor(HEAD, lambda w: w + torch.inf), "not finite"),
    Row("one bit of a weight", tensor(HEAD, partial(torch.nextafter, other=torch.tensor(9.0))),
        "don't belong together"),
)  # fmt: skip


def _remove(folder: Path) -> None:
    for one in folder.iterdir():
        one.unlink()
    folder.rmdir()


def _shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)
