"""A TorchScript or exported program steps without any class, if the operator allows it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from livestep import ModelError, Number, load_model, save_program
from livestep.models.foreign.program_model import PROGRAM_FILES
from livestep.models.foreign.program_reading import Program
from livestep.models.foreign.program_states import StateTensor, choose_states, read_state_shape
from tests.support.program_files import TWO, Stateless, TwoStates, export, script, trace

INPUTS, OUTPUTS = [Number("x", 3)], [Number("y", 2)]


class KeySecond(nn.Module):
    """A cell with torch's layout of states, (K, N, H); the inputs come last."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.cell(x, h[0])
        return self.head(hidden), hidden.unsqueeze(0)


class Doubles(nn.Module):
    """The state becomes float64."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :2], h.double()


class ForgetsState(Stateless):
    def forward(self, x: Tensor, h: Tensor) -> Tensor:  # type: ignore[override]
        return self.head(x) + h


SHAPES = {"h": StateTensor("h", (4,)), "seen": StateTensor("seen", (), "int64")}


@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_a_program_steps_like_the_module_that_it_was_made_from(kind: str, tmp_path: Path) -> None:
    # Given a program with two states of different shape and dtype, saved and loaded
    module = TwoStates().eval()
    if kind == "torchscript":
        content = script(module)
        state = choose_states(Program(content), ["h", "seen"], SHAPES)
    else:
        content = export(module, *TWO, axes=(0, 0, 0))
        state = choose_states(Program(content))
    save_program(content, tmp_path, state, INPUTS, OUTPUTS)
    loaded = load_model(tmp_path, allowed_packages=PROGRAM_FILES)

    # Then model.json names its kind, and it steps any batch like the module
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
def test_a_key_axis_that_is_not_the_first_is_moved(kind: str, tmp_path: Path) -> None:
    module = KeySecond().eval()
    examples = (torch.zeros(1, 2, 4), torch.zeros(2, 3))
    if kind == "torchscript":
        content = trace(module, *examples)
        state = choose_states(Program(content), ["h"], {"h": read_state_shape("h=1,N,4")})
    else:
        content = export(module, *examples, axes=(1, 0))
        state = choose_states(Program(content), ["h"])
    save_program(content, tmp_path, state, INPUTS, OUTPUTS)
    net = load_model(tmp_path, allowed_packages=PROGRAM_FILES).net
    assert [tuple(tensor.shape) for tensor in net.initial_state(5)] == [(5, 1, 4)]
    inputs = torch.randn(3, 5, 3)
    with torch.inference_mode():
        hidden, expected = torch.zeros(1, 5, 4), []
        for x in inputs:
            output, hidden = module(hidden, x)
            expected.append(output)
        torch.testing.assert_close(net.unroll(inputs), torch.stack(expected))


def test_a_program_without_state_can_be_saved_and_loaded(tmp_path: Path) -> None:
    content = script(Stateless())
    save_program(content, tmp_path, choose_states(Program(content)), INPUTS, OUTPUTS)
    assert load_model(tmp_path, allowed_packages=PROGRAM_FILES).net.initial_state(3) == ()


def test_the_fingerprint_covers_the_program(tmp_path: Path) -> None:
    content = script(Stateless())
    save_program(content, tmp_path, (), INPUTS, OUTPUTS)
    (tmp_path / "model.pt").write_bytes(script(Stateless()))
    with pytest.raises(ModelError, match=r"fingerprint: .* that of model.pt .*don't belong"):
        load_model(tmp_path, allowed_packages=PROGRAM_FILES)
    (tmp_path / "model.pt").unlink()
    with pytest.raises(ModelError, match=r"model.pt: can't be read"):
        load_model(tmp_path, allowed_packages=PROGRAM_FILES)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ((), "state: the state tensors must be all arguments .*expected x, h, seen, found none"),
        (("h",), "state: the state tensors must be all arguments"),
        (("seen", "h"), "state: .*in their order"),
    ],
)
def test_states_that_do_not_fit_the_program_are_refused(
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
        (TwoStates(), ["h=5", "seen=int64:"], "the program raised RuntimeError"),
        (
            Doubles(),
            ["h=2"],
            r"changed the layout of the state.*expected float32 \(2, 2\).*found float64",
        ),
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


def test_the_error_for_a_program_of_one_batch_size_explains_the_export(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="has 0 axes of variable size, not one; export it for any number"
    ):
        choose_states(Program(export(TwoStates(), *TWO)))

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + torch.ones(2, 3))[:, :2]

    with pytest.raises(
        ModelError,
        match="the program raised RuntimeError: The size of .*; export it for any number of keys",
    ):
        save_program(trace(Fixed(), torch.zeros(2, 3)), tmp_path, (), INPUTS, OUTPUTS)


@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_the_error_for_a_wrong_number_of_columns_states_the_right_one(
    kind: str, tmp_path: Path
) -> None:
    # Given a program of 3 columns and fields with 2; everything else is right
    module, state = TwoStates().eval(), (SHAPES["h"], SHAPES["seen"])
    content = script(module) if kind == "torchscript" else export(module, *TWO, axes=(0, 0, 0))
    message = "^inputs: wrong number of columns for 'x' of the program .expected 3 columns, found"
    with pytest.raises(ModelError, match=message):
        save_program(content, tmp_path, state, [Number("x", 2)], OUTPUTS)

    # Then a wrong state is still an error, with the right columns
    if kind == "torchscript":
        wrong = (StateTensor("h", (5,)), SHAPES["seen"])
        with pytest.raises(
            ModelError, match="program raised .*set them with --state-shape and --time-axis"
        ):
            save_program(content, tmp_path, wrong, INPUTS, OUTPUTS)
    save_program(content, tmp_path, state, INPUTS, OUTPUTS)


class AnyWidth(nn.Module):
    """Steps inputs of any width, but not three keys."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 3:
            raise ValueError("three keys")
        return x.sum(1, keepdim=True) * self.scale[:2]


