"""Each check fails a model that is wrong on purpose, and passes correct ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from livestep import (
    GRU,
    Category,
    EncoderDecoder,
    FullyConnected,
    ModelError,
    Number,
    StepModel,
    Text,
    check_model,
)
from livestep.models.checks.agreement import TOLERANCE, check_close, tolerance_of
from livestep.models.checks.check_list import CHECKS
from livestep.models.checks.check_report import SPEED_BATCH_SIZES, measure_step_s, report
from livestep.models.checks.contract_checks import check_keys_dont_mix
from livestep.models.checks.random_events import random_rows
from livestep.models.foreign.user_classes import AdaptedModel
from tests.support import user_models
from tests.support.user_models import Letters, Plain, Sum, Window


def adapted(module: nn.Module, input_size: int = 1, output_size: int = 1) -> AdaptedModel:
    net = AdaptedModel(module, input_size, output_size, {})
    net.eval().requires_grad_(False)
    return net


def failures(model: StepModel) -> dict[str, str]:
    rows = report(model, speed_s=0.01)
    return {row.name: row.result for row in rows if row.verdict == "failed"}


@pytest.mark.parametrize(
    "model",
    [
        adapted(Sum()),
        adapted(user_models.FastSum()),
        adapted(user_models.Empty()),
        adapted(user_models.Turns()),
        adapted(Plain(), 2),
        adapted(Window(2), 2, 2),
        adapted(Window(2).half(), 2, 2),
        adapted(Sum().bfloat16()),
        adapted(Sum().double()),
        FullyConnected(3, 4, 2),
        EncoderDecoder(2, 1, 4, 2),
        GRU(3, 4, 2, num_layers=2),
    ],
    ids=lambda model: type(getattr(model, "module", model)).__name__,
)
def test_correct_models_with_any_kind_of_state_pass(model: StepModel) -> None:
    model.requires_grad_(False)
    check_model(model)
    assert failures(model) == {}


def test_a_model_of_indices_is_checked_with_events_of_its_fields() -> None:
    fields = [
        Category("kind", ("a", "b"), optional=True, encoding="index"),
        Text("word", "xyz", 2),
    ]
    net = AdaptedModel(Letters(), 3, 4, {}, is_casting=False)
    check_model(net, inputs=fields)
    assert all(result.verdict == "ok" for result in report(net, fields, speed_s=0.01))
    with pytest.raises(
        ModelError, match="step raised IndexError"
    ):  # random numbers are not indices
        check_model(net)


def test_random_rows_look_like_encoded_events() -> None:
    fields = [
        Number("n", 2),
        Category("one", ("a", "b", "c")),
        Category("index", ("a", "b"), optional=True, encoding="index"),
        Text("word", "xyz", 3),
    ]
    rows = random_rows(FullyConnected(9, 2, 1), 500, torch.Generator().manual_seed(0), fields)
    one_hot, index, word = rows[:, 2:5], rows[:, 5], rows[:, 6:]
    assert (one_hot.sum(dim=1) == 1).all()
    assert set(index.tolist()) == {-1, 0, 1}
    assert set(word.flatten().tolist()) == {-1, 0, 1, 2}
    has_ended = (word == -1).long()
    assert (has_ended.diff(dim=1) >= 0).all()  # nothing follows an end


class NoneIsOnes(GRU):
    """Starts from ones if it gets no state."""

    def step(self, inputs: Tensor, prev_state: Any = None) -> Any:
        state = self.initial_state(len(inputs)) + 1 if prev_state is None else prev_state
        return super().step(inputs, state)


class NotAlike(GRU):
    """New keys start from different states."""

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.arange(batch_size).reshape(-1, 1, 1).expand(-1, 1, 4) / 100.0


class LooksAhead(GRU):
    """Subtracts the mean along time, as a norm over a whole sequence does."""

    def unroll(self, sequence: Tensor, prev_state: Any = None) -> Tensor:
        return super().unroll(sequence - sequence.mean(dim=0, keepdim=True), prev_state)


@pytest.mark.parametrize(
    ("model", "check", "found"),
    [
        (
            adapted(user_models.WrongUnroll()),
            "step equals unroll",
            "step and unroll differ by",
        ),
        (LooksAhead(1, 4, 1), "no look-ahead", "before timestep 1, when only later inputs change"),
        (
            adapted(user_models.WrongEqualPacked()),
            "sequences can be split",
            "cut at timestep 1 and of whole ones differ by",
        ),
        (
            adapted(user_models.WrongPacked()),
            "packed equals unroll",
            "step_packed and of single steps differ",
        ),
        (adapted(user_models.RowsMix()), "keys don't mix", "alone and in the batch"),
        (adapted(user_models.RowsInOrder()), "keys don't mix", "differ by"),
        (adapted(user_models.RowsMixSlightly()), "bit for bit", "with the other keys of its batch"),
        (adapted(user_models.Writes()), "state is not modified", "a method modified prev_state"),
        (adapted(user_models.Remembers()), "step is repeatable", "returned a different result"),
        (
            adapted(user_models.Recognizes()),
            "state survives saving",
            "keeps something outside its state",
        ),
        (adapted(user_models.Explodes()), "outputs are finite", "not finite at timestep 0"),
        (NoneIsOnes(1, 4, 1), "None means initial_state", "from None and from initial_state"),
        (NotAlike(1, 4, 1), "state is stable", "initial_state: new keys differ"),
    ],
    ids=lambda value: str(value).partition("(")[0][:30],
)
def test_a_wrong_model_fails_its_check(model: StepModel, check: str, found: str) -> None:
    model.requires_grad_(False)
    assert found in failures(model)[check]
    with pytest.raises(AssertionError):
        check_model(model)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("WrongUnroll", "step equals unroll"),
        ("WrongPacked", "packed equals unroll"),
        ("WrongEqualPacked", "sequences can be split"),
        ("RowsMix", "keys don't mix"),
        ("RowsInOrder", "keys don't mix"),
        ("RowsMixSlightly", "bit for bit"),
        ("Writes", "state is not modified"),
        ("Remembers", "step is repeatable"),
        ("Recognizes", "state survives saving"),
        ("Explodes", "outputs are finite"),
    ],
)
def test_one_defect_is_one_failure_and_skips_the_checks_that_build_on_it(
    name: str, cause: str
) -> None:
    rows = list(report(adapted(getattr(user_models, name)()), speed_s=0.01))
    assert [row.name for row in rows if row.verdict == "failed"] == [cause]
    place = [row.name for row in rows].index(cause)
    assert all(row.verdict == "ok" for row in rows[:place])
    unchecked = {row.name: row for row in rows if row.verdict == "not checked"}
    assert set(unchecked) == {check.name for check in CHECKS if cause in check.needs}
    for row in unchecked.values():
        assert (row.result, row.advice) == (f"not checked because {cause!r} failed", "")


def test_a_state_that_is_not_stable_leaves_nothing_else_to_check() -> None:
    rows = list(report(NotAlike(1, 4, 1).requires_grad_(False), speed_s=0.01))
    assert [row.verdict for row in rows] == ["failed"] + ["not checked"] * (len(rows) - 1)


def test_every_check_comes_after_those_that_it_needs() -> None:
    seen: set[str] = set()
    for check in CHECKS:
        assert seen.issuperset(check.needs)
        seen.add(check.name)


class OtherAt(GRU):
    """Uses row indices, in batches of some sizes only."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__(1, 4, 1)
        self.low, self.high = low, high

    def step(self, inputs: Tensor, prev_state: Any = None) -> Any:
        if self.low <= len(inputs) <= self.high:
            inputs = inputs + torch.arange(len(inputs)).unsqueeze(1)
        return super().step(inputs, prev_state)


