"""Rules that don't fit a model's fields are refused with the invalid member."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from livestep import (
    Category,
    Feedback,
    Field,
    Generation,
    ModelError,
    Number,
    SequenceRules,
    Text,
)
from livestep.models.sequences.rules import TEMPERATURE_MIN, check_rules

LETTERS = ("a", "b", ".")
INPUTS = [
    Number("x"),
    Category("before", LETTERS, optional=True),
    Number("y_before", optional=True),
]
OUTPUTS = [Category("letter", LETTERS), Number("y")]
LINK = Feedback("letter", "before")
NUMBERS = Feedback("y", "y_before")
UNTIL_DOT = Generation(9, "letter", ".")


@pytest.mark.parametrize(
    "rules",
    [
        SequenceRules(),
        SequenceRules("one-to-one"),
        SequenceRules("many-to-one", session_gap_ms=1),
        SequenceRules("many-to-one", (LINK,)),
        SequenceRules("synchronized", (LINK, NUMBERS), session_gap_ms=10**12),
        SequenceRules("one-to-many", (LINK,), UNTIL_DOT),
        SequenceRules("encode-decode", (NUMBERS,), Generation(10_000), 60_000),
        SequenceRules("encode-decode", (Feedback("letter", "before", 0.7),), Generation(1)),
        SequenceRules(feedback=(Feedback("letter", "before", TEMPERATURE_MIN),)),
    ],
)
def test_valid_rules_are_accepted_and_survive_json(rules: SequenceRules) -> None:
    check_rules(rules, INPUTS, OUTPUTS, "json")
    assert msgspec.json.decode(msgspec.json.encode(rules), type=SequenceRules) == rules


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (SequenceRules("one-to-many"), "^generation: required by the shape one-to-many"),
        (
            SequenceRules("encode-decode", (LINK,)),
            "^generation: required by the shape encode-decode",
        ),
        (
            SequenceRules("one-to-many", (), UNTIL_DOT),
            "^feedback: required by the shape one-to-many",
        ),
        (SequenceRules("many-to-one", (LINK,), UNTIL_DOT), "^generation: .* generates nothing"),
        (
            SequenceRules("one-to-many", (LINK,), Generation(9, "y", ".")),
            "^generation.stop_output: not a category output .*letter.*found 'y'",
        ),
        (SequenceRules("one-to-many", (LINK,), Generation(9, stop_value=".")), "stop_output"),
        (SequenceRules("one-to-many", (LINK,), Generation(9, "letter")), "^generation.stop_value"),
        (
            SequenceRules("one-to-many", (LINK,), Generation(9, "letter", "z")),
            "^generation.stop_value: output 'letter' has no such value .*found 'z'",
        ),
        (SequenceRules("one-to-one", (LINK,)), "^feedback: a one-to-one model keeps no output"),
        (
            SequenceRules("one-to-one", session_gap_ms=5),
            "^session_gap_ms: .* no open sequence",
        ),
        (SequenceRules(feedback=(LINK, LINK)), "^feedback: the input 'before' is listed twice"),
        (
            SequenceRules(feedback=(LINK, Feedback("letter", "y_before"))),
            "^feedback: the output 'letter' is listed twice",
        ),
        (SequenceRules(feedback=(Feedback("z", "before"),)), "^feedback.output: unknown field"),
        (SequenceRules(feedback=(Feedback("letter", "z"),)), "^feedback.input: unknown field"),
        (SequenceRules(feedback=(Feedback("y", "x"),)), "^feedback.input: .*must be optional"),
        (
            SequenceRules(feedback=(Feedback("y", "before"),)),
            "^feedback: 'y' can't be fed into .*a Number of 1 columns, found a Category of 3",
        ),
        (
            SequenceRules(feedback=(Feedback("y", "y_before", 1.0),)),
            "^feedback.temperature: only a category can be drawn",
        ),
        (
            SequenceRules(feedback=(Feedback("letter", "before", 1e-320),)),
            "^feedback.temperature: too small; .* 0, or 0.001 or more, found 1e-320",
        ),
    ],
)
def test_rules_that_contradict_themselves_or_the_fields_are_refused(
    rules: SequenceRules, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        check_rules(rules, INPUTS, OUTPUTS, "json")


@pytest.mark.parametrize(
    "target",
    [
        Category("before", ("b", "a", "."), optional=True),
        Category("before", ("a", "b", "c"), optional=True),
    ],
)
def test_labels_are_fed_back_only_into_an_input_with_the_same_labels(target: Category) -> None:
    with pytest.raises(ModelError, match="^feedback: .*different values, or in a different order"):
        check_rules(SequenceRules(feedback=(LINK,)), [target], OUTPUTS, "json")


def test_a_text_is_never_fed_back() -> None:
    text = Text("before", "ab.", 3, optional=True)
    with pytest.raises(ModelError, match="^feedback: .*a Category of 3 columns, found a Text of 3"):
        check_rules(SequenceRules(feedback=(LINK,)), [text], OUTPUTS, "json")


def test_raw_float32_cannot_hold_a_drawn_label() -> None:
    drawing = SequenceRules(feedback=(Feedback("letter", "before", 0.5),))
    with pytest.raises(ModelError, match="^feedback.temperature: .* use codec json"):
        check_rules(drawing, INPUTS, OUTPUTS, "float32")
    check_rules(SequenceRules(feedback=(LINK,)), INPUTS, OUTPUTS, "float32")


@pytest.mark.parametrize("name", ["start", "end", "steps_max"])
def test_a_json_input_cannot_have_the_name_of_a_mark(name: str) -> None:
    inputs: list[Field] = [Number(name)]
    with pytest.raises(ModelError, match="^inputs: the name is reserved for a mark"):
        check_rules(SequenceRules(), inputs, OUTPUTS, "json")
    check_rules(SequenceRules(), inputs, OUTPUTS, "float32")


@pytest.mark.parametrize(
    "members",
    [
        {"shape": "many-to-few"},
        {"session_gap_ms": 0},
        {"session_gap_ms": 1.5},
        {"generation": {"steps_max": 0}},
        {"generation": {"steps_max": 10_001}},
        {"generation": {}},
        {"feedback": [{"output": "y"}]},
        {"feedback": [{"output": "y", "input": "x", "temperature": -1}]},
        {"feedback": [{"output": "y", "input": "x", "temperature": 101}]},
        {"feedback": [{"output": "y", "input": "x", "teacher": True}]},
        {"rules": 1},
    ],
)
def test_the_decoder_refuses_members_out_of_range(members: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(members, SequenceRules)


def test_shapes_determine_what_is_kept_and_what_is_fed_back() -> None:
    stateless = {shape for shape in SHAPES if SequenceRules(shape).is_stateless}
    assert stateless == {"one-to-one", "one-to-many"}
    assert {s for s in SHAPES if SequenceRules(s).is_generating} == {"one-to-many", "encode-decode"}
    feeding = {shape for shape in SHAPES if SequenceRules(shape, (LINK,)).is_feeding_events}
    assert feeding == {"one-to-one", "many-to-one", "synchronized"}
    assert not SequenceRules().is_feeding_events


SHAPES: Any = ("one-to-one", "one-to-many", "many-to-one", "encode-decode", "synchronized")
