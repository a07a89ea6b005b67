"""The judge on sequences: right answers of each shape pass, and each kind of fault is found."""

import random

import numpy as np
import orjson
import pytest

from livestep import GRU, Feedback, Generation, Number, SequenceRules
from livestep.models.sequences.offline import (
    Choice,
    KeyReader,
    OfflineEvent,
    answers_to_log,
    with_gaps,
)
from livestep.pipeline.audit.input_events import read_events
from livestep.pipeline.audit.unrolled import unroll_log
from tests.support.judged import LETTER, Told, event, faults, judged, letter, offline, told, written
from tests.support.shaped import SHAPES, ShapedEvents, shaped_model
from tests.support.world import loaded

X = [0.5, 0.0, 0.0, 0.0]


@pytest.fixture
def spelling():
    """A model that spells a, b, c and the end, with one such sequence and its answers."""
    model = told("encode-decode", generation=Generation(9, "letter", "."))
    records = [
        event(0, x=[0, 0, 0, 0]),
        event(1, x=[0.1, 0, 0, 0]),
        event(2, end=True),
        event(3, x=[0, 0.2, 0, 0], end=True, steps_max=2),
    ]
    reader = KeyReader(model, b"k")
    taken = [
        *reader.take(0, offline([0.0] * 4, 0)),
        *reader.take(1, offline([0.1, 0, 0, 0], 1)),
        *reader.take(2, offline(None, 2, end=True)),
        *reader.take(3, offline([0, 0.2, 0, 0], 3, end=True, steps_max=2)),
    ]
    return model, records, [written(model, records[one.event], one) for one in taken]


def test_a_generated_sequence_passes(spelling):
    model, records, answers = spelling
    labels = [orjson.loads(answer.value)["letter"]["label"] for answer in answers]
    assert labels == ["a", "b", "c", ".", "b", "c"]
    report = judged(*spelling)
    assert faults(report) == (0, 0, 0, 0), report
    assert (report.events, report.predictions, report.keys) == (4, 6, 1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda a: a[:2] + a[3:], (1, 0, 0, 0)),
        (lambda a: a[:4], (2, 0, 0, 0)),
        (lambda a: a[:2] + a[1:], (0, 1, 0, 0)),
        (lambda a: [a[0], a[2], a[1], *a[3:]], (0, 0, 1, 0)),
        (lambda a: [*a[4:], *a[:4]], (0, 0, 4, 0)),
        (lambda a: [a[0].but(value=a[1].value), *a[1:]], (0, 0, 0, 1)),
    ],
    ids=["a step lost", "a sequence lost", "a step twice", "steps swapped", "sequences swapped",
         "another value"],
)  # fmt: skip
def test_faults_in_a_generated_sequence_are_found(spelling, change, expected):
    model, records, answers = spelling
    assert faults(judged(model, records, change(answers))) == expected


END = [("sequence", b"end")]


def test_an_event_without_features_is_a_bare_mark_however_it_is_written():
    net = GRU(1, 2, 1)
    model = loaded(net, inputs=(Number("x", optional=True),))
    values = [b'{"end":true}', b'{"x":null,"end":true}', b"{}", b'{"x":null}', b""]
    records = [
        event(offset, headers=[] if b"end" in value else END, value=value)
        for offset, value in enumerate(values)
    ]
    read = read_events(records, model, {})
    assert [one.marks.is_bare for one in read.events.values()] == [True] * len(values)
    assert len(read.inputs) == 0
    # The same holds for raw numbers that are all left to the feedback
    fed = loaded(
        net,
        inputs=model.inputs,
        codec="float32",
        rules=SequenceRules(feedback=(Feedback("y", "x"),)),
    )
    nothing = np.full(1, np.nan, "<f4").tobytes()
    events = [event(0, headers=END, value=nothing), event(1, value=nothing)]
    assert [one.row for one in read_events(events, fed, {}).events.values()] == [None, 0]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("finish", None, (0, 0, 0, 1)),
        ("finish", b"steps-max", (0, 0, 0, 1)),
        ("step", b"4", (1, 0, 0, 1)),
        ("step", None, (1, 0, 0, 1)),
        ("step", b"x", (1, 0, 0, 1)),
        ("timestep", b"2", (0, 0, 1, 0)),
        ("ended-by", b"session-gap", (1, 0, 0, 1)),
        ("source", b"events/0/1", (1, 0, 0, 1)),
    ],
)
def test_headers_of_a_generated_record_are_judged(spelling, name, value, expected):
    model, records, answers = spelling
    headers = [item for item in answers[3].headers if item[0] != name]
    if value is not None:
        headers.append((name, value))
    answers[3] = answers[3].but(headers=headers)
    assert faults(judged(model, records, answers)) == expected