@pytest.mark.parametrize(
    ("low", "high", "how"),
    [(2, 99, "alone and in the batch"), (7, 7, "alone"), (8, 99, "with and without more keys")],
)
def test_keys_are_tried_alone_and_among_more(low: int, high: int, how: str) -> None:
    model = OtherAt(low, high).requires_grad_(False)
    assert how in failures(model)["keys don't mix"]


def test_keys_are_tried_in_another_order() -> None:
    class Swaps(GRU):
        """Adds one if its rows fall: rising rows don't show it."""

        def step(self, inputs: Tensor, prev_state: Any = None) -> Any:
            if len(inputs) > 1 and inputs[0] > inputs[-1]:
                inputs = inputs + 1
            return super().step(inputs, prev_state)

    model = Swaps(1, 4, 1).requires_grad_(False)
    sequence = torch.tensor([[[0.0], [1.0]]])  # (L, N, H_in), rising
    others = torch.zeros(1, 1, 1)
    with torch.inference_mode():
        start = model.initial_state(2)
        with pytest.raises(AssertionError, match="in another order"):
            check_keys_dont_mix(model, sequence, start, others)


def test_no_keys_have_no_state_rows() -> None:
    class AtLeastOne(GRU):
        def initial_state(self, batch_size: int) -> Tensor:
            return super().initial_state(max(1, batch_size))

    model = AtLeastOne(1, 4, 1).requires_grad_(False)
    assert failures(model)["state is stable"] == "initial_state(0) has rows"


