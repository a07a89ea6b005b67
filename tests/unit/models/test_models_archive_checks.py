"""An exported program with anything but plain operators is not opened, and never runs."""

from __future__ import annotations

import functools
import io
import json
import logging
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from livestep import ModelError
from livestep.models.foreign.archive_checks import checked_archive
from livestep.models.foreign.program_reading import Program
from tests.support.program_files import TWO, TwoStates, export


@functools.cache
def exported() -> bytes:
    return export(TwoStates(), *TWO, axes=(0, 0, 0))


def changed(
    change: Callable[[dict[str, Any]], Any],
    member: str = "models/model.json",
    content: bytes | None = None,
) -> bytes:
    """Rewrite the archive of an exported program with one JSON member changed."""
    buffer, content = io.BytesIO(), content or exported()
    with zipfile.ZipFile(io.BytesIO(content)) as reader, zipfile.ZipFile(buffer, "w") as writer:
        for name in reader.namelist():
            data = reader.read(name)
            if name.endswith(member):
                value = json.loads(data)
                change(value)
                data = json.dumps(value).encode()
            writer.writestr(name, data)
    return buffer.getvalue()


def added(member: str, data: bytes) -> bytes:
    buffer = io.BytesIO(exported())
    with zipfile.ZipFile(buffer, "a") as writer:
        writer.writestr(member, data)
    return buffer.getvalue()


def graph(program: dict[str, Any]) -> Any:
    return program["graph_module"]["graph"]


def structure(kind: str, context: str = "null") -> str:
    return json.dumps([1, {"type": kind, "context": context, "children_spec": []}])


def signature(program: dict[str, Any]) -> Any:
    return program["graph_module"]["module_call_graph"][0]["signature"]


def calling(target: str) -> Callable[[], bytes]:
    """Make the first node of the graph call something else."""
    return lambda: changed(lambda program: graph(program)["nodes"][0].update(target=target))


#: A weight name that becomes Python code when torch writes it between quotes.
RUNNING = 'cell.bias_hh" if exec("print(1)") else "bias_ih'


def with_weight_named(name: str) -> bytes:
    def rename(program: dict[str, Any]) -> None:
        for spec in program["graph_module"]["signature"]["input_specs"]:
            if spec.get("parameter", {}).get("parameter_name") == "cell.bias_hh":
                spec["parameter"]["parameter_name"] = name

    def rename_weight(weights: dict[str, Any]) -> None:
        weights["config"][name] = weights["config"].pop("cell.bias_hh")

    return changed(rename_weight, "model_weights_config.json", changed(rename))


def with_size_named(name: str) -> bytes:
    def rename(program: dict[str, Any]) -> None:
        graph(program)["nodes"][0]["outputs"] = [{"as_sym_int": {"as_name": name}}]

    return changed(rename)


def compressed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(exported())) as reader, zipfile.ZipFile(buffer, "w") as writer:
        for name in reader.namelist():
            writer.writestr(name, reader.read(name), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda: changed(lambda p: graph(p)["nodes"][0].update(target="torch.load")),
            "call to 'torch.load'",
        ),
        (
            lambda: changed(
                lambda p: graph(p)["nodes"][0].update(target="torch.ops.aten.from_file.default")
            ),
            "call to 'torch.ops.aten.from_file.default'",
        ),
        (
            lambda: changed(
                lambda p: graph(p)["inputs"][0]["as_tensor"].update(name="x=print('run')")
            ),
            "the name",
        ),
        (
            lambda: changed(
                lambda p: graph(p)["tensor_values"]["x"]["sizes"][0]["as_expr"].update(
                    expr_str="__import__('os').getcwd()"
                )
            ),
            'the size "__import__',
        ),
        (
            lambda: changed(
                lambda p: p["graph_module"]["module_call_graph"][0]["signature"].update(
                    in_spec=structure("collections.defaultdict")
                )
            ),
            "the structure 'collections.defaultdict'",
        ),
        (
            lambda: changed(
                lambda c: c["config"]["cell.weight_ih"].update(use_pickle=True),
                "model_weights_config.json",
            ),
            "use_pickle True, an object that is not a tensor",
        ),
        (
            lambda: changed(
                lambda p: signature(p).update(
                    in_spec=structure("builtins.dict", json.dumps(["x': print(1), 'y"]))
                )
            ),
            "the name \"x': print",
        ),
        (calling("torch.ops.aten.from_file.out"), "call to 'torch.ops.aten.from_file.out'"),
        (calling("torch.ops.aten.save.default"), "call to 'torch.ops.aten.save.default'"),
        (calling("torch.ops.aten._print.default"), "call to 'torch.ops.aten._print.default'"),
        (calling("torch.ops.aten.warn.default"), "call to 'torch.ops.aten.warn.default'"),
        (calling("torch.ops.aten._dir.append"), "call to 'torch.ops.aten._dir.append'"),
        (calling("torch.ops.aten.add.__class__"), "call to 'torch.ops.aten.add.__class__'"),
        (calling("torch.ops.aten.nosuch.default"), "call to .*which this version of torch lacks"),
        (lambda: with_weight_named(RUNNING), "the name 'cell.bias_hh\" if exec"),
        (
            lambda: changed(lambda c: c["config"].update({RUNNING: {}}), "weights_config.json"),
            "the name 'cell.bias_hh\" if exec",
        ),
        (
            lambda: changed(
                lambda p: signature(p).update(forward_arg_names=["x", "h=print(1)", "seen"])
            ),
            "the name 'h=print",
        ),
        (lambda: with_size_named("q = 0\n    print(1)"), "the name 'q = 0"),
        (lambda: changed(lambda p: p.update(author="me")), "the author 'me'"),
        (
            lambda: changed(
                lambda c: c["config"]["cell.weight_ih"].update(path_name="../../x"),
                "model_weights_config.json",
            ),
            "the path_name '../../x'",
        ),
        (compressed, "members larger than the file|the compressed member"),
        (lambda: added("archive/data/aotinductor/model/run.so", b""), "the member .*run.so"),
        (lambda: added("archive/data/constants/opaque_obj_0", b""), "the member .*opaque_obj_0"),
    ],
)
def test_a_program_with_more_than_operators_on_tensors_is_not_opened(
    content: Callable[[], bytes], message: str
) -> None:
    with pytest.raises(ModelError, match=f"not opened: the file has .*{message}"):
        checked_archive(content())
    with pytest.raises(ModelError):
        Program(content())


