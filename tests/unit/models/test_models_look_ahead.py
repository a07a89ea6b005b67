"""A net that uses later events fails the check, however it is written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from livestep import GRU, LSTM, StepModel
from livestep.models.checks.check_report import report
from livestep.models.foreign.program_model import ProgramModel
from livestep.models.foreign.program_reading import Program
from livestep.models.foreign.program_states import StateTensor
from livestep.models.foreign.user_classes import AdaptedModel
from tests.support.program_files import export, script, trace


def failures(model: StepModel) -> dict[str, str]:
    results = report(model.eval().requires_grad_(False), speed_s=0.01)
    return {one.name: one.result for one in results if one.verdict == "failed"}


def adapted(module: nn.Module) -> AdaptedModel:
    torch.manual_seed(0)
    return AdaptedModel(module, 3, 2, {})


class Bidirectional(nn.Module):
    """A GRU in both directions over (N, L, 3); step carries the state of both halves."""

    kind: type[nn.RNNBase] = nn.GRU

    def __init__(self, bidirectional: bool = True) -> None:
        super().__init__()
        halves = 2 if bidirectional else 1
        self.rnn = self.kind(3, 4, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(halves * 4, 2)
        self.halves = halves

    def initial_state(self, batch_size: int) -> Any:
        return torch.zeros(batch_size, self.halves, 4)

    def step(self, inputs: Tensor, state: Any) -> Any:
        outputs, state = self.rnn(inputs.unsqueeze(1), state.transpose(0, 1).contiguous())
        return self.head(outputs[:, 0]), state.transpose(0, 1)


class BidirectionalLstm(Bidirectional):
    kind = nn.LSTM

    def initial_state(self, batch_size: int) -> Any:
        return torch.zeros(batch_size, 2, 4), torch.zeros(batch_size, 2, 4)

    def step(self, inputs: Tensor, state: Any) -> Any:
        pair = tuple(one.transpose(0, 1).contiguous() for one in state)
        outputs, pair = self.rnn(inputs.unsqueeze(1), hx=pair)
        return self.head(outputs[:, 0]), tuple(one.transpose(0, 1) for one in pair)


class WithUnroll(Bidirectional):
    """Its own unroll shows how it was trained."""

    def unroll(self, sequence: Tensor, state: Tensor) -> Tensor:
        turned = state.transpose(0, 1).contiguous()
        outputs: Tensor = self.head(self.rnn(sequence.transpose(0, 1), turned)[0])
        return outputs.transpose(0, 1)


class WithForward(Bidirectional):
    """Trained by its forward, but steps with a separate cell."""

    def __init__(self, bidirectional: bool = True, **changes: Any) -> None:
        super().__init__(bidirectional)
        self.cell = nn.GRUCell(3, self.halves * 4)

    def initial_state(self, batch_size: int) -> Any:
        return torch.zeros(batch_size, self.halves * 4)

    def step(self, inputs: Tensor, state: Any) -> Any:
        state = self.cell(inputs, state)
        return self.head(state), state

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.rnn(x)[0])
        return outputs


class Centred(WithForward):
    """A convolution that sees one timestep back and one ahead."""

    def __init__(self) -> None:
        super().__init__(bidirectional=False)
        self.convolution = nn.Conv1d(3, 2, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.convolution(x.transpose(1, 2)).transpose(1, 2)
        return outputs


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (Bidirectional(), "'rnn', a GRU, is bidirectional and continues from the state"),
        (BidirectionalLstm(), "'rnn', a LSTM, is bidirectional"),
        (WithUnroll(), "is bidirectional"),
        (WithForward(), "forward: outputs before index 3 of axis 1, when only later inputs change"),
        (Centred(), "when only later inputs change, differ by"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_net_that_looks_ahead_is_found(module: nn.Module, found: str) -> None:
    assert found in failures(adapted(module))["no look-ahead"]


def test_an_unroll_that_looks_ahead_is_found_by_its_outputs() -> None:
    class Averages(GRU):
        """Unroll subtracts the mean along time, as a norm over the sequence does."""

        def unroll(self, sequence: Tensor, prev_state: Any = None) -> Tensor:
            return super().unroll(sequence - sequence.mean(dim=0, keepdim=True), prev_state)

    found = failures(Averages(3, 4, 2))["no look-ahead"]
    assert found.startswith("unroll: outputs before timestep 1, when only later inputs change")


def test_the_advice_never_hides_a_difference_between_unroll_and_step() -> None:
    rows = {row.name: row for row in report(adapted(WithUnroll()).eval(), speed_s=0.01)}
    for name in ("step equals unroll", "no look-ahead"):
        assert rows[name].verdict != "ok"
        assert "remove unroll" not in rows[name].advice
    assert "without bidirectional=True" in rows["no look-ahead"].advice


class ReadsAWord(nn.Module):
    """Reads three letters of one event in both directions, and steps along the events."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.GRU(1, 4, batch_first=True, bidirectional=True)
        self.cell = nn.GRUCell(8, 4)
        self.head = nn.Linear(4, 2)

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 4)

    def step(self, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        begin = inputs.new_zeros(2, inputs.shape[0], 4)
        both = self.letters(inputs.unsqueeze(2), begin)[1]  # (2, N, 4)
        state = self.cell(both.transpose(0, 1).flatten(1), state)
        return self.head(state), state


class TimeFirst(WithForward):
    """Its forward accepts (L, N, 3) and also returns its state."""

    def forward(self, x: Tensor) -> Any:
        outputs, state = self.rnn(x.transpose(0, 1))
        return self.head(outputs).transpose(0, 1), state


class DrawsInForward(WithForward):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.randn_like(x))


