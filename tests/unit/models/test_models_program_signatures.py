"""What programs may have: tuples, a time axis, constants, but no state inside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from livestep import ModelError, Number, check_model, load_model, save_program
from livestep.models.disk.fingerprint import fingerprint_of
from livestep.models.disk.model_json import decode_description
from livestep.models.foreign.file_kinds import program_kind
from livestep.models.foreign.program_model import PROGRAM_FILES
from livestep.models.foreign.program_reading import Program
from livestep.models.foreign.program_states import choose_states, find_time_axis, read_state_shape
from tests.support.program_files import Stateless, export, script

INPUTS, OUTPUTS = [Number("x", 3)], [Number("y", 2)]


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
    """The same, with types that TorchScript understands."""

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
def test_a_pair_of_states_and_a_time_axis_are_accepted(
    kind: str, time_first: bool, tmp_path: Path
) -> None:
    # Given torch's LSTM: states (1, N, 4) in a tuple, a time axis, a number
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

    # Then it steps like the module, for any number of keys
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
    """Accepts sequences of any length."""

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :, :2] + h.unsqueeze(1), h + x.sum(dim=1)[:, :2]


def test_the_time_axis_is_found_from_its_length_or_from_the_key_axis_of_the_state() -> None:
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
def test_inputs_of_an_unsupported_shape_are_named_at_import(
    shape: tuple[int, ...], axes: tuple[int, ...], found: str, tmp_path: Path
) -> None:
    content = export(Stateless(), torch.zeros(shape), axes=axes)
    message = (
        f"the shape of inputs 'x' of the program does not fit .*expected .N, columns.*found {found}"
    )
    with pytest.raises(ModelError, match=message):
        save_program(content, tmp_path / "new", (), INPUTS, OUTPUTS)


def test_the_error_for_a_missing_time_axis_has_the_shapes_and_no_traceback(
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
        (NeedsARate(), "argument 'sr' of the program has type int, .*sr=..."),
        (TakesAList(), r"argument 'states' of the program has type List\[Tensor\]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_argument_that_is_not_a_tensor_is_named(module: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Program(script(module))


class SetsAttribute(nn.Module):
    """Keeps its state in an attribute, like silero."""

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
    """The state is neither a buffer nor an attribute that is set."""

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
        (
            lambda: script(SetsAttribute()),
            "keeps state inside: its forward sets '_state'; make its st",
        ),
        (lambda: script(WritesBuffer()), "keeps state inside: its forward writes to 'seen'"),
        (lambda: export(WritesBuffer(), torch.zeros(2, 3), axes=(0,)), "writes to 'seen'"),
        (lambda: script(WritesInsideAList()), "a different result for the same inputs and states"),
        (lambda: script(Draws()), "a different result .* or draws random numbers"),
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

    # And so if an older version imported it
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
