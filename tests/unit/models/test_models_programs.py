"""A TorchScript or exported program is stepped without any class, if the operator allows it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models import ModelError, Number, check_model, load_model, save_program
from models.description import decode_description
from models.file_kinds import program_kind
from models.program_reading import Program
from models.program_states import StateTensor, choose_states, find_time_axis, read_state_shape
from models.programs import PROGRAM_FILES
from models.weights import fingerprint_of
from tests.programs import TWO, TwoStates, export, script, trace

INPUTS, OUTPUTS = [Number("x", 3)], [Number("y", 2)]


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
    loaded = load_model(tmp_path, allowed_packages=PROGRAM_FILES)

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
    net = load_model(tmp_path, allowed_packages=PROGRAM_FILES).net
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
        (TwoStates(), ["h=5", "seen=int64:"], "the program raised RuntimeError"),
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

    with pytest.raises(
        ModelError,
        match="the program raised RuntimeError: The size of .*; it has to take any number of keys",
    ):
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


class Pair(nn.Module):
    """An LSTM over (N, 1, 3), with torch's pair of states in a tuple, and a rate."""

    def __init__(self, time_first: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.LSTM(3, 4, batch_first=not time_first)
        self.head = nn.Linear(4, 2)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor], rate: int = 2
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs, state = self.rnn(x, state)
        return self.head(outputs) * rate, state


