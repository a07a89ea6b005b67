"""A TorchScript or exported program is stepped without any class; what isn't plain isn't opened."""

from __future__ import annotations

import functools
import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import ModelError, Number, load_model, save_program
from models.programs import Program, StateTensor, choose_states, read_state_shape

INPUTS, OUTPUTS = [Number("x", 3)], [Number("y", 2)]


class TwoStates(nn.Module):
    """A GRU cell and a count; forward takes and gives both."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRUCell(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, h: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.cell(x, h)
        return self.head(h) / (1 + seen).unsqueeze(1), h, seen + 1


class KeySecond(nn.Module):
    """A cell whose state is laid out as torch's (K, N, H); the inputs come last."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.cell(x, h[0])
        return self.head(hidden), hidden.unsqueeze(0)


class Doubles(nn.Module):
    """Whose state becomes float64."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :2], h.double()


class Stateless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


class ForgetsState(Stateless):
    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return self.head(x) + h


TWO = (torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))


def script(module: nn.Module) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.script(module).save_to_buffer()  # type: ignore[no-any-return]


def trace(module: nn.Module, *examples: Tensor) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.jit.trace(module, examples).save_to_buffer()  # type: ignore[no-any-return]


def export(module: nn.Module, *examples: Tensor, axes: tuple[int, ...] | None = None) -> bytes:
    """Export for any number of keys, whose axis in each example is given; None for this number."""
    count = torch.export.Dim("N")
    shapes = None if axes is None else tuple({axis: count} for axis in axes)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module, examples, dynamic_shapes=shapes), buffer)
    return buffer.getvalue()


SHAPES = {"h": StateTensor("h", (4,)), "seen": StateTensor("seen", (), "int64")}


@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_a_program_steps_as_the_module_it_was_made_of(kind: str, tmp_path: Path) -> None:
    # Given a program with two states of different shape and dtype, saved and loaded
    module = TwoStates().eval()
    if kind == "torchscript":
        content = script(module)
        state = choose_states(Program(content), ["h", "seen"], SHAPES)
    else:
        content = export(module, *TWO, axes=(0, 0, 0))
        state = choose_states(Program(content))
    save_program(content, tmp_path, state, INPUTS, OUTPUTS)
    loaded = load_model(tmp_path)

    # Then model.json says so, and steps of any batch are the module's
    members = json.loads((tmp_path / "model.json").read_text())
    assert members["class"] == kind
    assert [one["name"] for one in members["sizes"]["state"]] == ["h", "seen"]
    for batch_size in (1, 2, 7):
        inputs = torch.randn(4, batch_size, 3)
        with torch.inference_mode():
            h, seen = torch.zeros(batch_size, 4), torch.zeros(batch_size, dtype=torch.int64)
            expected = []
            for x in inputs:
                y, h, seen = module(x, h, seen)
                expected.append(y)
            torch.testing.assert_close(loaded.net.unroll(inputs), torch.stack(expected))
    assert len(loaded.unroll_events([{"x": [1, 2, 3]}])) == 1


@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_a_key_axis_that_is_not_the_first_is_turned_round(kind: str, tmp_path: Path) -> None:
    module = KeySecond().eval()
    examples = (torch.zeros(1, 2, 4), torch.zeros(2, 3))
    if kind == "torchscript":
        content = trace(module, *examples)
        state = choose_states(Program(content), ["h"], {"h": read_state_shape("h=1,N,4")})
    else:
        content = export(module, *examples, axes=(1, 0))
        state = choose_states(Program(content), ["h"])
    save_program(content, tmp_path, state, INPUTS, OUTPUTS)
    net = load_model(tmp_path).net
    assert [tuple(tensor.shape) for tensor in net.initial_state(5)] == [(5, 1, 4)]
    inputs = torch.randn(3, 5, 3)
    with torch.inference_mode():
        hidden, expected = torch.zeros(1, 5, 4), []
        for x in inputs:
            output, hidden = module(hidden, x)
            expected.append(output)
        torch.testing.assert_close(net.unroll(inputs), torch.stack(expected))


def test_a_program_without_state_is_one_too(tmp_path: Path) -> None:
    content = script(Stateless())
    save_program(content, tmp_path, choose_states(Program(content)), INPUTS, OUTPUTS)
    assert load_model(tmp_path).net.initial_state(3) == ()


def test_the_fingerprint_covers_the_program(tmp_path: Path) -> None:
    content = script(Stateless())
    save_program(content, tmp_path, (), INPUTS, OUTPUTS)
    (tmp_path / "model.pt").write_bytes(script(Stateless()))
    with pytest.raises(ModelError, match=r"fingerprint: .* that of model.pt .*don't belong"):
        load_model(tmp_path)
    (tmp_path / "model.pt").unlink()
    with pytest.raises(ModelError, match=r"model.pt: can't be read"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ((), "state: the state tensors have to be all arguments .*expected x, h, seen, found none"),
        (("h",), "state: the state tensors have to be all arguments"),
        (("seen", "h"), "state: .*in their order"),
    ],
)
def test_states_that_are_not_the_programs_are_refused(
    state: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    tensors = tuple(SHAPES[name] for name in state)
    with pytest.raises(ModelError, match=message):
        save_program(script(TwoStates()), tmp_path / "new", tensors, INPUTS, OUTPUTS)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("module", "shapes", "message"),
    [
        (ForgetsState(), ["h=2"], "expected 2 tensors, found 1"),
        (TwoStates(), ["h=5", "seen=int64:"], "step raised RuntimeError"),
        (Doubles(), ["h=2"], r"the state changes.*expected float32 \(2, 2\).*found float64"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_program_that_contradicts_its_description_is_refused(
    module: nn.Module, shapes: list[str], message: str, tmp_path: Path
) -> None:
    content = script(module)
    given = {tensor.name: tensor for tensor in map(read_state_shape, shapes)}
    state = choose_states(Program(content), shapes=given)
    with pytest.raises(ModelError, match=message):
        save_program(content, tmp_path / "new", state, INPUTS, OUTPUTS)
    assert not (tmp_path / "new").exists()


def test_a_program_for_one_batch_size_says_how_to_export(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 0 axes of any size; it has to take any number"):
        choose_states(Program(export(TwoStates(), *TWO)))

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + torch.ones(2, 3))[:, :2]

    with pytest.raises(ModelError, match="step.*it has to take any number of keys"):
        save_program(trace(Fixed(), torch.zeros(2, 3)), tmp_path, (), INPUTS, OUTPUTS)


def test_what_is_found_and_what_has_to_be_given_is_said() -> None:
    program = Program(script(TwoStates()))
    assert program.arguments == ["x", "h", "seen"]
    with pytest.raises(
        ModelError, match="state: .*what shape its state 'h' has; give --state-shape"
    ):
        choose_states(program)
    with pytest.raises(ModelError, match="no state 'c' .*expected some of x, h, seen"):
        choose_states(program, ["h", "c"])
    exported = Program(export(TwoStates(), *TWO, axes=(0, 0, 0)))
    assert choose_states(exported) == (SHAPES["h"], SHAPES["seen"])


@pytest.mark.parametrize("text", ["h", "=4", "h=float8:4", "h=4,a", "h=-4", "h=N,N,²"])
def test_a_shape_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="--state-shape: no shape of a state"):
        read_state_shape(text)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"neither", b"models/model.json archive_format"],
)
def test_a_file_that_is_no_program_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match="neither TorchScript|no exported program"):
        Program(content)


def test_a_pickle_is_never_opened() -> None:
    buffer = io.BytesIO()
    torch.save(Stateless(), buffer)
    with pytest.raises(ModelError, match="neither TorchScript nor an exported program"):
        Program(buffer.getvalue())


@functools.cache
def exported() -> bytes:
    return export(TwoStates(), *TWO, axes=(0, 0, 0))


def changed(change: Callable[[dict[str, Any]], Any], member: str = "models/model.json") -> bytes:
    """Write the archive of an exported program anew, with one JSON member changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(exported())) as reader, zipfile.ZipFile(buffer, "w") as writer:
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