class OtherForward(WithForward):
    """Its forward accepts something else."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        raise AssertionError("is not called with a sequence alone")


@pytest.mark.parametrize(
    "module",
    [
        Bidirectional(bidirectional=False),
        WithForward(bidirectional=False),
        TimeFirst(bidirectional=False),
        DrawsInForward(bidirectional=False),
        OtherForward(bidirectional=False),
        ReadsAWord(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_net_that_sees_only_the_past_passes(module: nn.Module) -> None:
    assert failures(adapted(module)) == {}


def test_the_cells_of_livestep_see_only_the_past() -> None:
    for model in (GRU(3, 4, 2), LSTM(3, 4, 2, num_layers=2)):
        assert failures(model) == {}


class Steps(nn.Module):
    """A bidirectional GRU as a program: its state is (2, N, 4)."""

    def __init__(self, bidirectional: bool = True) -> None:
        super().__init__()
        halves = 2 if bidirectional else 1
        self.rnn = nn.GRU(3, 4, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(halves * 4, 2)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        outputs, h = self.rnn(x.unsqueeze(1), h)
        return self.head(outputs[:, 0]), h


class WordSteps(ReadsAWord):
    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.step(x, h)


def program(content: bytes, halves: int, axis: int = 1) -> ProgramModel:
    shape = (halves, 4) if axis else (4,)
    state = (StateTensor("h", shape, axis=axis),)
    return ProgramModel(Program(content), state, 3, 2, torch.device("cpu"))


@pytest.mark.parametrize("kind", ["script", "trace", "export"])
def test_a_program_with_a_bidirectional_rnn_is_found(kind: str) -> None:
    for halves in (2, 1):
        module = Steps(bidirectional=halves == 2).eval()
        examples = (torch.zeros(2, 3), torch.zeros(halves, 2, 4))
        if kind == "script":
            content = script(module)
        elif kind == "trace":
            content = trace(module, *examples)
        else:
            content = export(module, *examples, axes=(0, 1))
        found = failures(program(content, halves))
        if halves == 1:
            assert found == {}
        else:
            assert "gru" in found["no look-ahead"]
            assert "is bidirectional and continues from the state" in found["no look-ahead"]


@pytest.mark.parametrize("kind", ["script", "export"])
def test_a_program_that_reads_within_an_event_in_both_directions_passes(kind: str) -> None:
    module = WordSteps().eval()
    examples = (torch.zeros(2, 3), torch.zeros(2, 4))
    content = script(module) if kind == "script" else export(module, *examples, axes=(0, 0))
    assert failures(program(content, 0, axis=0)) == {}