@pytest.mark.parametrize("shape", ["many-to-one", "encode-decode", "synchronized"])
def test_only_an_end_without_an_open_sequence_must_be_a_dead_letter(shape):
    # Given a key with two ends in a row
    generation = Generation(2) if shape == "encode-decode" else None
    model = told(shape, generation=generation)
    records = [event(0, x=X), event(1, end=True), event(2, end=True)]
    reader = KeyReader(model, b"k")
    taken = [*reader.take(0, offline(X, 0)), *reader.take(1, offline(None, 1, end=True))]
    answers = [written(model, records[one.event], one) for one in taken]

    # When the second is a dead letter, all is right; otherwise it is lost. The first must be none
    right = letter(records[2], "end-without-beginning")
    assert faults(judged(model, records, answers, [right])) == (0, 0, 0, 0)
    assert faults(judged(model, records, answers)) == (1, 0, 0, 0)
    wrong = letter(records[1], "end-without-beginning")
    assert judged(model, records, answers, [right, wrong]).different == 1


def test_an_end_for_a_stateless_shape_must_be_a_dead_letter():
    model = loaded(
        Told(), inputs=(Number("x", 8),), outputs=(LETTER,), rules=SequenceRules("one-to-one")
    )
    records = [event(0, end=True), event(1, start=True)]
    assert faults(judged(model, records, [])) == (1, 0, 0, 0)
    letters = [letter(records[0], "end-without-beginning")]
    assert faults(judged(model, records, [], letters)) == (0, 0, 0, 0)


def test_a_step_that_is_not_finite_must_be_a_dead_letter_and_its_marks_count():
    # Given a sequence that ends with a step that isn't finite, and another sequence
    model = told("many-to-one")
    huge = [3e38, 3e38, 0, 0]
    records = [
        event(0, x=huge),
        event(1, x=huge, end=True),
        event(2, x=X, end=True),
    ]
    reader = KeyReader(model, b"k")
    reader.take(0, offline(huge, 0))
    taken = [
        *reader.take(1, offline(huge, 1, end=True)),
        *reader.take(2, offline(X, 2, end=True)),
    ]
    answers = [written(model, records[one.event], one) for one in taken]
    assert [answer.headers[0][1] for answer in answers] == [b"events/0/2"]
    letters = [letter(records[1], "not-finite-step")]

    # Then a dead letter is expected there only
    assert faults(judged(model, records, answers, letters)) == (0, 0, 0, 0)
    assert faults(judged(model, records, answers)) == (1, 0, 0, 0)
    wrong = [*letters, letter(records[0], "not-finite-step")]
    assert faults(judged(model, records, answers, wrong)) == (0, 0, 0, 1)


def late(model, log):
    """Records of keys and times, each with the same x, and the answers to them."""
    records = [
        event(offset, key, time, x=X, **marks) for offset, (key, time, marks) in enumerate(log)
    ]
    events = [
        (key, offline(X, offset, timestamp_ms=time, **marks))
        for offset, (key, time, marks) in enumerate(log)
    ]
    answers = [
        written(model, records[answer.event], answer).but(key=key)
        for key, answer in answers_to_log(model, events)
    ]
    return records, answers


def test_a_gap_and_an_end_at_the_same_event_are_both_answered():
    # Given a model with a session gap, and a late event that is also an end
    model = told("many-to-one", session_gap_ms=100)
    records, answers = late(model, [(b"k", 1_000, {}), (b"k", 1_101, {"end": True})])
    assert [dict(answer.headers).get("ended-by") for answer in answers] == [b"session-gap", None]

    # Then both answers are expected, in this order
    assert faults(judged(model, records, answers)) == (0, 0, 0, 0)
    assert faults(judged(model, records, answers[::-1])) == (0, 0, 1, 0)
    assert faults(judged(model, records, answers[1:])) == (1, 0, 0, 0)
    assert faults(judged(model, records, answers[:1])) == (1, 0, 0, 0)


def test_a_sequence_is_ended_by_the_event_of_another_key_that_moves_the_clock():
    # Given a key that never comes back, and events of other keys before and after its gap
    model = told("many-to-one", session_gap_ms=100)
    log = [(b"k", 1_000, {}), (b"in time", 1_100, {}), (b"late", 1_101, {"end": True})]
    records, answers = late(model, log)
    assert [answer.key for answer in answers] == [b"k", b"late"]

    # Then its answer is expected, with its own key and the other event's place
    assert faults(judged(model, records, answers)) == (0, 0, 0, 0)
    assert faults(judged(model, records, answers[1:])) == (1, 0, 0, 0)
    repeated = [answers[0], *answers]
    assert faults(judged(model, records, repeated)) == (0, 1, 0, 0)
    wrong_key = [answers[0].but(key=b"in time"), answers[1]]
    assert faults(judged(model, records, wrong_key)) == (1, 0, 0, 1)
    unmarked = [item for item in answers[0].headers if item[0] != "ended-by"]
    assert judged(model, records, [answers[0].but(headers=unmarked), answers[1]]).different == 1


