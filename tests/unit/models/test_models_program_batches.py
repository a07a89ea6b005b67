"""A program that accepts only some numbers of keys steps any number, in pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from livestep import (
    Category,
    Feedback,
    Generation,
    LoadedModel,
    ModelError,
    Number,
    SequenceRules,
    check_model,
    load_model,
    predict_in_memory,
    save_program,
)
from livestep.models.foreign.program_batches import BatchSizes
from livestep.models.foreign.program_reading import Program
from livestep.models.foreign.program_states import choose_states
from tests.support.program_files import TwoStates, export

INPUTS, OUTPUTS = [Number("x", 3)], [Number("y", 2)]
Dim = torch.export.Dim


def examples(count: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.zeros(count, 3),
        torch.zeros(count, 4),
        torch.zeros(count, dtype=torch.int64),
    )


class FewerThanNine(TwoStates):
    """Refuses more, so that torch finds a limit itself."""

    def forward(self, x: Tensor, h: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.shape[0] < 9:
            return super().forward(x, h, seen)
        raise ValueError(x.shape[0])


def saved(
    directory: Path, count: Any, module: TwoStates | None = None, **options: Any
) -> LoadedModel:
    content = export((module or TwoStates()).eval(), *examples(4), axes=(0, 0, 0), count=count)
    fields = {"inputs": INPUTS, "outputs": OUTPUTS} | options
    save_program(content, directory, choose_states(Program(content)), **fields)
    return load_model(directory, allowed_packages=["exported"])


RANGES: list[tuple[Callable[[], Any], type[TwoStates], str]] = [
    (lambda: Dim("N", max=8), TwoStates, "at most 8"),
    (lambda: Dim("N", min=3, max=8), TwoStates, "at least 3, at most 8"),
    (lambda: Dim("N", min=3), TwoStates, "at least 3"),
    (lambda: 2 * Dim("half", max=4), TwoStates, "at least 4, at most 8, in steps of 2"),
    (lambda: Dim("less", max=7) + 1, TwoStates, "at least 3, at most 8"),
    (lambda: Dim.AUTO, FewerThanNine, "at least 2, at most 8"),
]


@pytest.mark.parametrize(("count", "module", "words"), RANGES, ids=[one[2] for one in RANGES])
def test_batches_beyond_a_limit_are_stepped_in_pieces(
    count: Callable[[], Any], module: type[TwoStates], words: str, tmp_path: Path
) -> None:
    # Given a program that accepts only some numbers of keys, saved and loaded
    net = saved(tmp_path, count(), module()).net
    assert str(net.batch_sizes) == words

    # Then any number of keys steps like the module without a limit
    whole = TwoStates().eval()
    for batch_size in (0, 1, 2, 3, 4, 7, 8, 9, 10, 16, 17, 1000):
        inputs = torch.randn(3, batch_size, 3)
        with torch.inference_mode():
            state = net.initial_state(batch_size)
            _, h, seen = examples(batch_size)
            for x in inputs:
                outputs, state = net.step(x, state)
                expected, h, seen = whole(x, h, seen)
                assert outputs.shape == expected.shape
                torch.testing.assert_close(outputs, expected)
            torch.testing.assert_close(state, (h, seen))
    check_model(net)


def test_a_program_without_a_limit_is_called_once(tmp_path: Path) -> None:
    net = saved(tmp_path, Dim("N")).net
    assert str(net.batch_sizes) == ""
    assert all(count in net.batch_sizes for count in (0, 1, 10**6))


def test_a_key_axis_in_the_middle_can_have_a_limit(tmp_path: Path) -> None:
    class KeySecond(TwoStates):
        def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            hidden = self.cell(x, h[0])
            return self.head(hidden), hidden.unsqueeze(0)

    module = KeySecond().eval()
    first = (torch.zeros(2, 3), torch.zeros(1, 2, 4))
    content = export(module, *first, axes=(0, 1), count=Dim("N", max=8))
    save_program(content, tmp_path, choose_states(Program(content)), INPUTS, OUTPUTS)
    net = load_model(tmp_path, allowed_packages=["exported"]).net
    inputs = torch.randn(21, 3)
    with torch.inference_mode():
        expected, hidden = module(inputs, torch.zeros(1, 21, 4))
        outputs, state = net.step(inputs)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(state, (hidden.movedim(1, 0),))


def test_a_worker_steps_and_generates_for_more_keys_than_one_call_accepts(tmp_path: Path) -> None:
    # Given programs with a limit of 8, one of which generates from its own output
    labels = ("a", "b")
    rules = SequenceRules(
        shape="one-to-many", feedback=(Feedback("y", "was"),), generation=Generation(steps_max=3)
    )
    fields = [Number("x"), Category("was", labels, optional=True)]
    models = [
        saved(tmp_path / "plain", Dim("N", max=8)),
        saved(
            tmp_path / "generating",
            Dim("N", max=8),
            inputs=fields,
            outputs=[Category("y", labels)],
            rules=rules,
        ),
    ]
    for model, value in zip(models, ([0.5, -1.0, 2.0], 0.5), strict=True):
        events = [(f"key-{index}", {"x": value}) for index in range(100)]

        # When a batch of 100 keys comes, then each has its answers
        predictions = predict_in_memory(model, events, batch_events_max=100)
        expected = [answer["value"] for answer in model.answer_events([events[0][1]])]
        for key, _ in events:
            live = [one.value for one in predictions if one.key == key]
            assert len(live) == len(expected)
            for one, other in zip(live, expected, strict=True):
                assert one.keys() == other.keys()
                assert str(one)[:12] == str(other)[:12]


def test_ranges_without_a_common_number_of_keys_are_refused() -> None:
    with pytest.raises(
        ModelError, match="no number of keys fits all arguments .*found 2 to 4 and 6 to 9"
    ):
        BatchSizes([range(2, 5), range(6, 10)])
    with pytest.raises(ModelError, match="no number of keys fits all arguments"):
        BatchSizes([range(0, 100, 2), range(1, 100, 2)])
    sizes = BatchSizes([range(0, 100, 2), range(0, 50, 3)])
    assert (sizes.least, sizes.most, sizes.at_least(7), sizes.at_least(48)) == (0, 48, 12, 48)