def structure(kind: str) -> str:
    return json.dumps([1, {"type": kind, "context": "null", "children_spec": []}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            lambda: changed(lambda p: graph(p)["nodes"][0].update(target="torch.load")),
            "call of 'torch.load'",
        ),
        (
            lambda: changed(
                lambda p: graph(p)["nodes"][0].update(target="torch.ops.aten.from_file.default")
            ),
            "call of 'torch.ops.aten.from_file.default'",
        ),
        (
            lambda: changed(
                lambda p: graph(p)["inputs"][0]["as_tensor"].update(name="x=print('run')")
            ),
            "a name",
        ),
        (
            lambda: changed(
                lambda p: graph(p)["tensor_values"]["x"]["sizes"][0]["as_expr"].update(
                    expr_str="__import__('os').getcwd()"
                )
            ),
            'a size "__import__',
        ),
        (
            lambda: changed(
                lambda p: p["graph_module"]["module_call_graph"][0]["signature"].update(
                    in_spec=structure("collections.defaultdict")
                )
            ),
            "a structure 'collections.defaultdict'",
        ),
        (
            lambda: changed(
                lambda c: c["config"]["cell.weight_ih"].update(use_pickle=True),
                "model_weights_config.json",
            ),
            "use_pickle True: an object that is no tensor",
        ),
        (lambda: added("archive/data/aotinductor/model/run.so", b""), "a member .*run.so"),
        (lambda: added("archive/data/constants/opaque_obj_0", b""), "a member .*opaque_obj_0"),
    ],
)
def test_a_program_with_more_than_operators_on_tensors_is_not_opened(
    content: Callable[[], bytes], message: str
) -> None:
    with pytest.raises(ModelError, match=f"not opened: the file has .*{message}"):
        Program(content())


class Runs:
    """Says so if it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("run",)


def test_example_inputs_that_are_more_than_tensors_are_not_unpickled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pickled = io.BytesIO()
    torch.save(((Runs(),), {}), pickled)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(exported())) as reader, zipfile.ZipFile(buffer, "w") as writer:
        for name in reader.namelist():
            is_examples = name.endswith("sample_inputs/model.pt")
            writer.writestr(name, pickled.getvalue() if is_examples else reader.read(name))
    with pytest.raises(ModelError, match="no exported program: UnpicklingError"):
        Program(buffer.getvalue())
    assert capsys.readouterr().out == ""


def test_guards_of_a_program_are_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    content = changed(lambda program: program.update(guards_code=["print('run') or True"]))
    program = Program(content)
    program.module(*TWO)
    assert capsys.readouterr().out == ""