class Runs:
    """Prints if it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("run",)


def test_example_inputs_other_than_tensors_are_not_unpickled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pickled = io.BytesIO()
    torch.save(((Runs(),), {}), pickled)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(exported())) as reader, zipfile.ZipFile(buffer, "w") as writer:
        for name in reader.namelist():
            is_examples = name.endswith("sample_inputs/model.pt")
            writer.writestr(name, pickled.getvalue() if is_examples else reader.read(name))
    with pytest.raises(ModelError, match="invalid exported program: UnpicklingError"):
        Program(buffer.getvalue())
    assert capsys.readouterr().out == ""


def test_guards_of_a_program_are_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    content = changed(lambda program: program.update(guards_code=["print('run') or True"]))
    program = Program(content)
    program.module(*TWO)
    assert capsys.readouterr().out == ""


class Plain(nn.Module):
    """Has all that a plain program may have: constants, buffers, texts, infinity, several sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(2, 4), nn.LSTMCell(4, 4)])
        self.act, self.embed = nn.GELU(approximate="tanh"), nn.Embedding(3, 2)
        self.register_buffer("mean", torch.ones(2))
        self.register_buffer("scale", torch.ones(2), persistent=False)
        self.constant = torch.ones(2)

    def forward(self, metadata: Tensor, h: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = (metadata - self.mean) * self.scale * self.constant + self.embed(seen % 3)
        first, _ = self.cells[0](x, (h[:, 0], h[:, 0]))
        second, _ = self.cells[1](first, (h[:, 1], h[:, 1]))
        second = torch.div(self.act(second), 2, rounding_mode="floor")
        second = torch.einsum("ij,ij->ij", second, second).clamp(min=float("-inf"))
        places = torch.arange(x.shape[0], device=x.device, dtype=x.dtype).unsqueeze(1)
        return second + 0 * places, torch.stack([first, second], 1), seen + 1


def test_a_plain_program_passes_with_any_operators() -> None:
    module = Plain().eval()
    examples = (torch.ones(2, 2), torch.zeros(2, 2, 4), torch.zeros(2, dtype=torch.int64))
    program = Program(export(module, *examples, axes=(0, 0, 0)))
    assert program.arguments == ["metadata", "h", "seen"]
    for outputs, expected in zip(program.module(*examples), module(*examples), strict=True):
        torch.testing.assert_close(outputs, expected)


def test_a_broken_program_is_one_error_without_a_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given torch's log, and a program that names a missing weight
    content = changed(
        lambda weights: weights["config"]["cell.weight_ih"].update(path_name="weight_99"),
        "model_weights_config.json",
    )
    logger = logging.getLogger("torch.export")
    logger.addHandler(caplog.handler)
    try:
        with pytest.raises(
            ModelError, match="this version of torch can't read the exported program"
        ):
            Program(content)
    finally:
        logger.removeHandler(caplog.handler)
    assert [record.name for record in caplog.records if record.name == logger.name] == []
    assert not logger.disabled
