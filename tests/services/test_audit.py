"""The audit on a real broker: clean topics pass, and each kind of fault is found."""

import contextlib
import random

import confluent_kafka
import pytest
import torch

from livestep import GRU, Category, Number, load_model, save_model
from livestep.pipeline.audit.output_audit import audit
from livestep.pipeline.audit.whole_log import read_whole_log
from livestep.pipeline.clients.readers import EventPublisher
from livestep.pipeline.errors import BrokerError
from livestep.pipeline.records import Source, dead_letter_headers, dead_letter_topic
from tests.support.worker_records import answers_to

KEYS = [f"flat-{number}" for number in range(6)]
EVENTS = 120
PARTITIONS = 3


@pytest.fixture(params=["json", "float32"])
def model(request, tmp_path):
    torch.manual_seed(1)
    net = GRU(input_size=2, hidden_size=8, output_size=5)
    outputs = [Category("dish", ("1", "2", "3")), Number("y", 2)]
    save_model(net, tmp_path, [Number("x", 2)], outputs, codec=request.param)
    return load_model(tmp_path)


@contextlib.contextmanager
def plain_producer(bootstrap_servers):
    """A producer without transactions; at the end of the block everything has arrived."""
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap_servers})
    yield producer
    assert producer.flush(30) == 0


class Run:
    """An input topic with events, and what a worker would write to it."""

    def __init__(self, bootstrap_servers, input_topic, output_topic, model):
        self.bootstrap_servers = bootstrap_servers
        self.input_topic = input_topic
        self.output_topic = output_topic
        self.model = model
        self.answers = {}
        self._publish()
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": bootstrap_servers, "transactional.id": "test-audit"}
        )
        self._producer.init_transactions()

    def _publish(self):
        draw = random.Random(5)
        vectors = {}
        with EventPublisher(
            self.bootstrap_servers, self.input_topic, codec=self.model.codec
        ) as publisher:
            for number in range(EVENTS):
                key = draw.choice(KEYS)
                vector = [draw.gauss(0, 1), draw.gauss(0, 1)]
                publisher.publish(key, vector, timestamp_ms=1_000 + number)
                vectors.setdefault(key.encode(), []).append(vector)
        records = {}
        for record in read_whole_log(self.bootstrap_servers, self.input_topic):
            records.setdefault(record.key, []).append(record)
        for key, mine in records.items():
            places = [(self.input_topic, record.partition, record.offset) for record in mine]
            events = [{"x": vector} for vector in vectors[key]]
            self.answers[key] = [
                answer.but(timestamp=record.timestamp)
                for answer, record in zip(
                    answers_to(key, places, events, self.model), mine, strict=True
                )
            ]

    def write(self, answers, *, commit=True):
        """Write predictions in one transaction."""
        self._producer.begin_transaction()
        for answer in answers:
            self._producer.produce(
                self.output_topic,
                answer.value,
                key=answer.key,
                partition=answer.partition,
                timestamp=answer.timestamp,
                headers=answer.headers,
            )
        self._producer.flush()
        if commit:
            self._producer.commit_transaction()
        else:
            self._producer.abort_transaction()

    def write_all(self):
        """Write every prediction, in some transactions that mix the keys."""
        queues = [list(queue) for queue in self.answers.values()]
        while any(queues):
            self.write([answer for queue in queues for answer in queue[:8]])
            queues = [queue[8:] for queue in queues]

    def audit(self, **options):
        return audit(
            self.bootstrap_servers, self.input_topic, self.output_topic, self.model, **options
        )

    def faults(self):
        report = self.audit()
        assert report.is_clean == (not report.examples)
        return report.lost, report.repeated, report.out_of_order, report.different


@pytest.fixture
def run(bootstrap_servers, create_topic, topic_names, model):
    # Kafka deletes by the records' own time, and those of these tests are from 1970.
    events, predictions = (
        create_topic(topic_names(prefix), PARTITIONS, retention_ms="-1")
        for prefix in ("events", "predictions")
    )
    return Run(bootstrap_servers, events, predictions, model)


def test_right_predictions_are_clean(run):
    run.write_all()
    report = run.audit()
    assert report.is_clean, report
    assert (report.events, report.predictions, report.keys) == (EVENTS, EVENTS, len(KEYS))
    assert report.dead_letters == 0
    assert report.max_difference < 1e-6


def test_what_an_aborted_transaction_held_was_never_there(run):
    run.write(run.answers[b"flat-1"], commit=False)
    run.write_all()
    run.write(run.answers[b"flat-2"], commit=False)
    assert run.audit().is_clean


def test_lost_predictions_are_found(run):
    del run.answers[b"flat-1"][-2:]
    run.write_all()
    assert run.faults() == (2, 0, 0, 0)


def test_an_output_topic_without_records_has_lost_everything(run):
    assert run.faults() == (EVENTS, 0, 0, 0)


def test_repeated_predictions_are_found(run):
    run.write_all()
    run.write(run.answers[b"flat-1"][:3])
    assert run.faults() == (0, 3, 0, 0)


def test_swapped_predictions_are_found(run):
    queue = run.answers[b"flat-1"]
    queue[4], queue[5] = queue[5], queue[4]
    run.write_all()
    assert run.faults() == (0, 0, 1, 0)


def test_altered_predictions_are_found(run):
    first, second = run.answers[b"flat-1"][:2]
    run.answers[b"flat-1"][:2] = [first.but(value=second.value), second]
    run.write_all()
    assert run.faults() == (0, 0, 0, 1)


def test_predictions_on_the_wrong_partition_are_found(run):
    answer = run.answers[b"flat-1"][-1]
    run.answers[b"flat-1"][-1] = answer.but(partition=(answer.partition + 1) % PARTITIONS)
    run.write_all()
    assert run.faults() == (0, 0, 0, 1)


def test_an_event_in_the_dead_letter_topic_is_not_lost(run, bootstrap_servers, create_topic):
    run.write_all()
    with plain_producer(bootstrap_servers) as producer:
        producer.produce(run.input_topic, b"bad", key=b"flat-1", partition=0)
    assert run.faults() == (1, 0, 0, 0)
    *_, bad = (
        record
        for record in read_whole_log(bootstrap_servers, run.input_topic)
        if record.value == b"bad"
    )
    letters = create_topic(dead_letter_topic(run.input_topic), 1)
    source = Source(run.input_topic, bad.partition, bad.offset)
    with plain_producer(bootstrap_servers) as producer:
        headers = dead_letter_headers([], "not-json", "no JSON", source)
        producer.produce(letters, b"bad", key=b"flat-1", headers=headers)
    assert run.faults() == (0, 0, 0, 0)
    assert run.audit().dead_letters == 1


def test_progress_is_shown_for_each_stage(run):
    run.write_all()
    seen = {}
    run.audit(on_progress=lambda what, done, total: seen.update({what: (done, total)}))
    assert list(seen) == [
        f"reading {run.input_topic}",
        "unrolling",
        f"reading {run.output_topic}",
    ]
    assert all(done == total > 0 for done, total in seen.values())


def test_a_missing_topic_is_an_error(bootstrap_servers, topic_names, model):
    with pytest.raises(BrokerError, match="no topic"):
        audit(bootstrap_servers, topic_names("a"), topic_names("b"), model)
