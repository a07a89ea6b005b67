"""Every shape of sequence on real Kafka and Redis: answers, marks, states, draws, accuracy."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from click.testing import CliRunner

from livestep import (
    Category,
    DeadLetterReader,
    EventPublisher,
    Feedback,
    Generation,
    Number,
    Prediction,
    SequenceRules,
)
from livestep.models.examples import spelling, vowels
from livestep.models.examples.base import Example, offline_answers
from livestep.pipeline.commands.predictions import predictions
from livestep.pipeline.commands.publish import publish
from tests.services.conftest import MakeRunning
from tests.services.running import Running, shaped_running
from tests.support.shaped import SHAPES, shaped_net

LETTERS = ("a", "b", "c", ".")
LETTER = Category("letter", LETTERS)
LAST_LETTER = Category("last_letter", LETTERS, optional=True)


def stored_keys(running: Running, client: redis.Redis) -> set[bytes]:
    """Return the keys that have a state in Redis."""
    return {
        field[1:]
        for name in client.scan_iter(match=f"*:{running.group}")
        for field in client.hkeys(name)
        if field.startswith(b"k")
    }


def by_key(found: list[Prediction]) -> dict[str, list[Any]]:
    """Return the answers to each key, in order."""
    answers: dict[str, list[Any]] = {}
    for one in sorted(found, key=lambda one: (one.partition, one.offset)):
        answers.setdefault(one.key, []).append(one.value)
    return answers


def labels_of(answers: list[Any]) -> list[str]:
    """Return the letter of each answer."""
    return [answer["letter"]["label"] for answer in answers]


@pytest.mark.parametrize("shape", SHAPES)
def test_answers_are_the_offline_truth_whatever_batches(pipeline: MakeRunning, shape: str) -> None:
    # Given events with marks, tombstones and bad ones among them; and where the shape keeps
    # nothing, no Redis
    running, events, options = shaped_running(pipeline, shape, 0)
    running.publish_shaped(events, 400)

    # When workers read them in batches of different sizes, and sequences span the two
    running.burst(batch_events_max=30, pool_slots=60, **options)
    running.publish_shaped(events, 200)
    running.burst(**options)

    # Then nothing is lost, repeated, out of order or different
    report = running.assert_sequences()
    assert report.dead_letters > 0


def test_two_workers_share_the_keys_of_sequences_that_continue(pipeline: MakeRunning) -> None:
    # Given two workers, and sequences under way
    running, events, _ = shaped_running(pipeline, "encode-decode", 1)
    first, second = running.start(batch_events_max=50), running.start(batch_events_max=50)
    for worker in (first, second):
        running.wait_for_log(worker, "livestep.engine: assigned partitions")
    running.publish_shaped(events, 500)
    running.wait_until_done()

    # When one of them leaves, and the sequences continue
    first.stop()
    running.publish_shaped(events, 500)
    running.wait_until_done()
    second.stop()

    # Then the answers are those of the whole sequences
    assert (first.exit_code, second.exit_code) == (0, 0), first.log_tail() + second.log_tail()
    running.assert_sequences()


def test_a_key_that_is_ended_or_forgotten_has_no_state_in_redis(
    pipeline: MakeRunning, redis_client: redis.Redis
) -> None:
    # Given three keys with open sequences
    net = shaped_net(random.Random(0), 1, 1)
    running = pipeline(net=net, rules=SequenceRules("many-to-one"))
    servers = running.services.bootstrap_servers
    with EventPublisher(servers, running.input_topic) as publisher:
        for key in ("open", "ended", "ended later", "forgotten"):
            publisher.publish(key, {"x": 1}, end=key == "ended")
    running.burst()
    assert stored_keys(running, redis_client) == {b"open", b"ended later", b"forgotten"}

    # When one of them is ended by a bare mark, and one is forgotten, which is started over later
    with EventPublisher(servers, running.input_topic) as publisher:
        publisher.publish("ended later", None, end=True)
        publisher.forget("forgotten")
    running.burst()

    # Then Redis has the open one alone, and the forgotten one was not answered
    assert stored_keys(running, redis_client) == {b"open"}
    assert [one.key for one in running.predictions()] == ["ended", "ended later"]
    with EventPublisher(servers, running.input_topic) as publisher:
        publisher.publish("forgotten", {"x": 2}, end=True)
    running.burst()
    last = running.predictions()[-1]
    assert (last.key, last.timestep) == ("forgotten", 0)
    (expected,) = running.model.unroll_events([{"x": 2}])
    assert {name: np.float32(last.value[name]) for name in last.value} == {
        name: np.float32(expected[name]) for name in expected
    }


def test_a_truth_that_arrives_later_replaces_what_was_fed_back(pipeline: MakeRunning) -> None:
    # Given a model whose label is fed back, and two keys with the same events
    rules = SequenceRules("synchronized", (Feedback("letter", "last_letter"),))
    net = shaped_net(random.Random(3), 5, 4)
    inputs, outputs = [Number("x"), LAST_LETTER], [LETTER]
    running = pipeline(net=net, inputs=inputs, outputs=outputs, rules=rules, partitions=1)
    servers = running.services.bootstrap_servers
    xs = [0.3, -0.7, 1.1]
    with EventPublisher(servers, running.input_topic) as publisher:
        for key in ("left", "told"):
            for x in xs:
                publisher.publish(key, {"x": x})
    running.burst()
    answers = by_key(running.predictions())
    assert labels_of(answers["left"]) == labels_of(answers["told"])
    given = answers["told"][-1]["letter"]["label"]

    # When a new worker's first event of one of them carries another label than was given
    other = next(label for label in LETTERS if label != given)
    with EventPublisher(servers, running.input_topic) as publisher:
        publisher.publish("left", {"x": 0.2})
        publisher.publish("told", {"x": 0.2, "last_letter": other})
        publisher.publish("told", {"x": 0.2, "last_letter": None})
    running.burst()

    # Then it continues from that, and the other key from what was fed back
    answers = by_key(running.predictions())
    assert answers["left"][3] != answers["told"][3]
    told = [*({"x": x} for x in xs), {"x": 0.2, "last_letter": other}, {"x": 0.2}]
    expected = [answer["value"] for answer in running.model.answer_events(told, "told")]
    assert labels_of(answers["told"]) == labels_of(expected)
    running.published = 9
    running.assert_sequences()


def test_labels_are_drawn_the_same_after_a_loss_and_by_another_group(
    pipeline: MakeRunning, redis_client: redis.Redis
) -> None:
    # Given a model that draws what it feeds back, and events that were answered in two halves,
    # with all states lost in between
    rules = SequenceRules("synchronized", (Feedback("letter", "last_letter", 1.5),))
    net = shaped_net(random.Random(4), 5, 4)
    running = pipeline(net=net, inputs=[Number("x"), LAST_LETTER], outputs=[LETTER], rules=rules)
    records = [
        (b"key-%d" % (number % 7), json.dumps({"x": number % 5}).encode()) for number in range(300)
    ]
    running.publish_raw(records[:150])
    running.burst(batch_events_max=20, pool_slots=40)
    redis_client.flushall()
    running.publish_raw(records[150:])
    running.burst(batch_events_max=30, pool_slots=60)
    first = by_key(running.predictions())

    # When another group answers all of them at once
    running.output_topic = running.another_topic("again")
    running.burst()

    # Then it has drawn the same labels
    second = by_key(running.predictions())
    labels = [
        {key: labels_of(values) for key, values in answers.items()} for answers in (first, second)
    ]
    assert labels[0] == labels[1]
    assert len({label for drawn in labels[0].values() for label in drawn}) == len(LETTERS)
    running.assert_sequences()


def test_sequences_are_published_from_files_and_printed_with_their_steps(
    pipeline: MakeRunning, tmp_path: Path
) -> None:
    # Given a model that generates, and files with marks
    rules = SequenceRules(
        "encode-decode", (Feedback("letter", "last_letter"),), Generation(3, "letter", ".")
    )
    net = shaped_net(random.Random(6), 5, 4)
    inputs = [Number("x"), LAST_LETTER]
    running = pipeline(net=net, inputs=inputs, outputs=[LETTER], rules=rules, partitions=1)
    table, lines = tmp_path / "words.csv", tmp_path / "words.jsonl"
    table.write_text("word,x,steps_max,end\none,1,,\none,2,2,TRUE\ntwo,3,,\n")
    lines.write_text(
        '{"word": "three", "x": 1, "end": true, "steps_max": 1}\n'
        '{"word": "four", "x": 1}\n{"word": "four", "gone": true}\n{"word": "four", "end": true}\n'
    )

    def run(command: Any, *arguments: str) -> str:
        environment = {"LIVESTEP_BOOTSTRAP_SERVERS": running.services.bootstrap_servers}
        result = CliRunner().invoke(command, arguments, env=environment)
        assert result.exit_code == 0, result.output
        return result.stdout

    # When they are published, the second one's key ended by the command, and answered
    topic = ["--topic", running.input_topic, "--key", "word", "--marks"]
    run(publish, str(table), *topic, "--end-each-key")
    run(publish, str(lines), *topic, "--forget", "gone")
    running.published = 8
    running.burst()

    # Then each printed line of a generated record says its step, and the last one how it ended
    report = running.assert_sequences()
    assert report.dead_letters == 1  # the end of what was forgotten
    count = report.predictions
    show = ["--topic", running.output_topic, "--from-beginning", "--max", str(count)]
    printed = [json.loads(line) for line in run(predictions, *show).splitlines()]
    assert {line["key"] for line in printed} == {"one", "two", "three"}
    for key, bound in (("one", 2), ("two", 3), ("three", 1)):
        of_key = [line for line in printed if line["key"] == key]
        assert [line["step"] for line in of_key] == list(range(len(of_key)))
        assert ["finish" in line for line in of_key] == [False] * (len(of_key) - 1) + [True]
        has_stopped = of_key[-1]["value"]["letter"]["label"] == "."
        assert of_key[-1]["finish"] == ("stop" if has_stopped else "steps-max")
        assert has_stopped or len(of_key) == bound


def test_bad_marks_are_dead_letters_among_undisturbed_neighbours(pipeline: MakeRunning) -> None:
    # Given an open sequence, with bad marks in its middle
    rules = SequenceRules("encode-decode", (Feedback("letter", "last_letter"),), Generation(4))
    net = shaped_net(random.Random(5), 5, 4)
    inputs = [Number("x"), LAST_LETTER]
    running = pipeline(net=net, inputs=inputs, outputs=[LETTER], rules=rules, partitions=1)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"x": 1, "end": 1}, "bad-mark"),
        ({"x": 1, "end": True, "steps_max": 0}, "bad-steps-max"),
        ({"x": 1, "end": True, "steps_max": 5}, "bad-steps-max"),
        ({"x": 1, "end": True, "stop": True}, "unknown-feature"),
        ({"x": 1, "last_letter": "z", "end": True}, "unknown-category"),
    ]
    good = {"x": 0.5}
    running.publish_raw([(b"other", b'{"end": true}'), (b"k", json.dumps(good).encode())])
    for members, _ in bad:
        running.publish_raw([(b"k", json.dumps(members).encode()), (b"k", b'{"x": 0.5}')])
    running.publish_raw([(b"k", b'{"end": true}'), (b"k", b'{"end": true}')])

    # When they are answered
    running.burst()

    # Then each one is a dead letter with its reason, and the sequence is as if they were not there
    servers = running.services.bootstrap_servers
    with DeadLetterReader(servers, running.input_topic, from_beginning=True) as reader:
        reasons = [letter.reason for letter in reader.read(timeout_s=20, max_count=len(bad) + 2)]
    nothing = "end-without-beginning"
    assert sorted(reasons) == sorted([nothing, *(reason for _, reason in bad), nothing])
    steps = [one for one in running.predictions() if one.key == "k"]
    assert [one.timestep for one in steps] == [len(bad)] * 4
    running.assert_sequences()


@pytest.mark.parametrize(("example", "key_count"), [(vowels, 370), (spelling, 400)])
def test_a_stream_is_as_accurate_as_the_offline_run(
    pipeline: MakeRunning, monkeypatch: pytest.MonkeyPatch, example: Any, key_count: int
) -> None:
    # Given a small net that was trained for a short time
    monkeypatch.setattr(example, "EPOCHS", min(example.EPOCHS, 20) // 10)
    monkeypatch.setattr(example, "HIDDEN_SIZE", 48)
    chosen: Example = example.EXAMPLE
    trained = chosen.train(0, None)
    running = pipeline(
        net=trained.net,
        inputs=trained.inputs,
        outputs=trained.outputs,
        codec=trained.codec,
        rules=trained.rules,
    )

    # When its held-out events are streamed
    held_out = list(chosen.events(0, key_count))
    running.publish_raw([(one.key.encode(), json.dumps(one.event).encode()) for one in held_out])
    running.burst(batch_events_max=500)

    # Then the answers are as often right as those of the offline run
    offline = chosen.score(offline_answers(trained, held_out))
    streamed = chosen.score(by_key(running.predictions()))
    assert any(0 < figure < 1 for figure in offline.values()), offline
    assert streamed == pytest.approx(offline, abs=0.001)
