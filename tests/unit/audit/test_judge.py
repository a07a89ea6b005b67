"""The judge of `livestep audit`: right records pass, and each kind of fault is found."""

import random
from types import SimpleNamespace

import numpy as np
import orjson
import pytest
import torch

from livestep import GRU, Category, Number, load_model, save_model
from livestep.pipeline.audit.audit_report import Fault
from livestep.pipeline.audit.judge import Judge
from livestep.pipeline.audit.unrolled import unroll_log
from livestep.pipeline.records import Source, dead_letter_headers
from tests.support.prediction_headers import prediction_headers
from tests.support.worker_records import answers_to, event_value

WEATHER = Category("weather", ("sunny", "rainy"))
DISH = Category("dish", ("1", "2", "3"))
PARTITIONS = 2


@pytest.fixture(params=["json", "float32"])
def model(request, tmp_path):
    torch.manual_seed(1)
    net = GRU(input_size=4, hidden_size=8, output_size=5)
    outputs = [DISH, Number("y", 2)]
    save_model(net, tmp_path, [WEATHER, Number("x", 2)], outputs, codec=request.param)
    return load_model(tmp_path)


class Log:
    """Five keys on two partitions, events of all keys mixed."""

    def __init__(self, model):
        draw = random.Random(3)
        self.model = model
        self.records = []
        self.events = {}
        self.places = {}
        next_offset = [0, 10]  # One partition has lost its first records.
        for _ in range(60):
            key = b"flat-%d" % draw.randrange(5)
            partition = key[-1] % PARTITIONS
            offset = next_offset[partition]
            next_offset[partition] += draw.choice([1, 1, 3])  # Transactions leave gaps.
            event = {
                "weather": draw.choice(["sunny", "rainy"]),
                "x": [draw.gauss(0, 1), draw.gauss(0, 1)],
            }
            self.add(key, partition, offset, event)

    def add(self, key, partition, offset, event):
        value = event_value(event, self.model)
        self.records.append(
            SimpleNamespace(
                partition=partition,
                offset=offset,
                key=key,
                value=value,
                timestamp=1_000,
                headers=[],
            )
        )
        self.events.setdefault(key, []).append(event)
        self.places.setdefault(key, []).append(("events", partition, offset))

    def answers(self):
        return {
            key: answers_to(key, self.places[key], self.events[key], self.model)
            for key in self.events
        }


@pytest.fixture
def log(model):
    return Log(model)


@pytest.fixture
def answers(log):
    return log.answers()


def judged(log, answers, dead_letters=(), rounding="exact"):
    judge = Judge("events", PARTITIONS, log.model, rounding=rounding)
    for letter in dead_letters:
        judge.take_dead_letter(letter)
    judge.take_events(unroll_log(log.records, log.model, judge.dead, lambda *_: None))
    # Keys take turns, as a worker mixes them.
    queues = [list(queue) for queue in answers.values()]
    while any(queues):
        for queue in queues:
            if queue:
                judge.take_prediction(queue.pop(0))
    return judge.report()


def faults(report):
    return report.lost, report.repeated, report.out_of_order, report.different


def dead_letter(record, topic="events"):
    source = Source(topic, record.partition, record.offset)
    headers = dead_letter_headers([], "not-json", "no JSON", source)
    return SimpleNamespace(
        topic="events.dead-letter", partition=0, offset=0, key=record.key, headers=headers
    )


def test_right_answers_are_clean(log, answers):
    report = judged(log, answers)
    assert faults(report) == (0, 0, 0, 0)
    assert report.is_clean
    assert (report.events, report.predictions, report.keys) == (60, 60, 5)
    assert report.max_difference == 0
    assert report.examples == ()


def test_a_prediction_that_is_missing_is_lost(log, answers):
    del answers[b"flat-2"][3]
    report = judged(log, answers)
    assert faults(report) == (1, 0, 0, 0)
    assert not report.is_clean
    topic, partition, offset = log.places[b"flat-2"][3]
    assert report.examples == (
        Fault("lost", topic, partition, offset, "flat-2", "the answer to this event is missing"),
    )
    assert str(report.examples[0]).startswith(f"lost: {topic}/{partition}/{offset}, key 'flat-2'")


def test_a_duplicate_prediction_is_repeated(log, answers):
    answers[b"flat-2"].insert(3, answers[b"flat-2"][2])
    assert faults(judged(log, answers)) == (0, 1, 0, 0)


def test_two_swapped_predictions_are_out_of_order(log, answers):
    queue = answers[b"flat-2"]
    queue[2], queue[3] = queue[3], queue[2]
    assert faults(judged(log, answers)) == (0, 0, 1, 0)


def test_two_swapped_values_are_different(log, answers):
    queue = answers[b"flat-2"]
    queue[2], queue[3] = (
        queue[2].but(value=queue[3].value),
        queue[3].but(value=queue[2].value),
    )
    assert faults(judged(log, answers)) == (0, 0, 0, 2)


def test_a_wrong_timestep_is_out_of_order(log, answers):
    queue = answers[b"flat-2"]
    place = log.places[b"flat-2"][3]
    headers = prediction_headers(Source(*place).to_bytes(), 4, log.model.fingerprint.encode())
    queue[3] = queue[3].but(headers=headers)
    assert faults(judged(log, answers)) == (0, 0, 1, 0)