def test_with_free_rounding_a_worker_may_continue_from_either_of_two_labels_that_tie():
    # Given a generated sequence that starts with a or b, which are equally probable
    model = told("one-to-many", generation=Generation(3))
    records = [event(0, x=[1e-7, 0, -5, -5])]
    follow = {Choice(0, None, 0): [1]}
    ours, theirs = (
        KeyReader(model, b"k", labels).take(0, offline([1e-7, 0, -5, -5], 0))
        for labels in (None, follow)
    )
    assert (ours[1].values != theirs[1].values).any()

    # When a worker continues from b, that is right with free rounding only
    answers = [
        written(model, records[0], one, label)
        for one, label in zip(theirs, ["b", None, None], strict=True)
    ]
    assert faults(judged(model, records, answers, rounding="free")) == (0, 0, 0, 0)
    assert judged(model, records, answers).different == 3

    # But not if it continues from one and publishes the other, or from a less probable one
    answers[0] = written(model, records[0], theirs[0], "a")
    assert judged(model, records, answers, rounding="free").different == 2
    answers[0] = written(model, records[0], theirs[0], "c")
    assert judged(model, records, answers, rounding="free").different >= 1


@pytest.mark.parametrize("x", [[1, 0.5, 0, 0], [0, 0, 0, 0]])
def test_a_drawn_label_must_be_the_one_that_its_offset_draws(x):
    # Given a model that draws each label, and many events
    model = told("synchronized", temperature=1.0)
    records = [event(offset, x=x, start=True) for offset in range(40)]
    reader = KeyReader(model, b"k")
    taken = [
        one for offset in range(40) for one in reader.take(offset, offline(x, offset, start=True))
    ]
    answers = [written(model, records[one.event], one) for one in taken]
    assert len({orjson.loads(answer.value)["letter"]["label"] for answer in answers}) > 1
    assert faults(judged(model, records, answers)) == (0, 0, 0, 0)

    # When a worker publishes the most probable label instead, each one that differs is found
    most_probable = [written(model, records[one.event], one, "a") for one in taken]
    wrong = sum(int(one.chosen[0]) != 0 for one in taken)
    assert judged(model, records, most_probable).different == wrong > 0


def test_a_tombstone_has_no_answer_and_starts_over():
    model = told("synchronized")
    records = [event(0, x=X), event(1), event(2, x=X), event(3, b"other")]
    reader = KeyReader(model, b"k")
    taken = [
        *reader.take(0, offline(X, 0)),
        *reader.take(1, offline(None, 1, is_tombstone=True)),
        *reader.take(2, offline(X, 2)),
    ]
    answers = [written(model, records[one.event], one) for one in taken]
    assert [dict(answer.headers)["timestep"] for answer in answers] == [b"0", b"0"]
    assert faults(judged(model, records, answers)) == (0, 0, 0, 0)
    assert faults(judged(model, records, answers[:1])) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "bad",
    [
        event(5, x=X, end=1),
        event(5, x=X, start="true"),
        event(5, x=X, end=True, steps_max=0),
        event(5, x=X, end=True, steps_max=4),
        event(5, x=X, steps_max=True),
        event(5, headers=[("sequence", b"ends")], x=X),
        event(5, headers=[("steps-max", b"4")], x=X),
        event(5, headers=[("steps-max", b"two")], x=X),
        event(5, value=b""),
        event(5, x=X, last="z"),
        event(5, key=None, x=X),
    ],
    ids=lambda bad: repr(bad.headers or bad.value),
)
def test_an_invalid_event_of_a_sequence_must_be_a_dead_letter(bad):
    model = told("encode-decode", generation=Generation(3))
    assert faults(judged(model, [bad], [])) == (1, 0, 0, 0)
    assert faults(judged(model, [bad], [], [letter(bad, "any")])) == (0, 0, 0, 0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", SHAPES)
def test_random_sequences_pass_and_any_missing_answer_is_found(shape, seed):
    # Given a random model, and random valid events of one key
    rng = random.Random(f"{shape}/{seed}")
    model = shaped_model(rng, shape)
    events = ShapedEvents(model, rng, keys=1, bad_share=0, is_fragile=False)
    records = [
        event(offset, one.key, one.timestamp_ms, one.headers, one.value)
        for offset, one in enumerate(events.take(60))
    ]
    topic = unroll_log(records, model, {}, lambda *_: None).topic
    log = []
    for (_, offset), one in topic.events.items():
        marks = one.marks
        row = None if one.row is None else topic.inputs[one.row]
        log.append(
            (
                one.key,
                OfflineEvent(
                    row,
                    start=marks.start,
                    end=marks.end,
                    is_tombstone=marks.is_tombstone,
                    steps_max=marks.steps_max,
                    timestamp_ms=one.timestamp_ms,
                    offset=offset,
                ),
            )
        )
    reader = KeyReader(model, records[0].key)
    taken = [
        answer
        for index, _, one in with_gaps(model.rules, log)
        for answer in reader.take(index, one)
    ]
    answers = [written(model, records[answer.event], answer) for answer in taken]
    letters = [letter(records[index], reason) for index, reason in reader.dead]

    # Then its answers pass, and a missing one is found
    assert faults(judged(model, records, answers, letters)) == (0, 0, 0, 0)
    index = rng.randrange(len(answers))
    rest = answers[:index] + answers[index + 1 :]
    assert faults(judged(model, records, rest, letters)) == (1, 0, 0, 0)