def test_the_width_is_not_blamed_if_the_program_steps_with_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="three keys"):
        save_program(script(AnyWidth()), tmp_path, (), [Number("x", 4)], OUTPUTS)


def test_states_are_found_in_an_exported_program_and_must_be_given_for_torchscript() -> None:
    program = Program(script(TwoStates()))
    assert program.arguments == ["x", "h", "seen"]
    with pytest.raises(ModelError, match="state: .*the shape of its state 'h'; add --state-shape"):
        choose_states(program)
    with pytest.raises(ModelError, match="no argument 'c' .*expected some of x, h, seen"):
        choose_states(program, ["h", "c"])
    exported = Program(export(TwoStates(), *TWO, axes=(0, 0, 0)))
    assert choose_states(exported) == (SHAPES["h"], SHAPES["seen"])


@pytest.mark.parametrize("text", ["h", "=4", "h=float8:4", "h=4,a", "h=-4", "h=N,N,²"])
def test_an_invalid_state_shape_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="--state-shape: invalid shape of a state"):
        read_state_shape(text)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"neither", b"models/model.json archive_format"],
)
def test_a_file_that_is_not_a_program_is_refused(content: bytes) -> None:
    with pytest.raises(ModelError, match="neither TorchScript|invalid exported program"):
        Program(content)


def test_a_pickle_is_never_opened() -> None:
    buffer = io.BytesIO()
    torch.save(Stateless(), buffer)
    with pytest.raises(ModelError, match="neither TorchScript nor an exported program"):
        Program(buffer.getvalue())


class Writes(Stateless):
    """Writes a file as soon as it runs; for scripting only."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = str(file)

    def forward(self, x: Tensor) -> Tensor:
        shared = torch.from_file(self.file, True, 8, dtype=torch.uint8)
        shared.copy_(torch.full((8,), 65, dtype=torch.uint8))
        return self.head(x) + 0 * shared.sum()


@pytest.mark.parametrize("allowed", [(), ("exported",), ("torchscripts", "tests")])
def test_a_program_is_opened_only_if_its_kind_is_allowed(
    allowed: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a directory with a program that writes a file
    written = tmp_path / "written"
    save_program(script(Writes(written)), tmp_path / "model", (), INPUTS, OUTPUTS)
    written.unlink()

    # When it is loaded, then torch sees it, and it runs, only if its kind is allowed
    monkeypatch.setattr(torch.jit, "load", None)
    message = r"model.json: class: .*isn't allowed; .*add torchscript to --model-packages or LIV"
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "model", allowed_packages=allowed)
    monkeypatch.undo()
    assert not written.exists()
    load_model(tmp_path / "model", allowed_packages=("torchscript",))
    assert written.read_bytes() == b"A" * 8


def test_an_exported_program_is_not_opened_without_permission(tmp_path: Path) -> None:
    content = export(TwoStates(), *TWO, axes=(0, 0, 0))
    save_program(content, tmp_path, choose_states(Program(content)), INPUTS, OUTPUTS)
    (tmp_path / "model.pt2").unlink()  # livestep must not even read it
    with pytest.raises(ModelError, match="add exported to"):
        load_model(tmp_path, allowed_packages=("torchscript",))


@pytest.mark.parametrize("size", ["10000000000000", "4611686018427387904", "1" + 30 * "0"])
def test_a_state_larger_than_any_memory_is_refused(size: str, tmp_path: Path) -> None:
    content = script(TwoStates())
    shapes = {"h": read_state_shape(f"h={size}"), "seen": SHAPES["seen"]}
    state = choose_states(Program(content), shapes=shapes)
    with pytest.raises(ModelError, match="initial_state raised"):
        save_program(content, tmp_path / "new", state, INPUTS, OUTPUTS)
