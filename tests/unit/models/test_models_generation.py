"""A generated sequence ends with its stop label, or at its limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from livestep import Category, LoadedModel, Number, SequenceRules
from livestep.models.contract import State
from livestep.models.sequences.generation import Generated, choose_labels, find_stop, generate
from livestep.models.sequences.rules import TEMPERATURE_MIN, Feedback, Generation
from tests.support.small_nets import (
    LETTERS,
    Speller,
    loaded,
    number_rules,
    speller,
    spelling_rules,
    summing,
)


def generated(model: LoadedModel, state: State | None, **others: object) -> Generated:
    return generate(
        model.net,
        model.rules,
        model.inputs,
        model.outputs,
        state,
        **others,  # type: ignore[arg-type]
    )


def written(word: Generated) -> str:
    return "".join(LETTERS[logits.argmax()] for logits in word.values)


def test_the_record_with_the_stop_label_is_the_last_one() -> None:
    word = generated(speller(spelling_rules("one-to-many")), None)
    assert (written(word), word.finish) == ("ab.", "stop")
    assert word.values.tolist() == [[0.5, 0, 0], [0.5, 1, 0], [0.5, 0, 1]]
    assert word.chosen.shape == (3, 0)


def test_the_limit_ends_a_sequence_without_a_stop_label() -> None:
    word = generated(speller(spelling_rules("one-to-many")), None, steps_max=2)
    assert (written(word), word.finish) == ("ab", "steps-max")


def test_a_stop_label_at_the_limit_counts_as_a_stop() -> None:
    word = generated(speller(spelling_rules("one-to-many", steps_max=3)), None)
    assert (written(word), word.finish) == ("ab.", "stop")


def test_a_sequence_can_end_at_its_first_step() -> None:
    word = generated(speller(spelling_rules("one-to-many")), (torch.tensor([[6.0]]), torch.ones(1)))
    assert (written(word), word.finish) == (".", "stop")


def test_the_limit_of_the_rules_is_the_default_and_cannot_be_exceeded() -> None:
    model = summing(number_rules("one-to-many", generation=Generation(3)))
    # The go step adds nothing to the state; from then on the total is added to itself.
    word = generated(model, torch.tensor([[5.0]]))
    assert (word.values.flatten().tolist(), word.finish) == ([5.0, 10.0, 20.0], "steps-max")
    for steps_max in (0, 4):
        with pytest.raises(ValueError, match="1 to 3"):
            generated(model, None, steps_max=steps_max)


def test_a_shape_that_generates_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="generates nothing"):
        generated(summing(number_rules("synchronized")), None)


def test_drawn_labels_are_returned_and_depend_only_on_key_and_offset() -> None:
    model = speller(spelling_rules("one-to-many", temperature=5.0, steps_max=9))
    words = [generated(model, None, key=b"k", offset=offset) for offset in range(30)]
    again = [generated(model, None, key=b"k", offset=offset) for offset in range(30)]
    others = [generated(model, None, key=b"l", offset=offset) for offset in range(30)]

    drawn = [word.chosen[:, 0].tolist() for word in words]
    assert drawn == [word.chosen[:, 0].tolist() for word in again]
    assert drawn != [word.chosen[:, 0].tolist() for word in others]
    assert len({tuple(labels) for labels in drawn}) > 10
    for labels, word in zip(drawn, words, strict=True):
        # The drawn label ends the word, whichever is the most probable one.
        assert word.finish == ("stop" if labels[-1] == 2 else "steps-max")
        assert 2 not in labels[:-1]


def test_a_stop_output_that_is_not_fed_back_ends_a_sequence_by_its_most_probable_label() -> None:
    class Countdown(Speller):
        def __init__(self) -> None:
            super().__init__()
            self.output_size = 5

        def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
            logits, state = super().step(inputs, prev_state)
            is_third = (state[1] == 3).float().unsqueeze(1)
            return torch.cat([logits, 0.5 - is_third, is_third - 0.5], dim=1), state

    rules = SequenceRules(
        "one-to-many", (Feedback("letter", "letter", 3.0),), Generation(9, "is_last", "yes")
    )
    outputs = (Category("letter", LETTERS), Category("is_last", ("no", "yes")))
    inputs = (Number("x"), Category("letter", LETTERS, optional=True))
    word = generated(loaded(Countdown(), inputs, outputs, rules), None)
    assert (len(word.values), word.finish) == (3, "stop")

    stop = find_stop(rules, outputs)
    assert stop is not None
    assert (stop.columns, stop.link, stop.label) == (slice(3, 5), None, 1)


def test_the_least_temperature_draws_the_most_probable_label_of_any_logits() -> None:
    outputs = [Category("letter", LETTERS)]
    links = [Feedback("letter", "letter", TEMPERATURE_MIN)]
    for logits in ([1.0, 3.0, 2.0], [-3e38, 3e38, 0.0]):
        row = np.array(logits, np.float32)
        labels = [choose_labels(links, outputs, row, b"k", offset, 0) for offset in range(20)]
        assert labels == [[1]] * 20


def test_a_generated_sequence_that_becomes_infinite_is_dropped() -> None:
    model = summing(number_rules("one-to-many", generation=Generation(200)))
    with pytest.raises(FloatingPointError, match="step 128 "):
        generated(model, torch.tensor([[1.0]]))  # 2 ** 128 is not a float32
