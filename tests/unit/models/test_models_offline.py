"""The answers to one key's events, compared with results computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from livestep import FieldError, Generation, LoadedModel, SequenceRules
from livestep.models.sequences.offline import (
    KeyReader,
    OfflineAnswer,
    OfflineEvent,
    answers_offline,
)
from livestep.models.sequences.rules import Feedback
from tests.support.small_nets import LETTERS, number_rules, speller, spelling_rules, summing

NAN = math.nan


def event(x: float, last_y: float = NAN, **marks: object) -> OfflineEvent:
    return OfflineEvent(np.array([x, last_y], np.float32), **marks)  # type: ignore[arg-type]


def bare(**marks: object) -> OfflineEvent:
    return OfflineEvent(None, **marks)  # type: ignore[arg-type]


TOMBSTONE = OfflineEvent(None, is_tombstone=True)


def answers(rules: SequenceRules, *events: OfflineEvent) -> list[OfflineAnswer]:
    for one in events:
        if one.inputs is not None and not rules.feedback:
            one.inputs[1] = 0  # nothing fills it
    return answers_offline(summing(rules), b"k", events)


def short(found: list[OfflineAnswer]) -> list[tuple[int, int, float]]:
    """Return the event, the timestep and y of answers."""
    return [(one.event, one.timestep, float(one.values[0])) for one in found]


SYNCHRONIZED = SequenceRules()
MANY_TO_ONE = SequenceRules("many-to-one")
ENCODE_DECODE = number_rules("encode-decode", generation=Generation(3))
ONE_TO_MANY = number_rules("one-to-many", generation=Generation(3))


# ------------------------------------------------------------------------- the five shapes


def test_synchronized_answers_each_event_and_restarts_from_zeros_after_an_end() -> None:
    found = answers(SYNCHRONIZED, event(1), event(2), event(3, end=True), event(4), event(5))
    assert short(found) == [(0, 0, 1), (1, 1, 3), (2, 2, 6), (3, 0, 4), (4, 1, 9)]


def test_many_to_one_answers_the_end_with_the_output_of_the_last_event() -> None:
    found = answers(MANY_TO_ONE, event(1), event(2), event(3, end=True), event(4), bare(end=True))
    assert short(found) == [(2, 2, 6), (4, 0, 4)]
    assert all(one.step is None and one.finish is None for one in found)


def test_encode_decode_answers_the_end_with_a_generated_sequence() -> None:
    found = answers(ENCODE_DECODE, event(1), event(4), bare(end=True), event(1, end=True))
    # The go step leaves the total of 5 alone; from then on it is added to itself.
    assert short(found) == [(2, 1, 5), (2, 1, 10), (2, 1, 20), (3, 0, 1), (3, 0, 2), (3, 0, 4)]
    assert [one.step for one in found] == [0, 1, 2, 0, 1, 2]
    assert [one.finish for one in found] == [None, None, "steps-max"] * 2


def test_encode_decode_stops_at_the_stop_label() -> None:
    model = speller(spelling_rules("encode-decode"))
    rows = [np.array([x, NAN, NAN, NAN], np.float32) for x in (1, 1, 6)]
    events = [OfflineEvent(rows[0]), OfflineEvent(rows[1], end=True), OfflineEvent(rows[2])]
    found = answers_offline(model, b"k", [*events, bare(end=True)])
    labels = [LETTERS[one.values.argmax()] for one in found]
    assert labels == ["a", "b", ".", "."]  # an x of 6 is a word of nothing but its end
    assert [one.finish for one in found] == [None, None, "stop", "stop"]


def test_one_to_one_answers_each_event_alone_and_ignores_its_marks() -> None:
    rules = SequenceRules("one-to-one")
    found = answers(rules, event(1, 0), event(2, 0, end=True), event(3, 0, start=True))
    assert short(found) == [(0, 0, 1), (1, 0, 2), (2, 0, 3)]
    assert answers(rules, bare(end=True), bare(start=True), TOMBSTONE) == []


def test_one_to_many_answers_each_event_with_a_generated_sequence() -> None:
    found = answers(ONE_TO_MANY, event(1), event(4, steps_max=1), bare(end=True), TOMBSTONE)
    assert short(found) == [(0, 0, 1), (0, 0, 2), (0, 0, 4), (1, 0, 4)]
    assert [one.finish for one in found] == [None, None, "steps-max", "steps-max"]


# ------------------------------------------------------------------------- marks


def test_a_double_end_answers_once() -> None:
    found = answers(MANY_TO_ONE, event(1), bare(end=True), bare(end=True), event(2, end=True))
    assert short(found) == [(1, 0, 1), (3, 0, 2)]
    assert short(answers(MANY_TO_ONE, event(1, end=True), bare(end=True))) == [(0, 0, 1)]


def test_an_end_with_no_open_sequence_is_not_answered() -> None:
    assert answers(ENCODE_DECODE, bare(end=True)) == []


def test_a_start_drops_the_open_sequence() -> None:
    found = answers(MANY_TO_ONE, event(1), event(2, start=True), event(3, end=True))
    assert short(found) == [(2, 1, 5)]
    assert short(answers(SYNCHRONIZED, event(1), event(2, start=True))) == [(0, 0, 1), (1, 0, 2)]


def test_a_start_without_an_event_acts_like_a_tombstone() -> None:
    for forgetting in (bare(start=True), TOMBSTONE):
        found = answers(SYNCHRONIZED, event(1), forgetting, event(2))
        assert short(found) == [(0, 0, 1), (2, 0, 2)]
        assert answers(MANY_TO_ONE, event(1), forgetting, bare(end=True)) == []


def test_an_event_can_be_a_whole_sequence() -> None:
    found = answers(MANY_TO_ONE, event(1), event(2, start=True, end=True), event(3, end=True))
    assert short(found) == [(1, 0, 2), (2, 0, 3)]


def test_an_event_with_an_invalid_limit_is_dropped_with_its_marks() -> None:
    for steps_max in (0, 4):
        found = answers(ENCODE_DECODE, event(1), event(2, end=True, steps_max=steps_max))
        assert found == []
    found = answers(MANY_TO_ONE, event(1), event(2, end=True, steps_max=1), bare(end=True))
    assert short(found) == [(2, 0, 1)]


def test_the_event_that_ends_a_sequence_sets_how_many_steps_are_generated() -> None:
    found = answers(ENCODE_DECODE, event(1, steps_max=1), event(2), bare(end=True, steps_max=2))
    assert short(found) == [(2, 1, 3), (2, 1, 6)]
    assert found[-1].finish == "steps-max"


# ------------------------------------------------------------------------- gaps


def test_a_late_event_ends_the_previous_sequence_and_starts_its_own() -> None:
    rules = SequenceRules("many-to-one", session_gap_ms=10)
    found = answers(
        rules,
        event(1, timestamp_ms=0),
        event(2, timestamp_ms=10),  # not more than the gap
        event(3, timestamp_ms=20),  # nor is this, after the event before it
        event(4, timestamp_ms=31),
        event(5, timestamp_ms=32, end=True),
    )
    assert short(found) == [(3, 2, 6), (4, 1, 9)]
    assert [one.ended_by for one in found] == ["session-gap", None]


def test_a_step_that_is_not_finite_still_counts_as_an_event_for_the_session_gap() -> None:
    rules = SequenceRules("many-to-one", session_gap_ms=10)
    found = answers(
        rules,
        event(1, timestamp_ms=0),
        event(math.inf, timestamp_ms=10),
        event(3, timestamp_ms=20, end=True),
    )
    assert short(found) == [(2, 1, 4)]


def test_a_late_event_can_end_two_sequences() -> None:
    rules = SequenceRules("many-to-one", session_gap_ms=10)
    found = answers(rules, event(1), event(2, timestamp_ms=11, start=True, end=True))
    assert short(found) == [(1, 0, 1), (1, 0, 2)]
    assert [one.ended_by for one in found] == ["session-gap", None]


def test_after_an_end_no_event_is_late() -> None:
    rules = SequenceRules("many-to-one", session_gap_ms=10)
    found = answers(rules, event(1, end=True), event(2, timestamp_ms=99, end=True))
    assert [one.ended_by for one in found] == [None, None]


def test_a_gap_generates_up_to_the_limit_of_the_rules_and_draws_by_the_late_event() -> None:
    model = speller(spelling_rules("encode-decode", temperature=9.0, session_gap_ms=10))
    row = np.array([0, NAN, NAN, NAN], np.float32)
    late = OfflineEvent(row, timestamp_ms=11, offset=8, steps_max=1)
    found = answers_offline(model, b"k", [OfflineEvent(row, offset=7), late])
    ended = answers_offline(model, b"k", [OfflineEvent(row, offset=7), bare(end=True, offset=8)])
    assert {one.ended_by for one in found} == {"session-gap"}
    assert [one.chosen.tolist() for one in found] == [one.chosen.tolist() for one in ended]
    assert len(found) > 1


def test_in_synchronized_a_gap_restarts_from_zeros_without_an_answer() -> None:
    rules = SequenceRules(session_gap_ms=10)
    found = answers(rules, event(1), event(2, timestamp_ms=11), event(3, timestamp_ms=12))
    assert short(found) == [(0, 0, 1), (1, 0, 2), (2, 1, 5)]


# ------------------------------------------------------------------------- what isn't finite


def test_an_event_whose_step_is_not_finite_is_ignored() -> None:
    found = answers(SYNCHRONIZED, event(1), event(math.inf), event(2))
    assert short(found) == [(0, 0, 1), (2, 1, 3)]


def test_a_step_that_is_not_finite_keeps_its_marks() -> None:
    found = answers(MANY_TO_ONE, event(1), event(math.inf, end=True), event(2, end=True))
    assert short(found) == [(2, 0, 2)]  # the first sequence is ended, and nothing answered for it
    found = answers(MANY_TO_ONE, event(1), event(math.inf, start=True), bare(end=True))
    assert found == []


def test_a_generated_sequence_that_is_not_finite_has_no_record() -> None:
    rules = number_rules("encode-decode", generation=Generation(200))
    assert answers(rules, event(1, end=True)) == []
    found = answers(rules, event(1, end=True, steps_max=128), event(1, end=True, steps_max=129))
    assert {one.event for one in found} == {0}  # 2 ** 128 is not a float32


def test_invalid_events_have_the_reasons_of_the_engine() -> None:
    events = [
        bare(end=True),  # nothing is open
        event(1),
        event(math.inf),
        event(2, end=True, steps_max=4),  # more than the rules allow; it closes nothing
        OfflineEvent(None, is_tombstone=True, end=True),  # forgets, and is never put aside
        bare(end=True),
        event(3e38),
        bare(end=True),  # 2 * 3e38 is not a float32
    ]
    reader = KeyReader(summing(ENCODE_DECODE), b"k")
    found = [answer for index, one in enumerate(events) for answer in reader.take(index, one)]
    assert found == []
    assert reader.dead == [
        (0, "end-without-beginning"),
        (2, "not-finite-step"),
        (3, "bad-steps-max"),
        (5, "end-without-beginning"),
        (7, "not-finite-step"),
    ]


# ------------------------------------------------------------------------- feedback


def test_an_absent_input_is_filled_only_within_a_sequence() -> None:
    rules = number_rules("synchronized")
    found = answers(rules, event(1), event(1), event(0, 10), event(0, end=True), event(1))
    # 1; 1 + 1 + the 1 before; 3 + the truth 10; 13 + the 13 before; and again
    assert short(found) == [(0, 0, 1), (1, 1, 3), (2, 2, 13), (3, 3, 26), (4, 0, 1)]


def test_a_step_that_is_not_finite_does_not_change_what_is_fed_back() -> None:
    found = answers(number_rules("many-to-one"), event(1), event(math.inf), event(0, end=True))
    assert short(found) == [(2, 1, 2)]


def test_while_encoding_an_absent_input_is_zeros() -> None:
    found = answers(ENCODE_DECODE, event(1), event(1), bare(end=True, steps_max=1))
    assert short(found) == [(2, 1, 2)]


def test_a_label_drawn_for_an_event_depends_on_its_offset() -> None:
    rules = SequenceRules("synchronized", (Feedback("letter", "letter", 9.0),))
    row = np.array([0, NAN, NAN, NAN], np.float32)
    events = [OfflineEvent(row, offset=offset) for offset in range(30)]
    labels = [int(one.chosen[0]) for one in answers_offline(speller(rules), b"k", events)]
    again = [int(one.chosen[0]) for one in answers_offline(speller(rules), b"k", events)]
    moved = [OfflineEvent(row, offset=offset + 1) for offset in range(30)]
    assert set(labels) == {0, 1, 2}
    assert labels == again
    assert (
        labels[1:]
        == [int(one.chosen[0]) for one in answers_offline(speller(rules), b"k", moved)][:-1]
    )


def test_generated_labels_are_drawn_by_the_offset_of_the_event_that_ends_the_sequence() -> None:
    model = speller(spelling_rules("encode-decode", temperature=9.0))
    row = np.array([0, NAN, NAN, NAN], np.float32)

    def word(begun_at: int, ended_at: int) -> tuple[int, ...]:
        events = [OfflineEvent(row, offset=begun_at), bare(end=True, offset=ended_at)]
        return tuple(int(one.chosen[0]) for one in answers_offline(model, b"k", events))

    assert len({word(0, ended_at) for ended_at in range(1, 20)}) > 5
    assert len({word(begun_at, 20) for begun_at in range(20)}) == 1


# ------------------------------------------------------------------------- JSON events


def test_json_events_carry_their_marks_as_members() -> None:
    model = summing(number_rules("many-to-one", session_gap_ms=10))
    found = model.answer_events(
        [{"x": 1}, {"x": 1}, {"end": True}, {"x": 5}, None, {"x": 7, "last_y": 1}, {"x": 1}],
        timestamps_ms=[0, 0, 0, 0, 0, 0, 11],
    )
    assert found == [
        {"event": 2, "timestep": 1, "value": {"y": 3.0}},
        {"event": 6, "timestep": 0, "value": {"y": 8.0}, "ended_by": "session-gap"},
    ]


def test_json_answers_of_a_generated_sequence_have_the_step_and_the_drawn_label() -> None:
    model = speller(spelling_rules("one-to-many", temperature=9.0))
    found = model.answer_events([{"x": 0, "steps_max": 5}], key="k", offsets=[3])
    plain = answers_offline(
        model, b"k", [OfflineEvent(np.zeros(4, np.float32), offset=3, steps_max=5)]
    )
    assert [one["step"] for one in found] == list(range(len(plain)))
    assert ["finish" in one for one in found] == [False] * (len(found) - 1) + [True]
    drawn = [LETTERS[one.chosen[0]] for one in plain]
    assert [one["value"]["letter"]["label"] for one in found] == drawn
    # Otherwise this would test the most probable label:
    assert drawn != [LETTERS[one.values.argmax()] for one in plain]


@pytest.mark.parametrize(
    ("event", "detail"),
    [
        ({"x": 1, "end": "yes"}, "mark 'end' must be true or false"),
        ({"x": 1, "steps_max": 4}, "mark 'steps_max'"),
        ({"x": 1, "steps_max": True}, "mark 'steps_max'"),
        ({"steps_max": 2}, "feature 'x' is missing"),
        ({}, "feature 'x' is missing"),
        ([], "an event must be an object"),
    ],
)
def test_an_invalid_event_or_mark_is_reported(event: object, detail: str) -> None:
    model: LoadedModel = summing(ENCODE_DECODE)
    with pytest.raises(FieldError, match=f"event 1: {detail}"):
        model.answer_events([{"x": 1}, event])  # type: ignore[list-item]


@pytest.mark.parametrize("members", [{"x": None}, {"typo": None}, {"last_y": 1}])
def test_an_end_with_members_other_than_absent_optional_inputs_is_an_event(members) -> None:
    model = summing(number_rules("many-to-one"))
    with pytest.raises(FieldError):
        model.answer_events([{"x": 1}, {"end": True, **members}])
    [answer] = model.answer_events([{"x": 1}, {"end": True, "last_y": None}])
    assert answer["event"] == 1