def test_a_state_that_changes_its_dtype_is_found_in_a_step_model_too() -> None:
    class Doubles(GRU):
        def step(self, inputs: Tensor, prev_state: Any = None) -> Any:
            known = None if prev_state is None else prev_state.float()
            output, state = super().step(inputs, known)
            return output, state.double() if prev_state is None else state.to(torch.float16)

    found = failures(Doubles(1, 4, 1).requires_grad_(False))
    assert "to torch.float16" in found["state is stable"]


@pytest.mark.parametrize(
    "name", ["Grows", "ChangesDtype", "NotAPair", "KeyLast", "Breaks", "Exits"]
)
def test_a_model_that_cannot_step_is_one_row_of_the_table(name: str) -> None:
    rows = list(report(adapted(getattr(user_models, name)()), speed_s=0.01))
    assert [(row.name, row.verdict) for row in rows] == [("model steps", "failed")]


def test_the_advice_names_inputs_of_the_wrong_width() -> None:
    net = AdaptedModel(user_models.Window(3), 2, 2, {})
    (row,) = report(net, speed_s=0.01)
    assert row.advice == "its input_size is 3, but the inputs have 2 columns: make the two equal"


def test_the_report_shows_what_was_measured_and_how_to_fix_it() -> None:
    rows = {row.name: row for row in report(adapted(user_models.RowsMix()), speed_s=0.01)}
    assert rows["keys don't mix"].advice.startswith("axis 0 is the key: use no mean, norm or sum")
    assert rows["state is not modified"] == ("state is not modified", "ok", "yes", "")
    assert rows["step equals unroll"].result in ("exactly", "within 6e-08 (limit 1e-05)")
    for batch_size in SPEED_BATCH_SIZES:
        assert "events/s" in rows[f"speed at {batch_size:,}"].result


def test_every_check_has_a_model_that_fails_it() -> None:
    names = {check.name for check in CHECKS}
    marks = test_a_wrong_model_fails_its_check.pytestmark  # type: ignore[attr-defined]
    assert names == {arguments[1] for arguments in marks[0].args[1]}


def test_integers_must_be_equal_and_floats_within_the_tolerance() -> None:
    with pytest.raises(AssertionError, match=r"counts differ by 1 \(limit 0\)"):
        check_close(torch.tensor([1]), torch.tensor([2]), "counts", limit=5.0)
    with pytest.raises(AssertionError, match="dtypes differ"):
        check_close(torch.tensor([1]), torch.tensor([1.0]), "counts")
    with pytest.raises(AssertionError, match="differ by nan"):
        check_close(torch.tensor([float("nan")]), torch.tensor([1.0]), "outputs")
    large = torch.tensor([1e6])
    agreement = check_close(large, large + 1, "large values")
    assert agreement == (1.0, pytest.approx(10.0, rel=1e-5))
    with pytest.raises(AssertionError):
        check_close(torch.tensor([1.0]), torch.tensor([1.0001]), "small values")


def test_the_report_shows_the_limit_that_was_applied() -> None:
    class Large(GRU):
        """Outputs around 10,000; unroll is off by less than their tolerance."""

        def step(self, inputs: Tensor, prev_state: Any = None) -> Any:
            output, state = super().step(inputs, prev_state)
            return 1e4 + output, state

        def unroll(self, sequence: Tensor, prev_state: Any = None) -> Tensor:
            return 1e4 + 0.02 + super().unroll(sequence, prev_state)

    torch.manual_seed(0)
    rows = {row.name: row for row in report(Large(1, 4, 1).requires_grad_(False), speed_s=0.01)}
    assert rows["step equals unroll"].result == "within 0.02 (limit 0.1)"


def test_the_pair_closest_to_its_limit_is_shown() -> None:
    large, small = torch.tensor([1e4]), torch.tensor([0.5])
    found = check_close((large + 0.01, small + 9e-6), (large, small), "two tensors")
    assert found.allowed == 1e-5 and found.difference == pytest.approx(9e-6, rel=1e-2)


def test_the_tolerance_is_that_of_the_coarsest_dtype() -> None:
    assert tolerance_of(adapted(Sum().half())) == TOLERANCE[torch.float16]
    assert tolerance_of(adapted(Window(1), 1, 2)) == TOLERANCE[torch.float32]


def test_speed_is_measured_in_seconds_per_step() -> None:
    assert 0 < measure_step_s(adapted(Sum()), 4, speed_s=0.01) < 0.2