class ScriptedPair(Pair):
    """The same, with the kinds as TorchScript reads them."""

    def forward(  # type: ignore[override]
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None, rate: int = 2
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        outputs, following = self.rnn(x, state)
        return self.head(outputs) * rate, following


def exported_pair(time_first: bool) -> bytes:
    count = torch.export.Dim("N")
    x = torch.zeros((1, 2, 3) if time_first else (2, 1, 3))
    pair = (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
    shapes = ({1 if time_first else 0: count}, ({1: count}, {1: count}), None)
    return export(Pair(time_first).eval(), x, pair, 5, shapes=shapes)


@pytest.mark.parametrize("time_first", [False, True], ids=["(N, 1, F)", "(1, N, F)"])
@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_a_pair_of_states_and_an_axis_of_time_are_taken(
    kind: str, time_first: bool, tmp_path: Path
) -> None:
    # Given an LSTM as torch has it: states (1, N, 4) in a tuple, an axis of time, a number
    if kind == "torchscript":
        content, rate = script(ScriptedPair(time_first).eval()), 2
        shapes = {name: read_state_shape(f"{name}=1,N,4") for name in ("state_0", "state_1")}
        state = choose_states(Program(content), shapes=shapes)
    else:
        content, rate = exported_pair(time_first), 5
        state = choose_states(Program(content))
    program = Program(content)
    assert program.arguments == ["x", "state_0", "state_1"]
    assert program.constants == {"rate": rate}

    # When it is saved and loaded
    axis = (0 if time_first else 1) if kind == "torchscript" else None
    save_program(content, tmp_path, state, INPUTS, OUTPUTS, time_axis=axis)
    net = load_model(tmp_path, allowed_packages=PROGRAM_FILES).net

    # Then it steps as the module does, for any number of keys
    module = Pair(time_first).eval()
    for count in (1, 2, 7):
        inputs = torch.randn(4, count, 3)
        with torch.inference_mode():
            pair = (torch.zeros(1, count, 4), torch.zeros(1, count, 4))
            whole = inputs if time_first else inputs.transpose(0, 1)
            expected = module(whole, pair, rate)[0]
            expected = expected if time_first else expected.transpose(0, 1)
            torch.testing.assert_close(net.unroll(inputs), expected)
    check_model(net)


class Adds(nn.Module):
    """Which takes sequences of any length."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :, :2] + h.unsqueeze(1), h + x.sum(dim=1)[:, :2]


def test_an_axis_of_time_is_found_by_its_length_or_by_the_keys_of_the_state() -> None:
    without_state = Program(export(Stateless(), torch.zeros(2, 1, 3), axes=(0,)))
    assert find_time_axis(without_state, choose_states(without_state)) == 1
    count, time = torch.export.Dim("N"), torch.export.Dim("L")
    examples = (torch.zeros(2, 4, 3), torch.zeros(2, 2))
    any_length = Program(export(Adds(), *examples, shapes=({0: count, 1: time}, {0: count})))
    assert find_time_axis(any_length, choose_states(any_length)) == 1


@pytest.mark.parametrize(
    ("shape", "axes", "found"),
    [((2, 5, 3), (0,), r"\(s\d+, 5, 3\)"), ((2, 1, 1, 3), (0,), r"\(s\d+, 1, 1, 3\)")],
)
def test_inputs_of_another_shape_are_named_at_import(
    shape: tuple[int, ...], axes: tuple[int, ...], found: str, tmp_path: Path
) -> None:
    content = export(Stateless(), torch.zeros(shape), axes=axes)
    message = f"inputs 'x' of the program have a shape .*expected .N, columns.*found {found}"
    with pytest.raises(ModelError, match=message):
        save_program(content, tmp_path / "new", (), INPUTS, OUTPUTS)


def test_a_time_axis_that_was_not_given_is_an_error_with_the_shapes_and_without_a_trace(
    tmp_path: Path,
) -> None:
    content = script(ScriptedPair().eval())
    shapes = {name: read_state_shape(f"{name}=1,N,4") for name in ("state_0", "state_1")}
    state = choose_states(Program(content), shapes=shapes)
    with pytest.raises(ModelError) as caught:
        save_program(content, tmp_path / "new", state, INPUTS, OUTPUTS)
    text = str(caught.value)
    assert "called with x (2, 3), state_0 (1, 2, 4), state_1 (1, 2, 4)" in text
    assert "--time-axis" in text and "\n" not in text and "Traceback" not in text


class NeedsARate(nn.Module):
    def forward(self, x: Tensor, sr: int, h: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :2] / sr, h


class TakesAList(nn.Module):
    def forward(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, Tensor]:
        return x[:, :2], states[0]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (NeedsARate(), "argument 'sr' of the program is of type int, .*sr=..."),
        (TakesAList(), r"argument 'states' of the program is of type List\[Tensor\]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_argument_that_is_no_tensor_is_named(module: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Program(script(module))


class SetsAttribute(nn.Module):
    """Which keeps its state as silero does: in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 2)
        self._state = torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        if self._state.shape[0] != x.shape[0]:
            self._state = torch.zeros(x.shape[0], 2)
        self._state = self.cell(x, self._state)
        return self._state


class WritesBuffer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(1)
        return x[:, :2] + self.seen


class WritesInsideAList(nn.Module):
    """Whose state is neither an attribute that is set nor a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = [torch.zeros(1, 2)]

    def forward(self, x: Tensor) -> Tensor:
        self.kept[0].add_(1)
        return x[:, :2] + self.kept[0]


class Draws(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2] + torch.rand(x.shape[0], 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: script(SetsAttribute()), "keeps state inside: its forward sets '_state'; its st"),
        (lambda: script(WritesBuffer()), "keeps state inside: its forward writes to 'seen'"),
        (lambda: export(WritesBuffer(), torch.zeros(2, 3), axes=(0,)), "writes to 'seen'"),
        (lambda: script(WritesInsideAList()), "something else .* the second time"),
        (lambda: script(Draws()), "something else .* or draws random numbers"),
        (lambda: export(Draws(), torch.zeros(2, 3), axes=(0,)), "or draws random numbers"),
    ],
    ids=["attribute", "buffer", "exported buffer", "list", "random", "exported random"],
)
def test_a_program_that_keeps_state_inside_is_refused_at_import_and_when_loaded(
    content: Callable[[], bytes], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        save_program(content(), tmp_path / "new", (), INPUTS, OUTPUTS)
    assert not (tmp_path / "new").exists()

    # And so if it was imported before it was looked for
    good = script(Stateless())
    save_program(good, tmp_path / "old", (), INPUTS, OUTPUTS)
    kind = program_kind(content())
    file = tmp_path / "old" / PROGRAM_FILES[kind]
    file.write_bytes(content())
    description = json.loads((tmp_path / "old" / "model.json").read_text()) | {"class": kind}
    description["fingerprint"] = fingerprint_of(
        decode_description(json.dumps(description).encode(), None),
        {file.name: torch.frombuffer(bytearray(content()), dtype=torch.uint8)},
    )
    (tmp_path / "old" / "model.json").write_text(json.dumps(description))
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "old", allowed_packages=PROGRAM_FILES)


class Writes(Stateless):
    """Which writes a file as soon as it runs; it is scripted only."""

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

    # When it is loaded, then torch sees it, and it writes, only if its kind is allowed
    monkeypatch.setattr(torch.jit, "load", None)
    message = r"model.json: class: .*isn't allowed; .*give --model-packages or LIVESTEP_.* with tor"
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "model", allowed_packages=allowed)
    monkeypatch.undo()
    assert not written.exists()
    load_model(tmp_path / "model", allowed_packages=("torchscript",))
    assert written.read_bytes() == b"A" * 8


def test_an_exported_program_is_not_opened_without_permission(tmp_path: Path) -> None:
    content = export(TwoStates(), *TWO, axes=(0, 0, 0))
    save_program(content, tmp_path, choose_states(Program(content)), INPUTS, OUTPUTS)
    (tmp_path / "model.pt2").unlink()  # nothing of it is looked at
    with pytest.raises(ModelError, match="with exported"):
        load_model(tmp_path, allowed_packages=("torchscript",))


@pytest.mark.parametrize("size", ["10000000000000", "4611686018427387904", "1" + 30 * "0"])
def test_a_state_that_no_memory_holds_is_refused(size: str, tmp_path: Path) -> None:
    content = script(TwoStates())
    shapes = {"h": read_state_shape(f"h={size}"), "seen": SHAPES["seen"]}
    state = choose_states(Program(content), shapes=shapes)
    with pytest.raises(ModelError, match="initial_state raised"):
        save_program(content, tmp_path / "new", state, INPUTS, OUTPUTS)