def test_a_changed_number_is_different_and_measured(log, answers):
    queue = answers[b"flat-2"]
    if log.model.codec == "json":
        members = orjson.loads(queue[3].value)
        members["y"][1] += 0.5
        value = orjson.dumps(members)
    else:
        numbers = np.frombuffer(queue[3].value, "<f4").copy()
        numbers[4] += 0.5
        value = numbers.tobytes()
    queue[3] = queue[3].but(value=value)
    report = judged(log, answers)
    assert faults(report) == (0, 0, 0, 1)
    assert report.max_difference == pytest.approx(0.5, abs=1e-5)


def test_the_last_bit_of_a_number_counts_unless_rounding_is_free(log, answers):
    queue = answers[b"flat-2"]
    if log.model.codec == "json":
        members = orjson.loads(queue[3].value)
        members["y"][1] = float(np.nextafter(np.float32(members["y"][1]), np.float32(9)))
        value = orjson.dumps(members)
    else:
        numbers = np.frombuffer(queue[3].value, "<f4").copy()
        numbers[4] = np.nextafter(numbers[4], np.float32(9))
        value = numbers.tobytes()
    queue[3] = queue[3].but(value=value)
    report = judged(log, answers)
    assert faults(report) == (0, 0, 0, 1)
    assert 0 < report.max_difference < 1e-6
    free = judged(log, answers, rounding="free")
    assert free.is_clean
    assert 0 < free.max_difference < 1e-6


def test_predictions_after_a_lost_state_are_different(log, answers):
    key = b"flat-2"
    restarted = answers_to(key, log.places[key][4:], log.events[key][4:], log.model)
    answers[key][4:] = [
        new.but(headers=old.headers) for new, old in zip(restarted, answers[key][4:], strict=True)
    ]
    assert judged(log, answers).different == len(restarted)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": b"flat-3"},
        {"timestamp": 999},
        {"partition": 1},
        {"value": None},
        {"value": b"[]"},
        {"value": b"{"},
        {"value": b"{}"},
        {"headers": []},
    ],
    ids=repr,
)
def test_a_malformed_record_is_different(log, answers, changes):
    key = b"flat-2"
    answers[key][3] = answers[key][3].but(**changes)
    lost = 1 if "headers" in changes else 0
    assert faults(judged(log, answers)) == (lost, 0, 0, 1)


@pytest.mark.parametrize("source", [Source("other", 0, 0), Source("events", 0, 10_000)], ids=str)
def test_an_answer_to_a_missing_event_is_different(log, answers, source):
    headers = prediction_headers(source.to_bytes(), 0, log.model.fingerprint.encode())
    answers[b"flat-2"].append(answers[b"flat-2"][0].but(headers=headers))
    assert faults(judged(log, answers)) == (0, 0, 0, 1)


def test_an_answer_of_another_model_is_different(log, answers):
    headers = prediction_headers(Source(*log.places[b"flat-2"][0]).to_bytes(), 0, b"0" * 16)
    answers[b"flat-2"][0] = answers[b"flat-2"][0].but(headers=headers)
    assert faults(judged(log, answers)) == (0, 0, 0, 1)


def test_dead_letters_answer_their_events_and_take_no_timestep(log):
    answers = log.answers()
    bad = log.records[0].__class__(**{**vars(log.records[0]), "offset": 2_000, "value": b"{"})
    log.records.insert(5, bad)
    report = judged(log, answers, [dead_letter(bad)])
    assert faults(report) == (0, 0, 0, 0)
    assert report.dead_letters == 1
    # Without the dead letter, the bad event is lost.
    assert faults(judged(log, answers)) == (1, 0, 0, 0)


def test_a_prediction_for_a_dead_letter_is_repeated(log, answers):
    topic, partition, offset = log.places[b"flat-2"][-1]
    letter = dead_letter(SimpleNamespace(partition=partition, offset=offset, key=b"flat-2"))
    assert faults(judged(log, answers, [letter])) == (0, 1, 0, 0)


def test_dead_letters_of_missing_events_and_of_another_topic_are_different(log, answers):
    nowhere = SimpleNamespace(partition=0, offset=10_000, key=b"flat-2")
    letters = [dead_letter(nowhere), dead_letter(nowhere, "other")]
    assert faults(judged(log, answers, letters)) == (0, 0, 0, 2)


def changed_dish(answer, **members):
    value = orjson.loads(answer.value)
    value["dish"].update(members)
    return answer.but(value=orjson.dumps(value))


@pytest.mark.parametrize("model", ["json"], indirect=True)
def test_a_label_that_is_not_the_most_probable_is_different(log, answers):
    answer = answers[b"flat-2"][3]
    probabilities = orjson.loads(answer.value)["dish"]["probabilities"]
    least = min(probabilities, key=probabilities.get)
    answers[b"flat-2"][3] = changed_dish(answer, label=least)
    assert faults(judged(log, answers)) == (0, 0, 0, 1)


@pytest.mark.parametrize("model", ["json"], indirect=True)
@pytest.mark.parametrize(
    "members",
    [
        {"label": "4"},
        {"label": None},
        {"probabilities": {"1": 1.0}},
        {"probabilities": {"1": "1", "2": 0.0, "3": 0.0}},
        {"probabilities": {"1": None, "2": 0.0, "3": 0.0}},
        {"sure": True},
    ],
    ids=repr,
)
def test_a_malformed_category_is_different(log, answers, members):
    answers[b"flat-2"][3] = changed_dish(answers[b"flat-2"][3], **members)
    assert faults(judged(log, answers)) == (0, 0, 0, 1)
