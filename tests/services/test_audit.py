"""The audit on a real broker: clean topics pass, and each kind of fault is found."""

import contextlib
import json
import random
import subprocess
import sys
from collections import Counter

import confluent_kafka
import confluent_kafka.admin
import kafka
import pytest
import torch
from click.testing import CliRunner

from livestep import GRU, Category, Number, load_model, save_model
from livestep.pipeline.audit.output_audit import audit
from livestep.pipeline.audit.whole_log import read_whole_log
from livestep.pipeline.clients.readers import EventPublisher
from livestep.pipeline.commands.audit import audit as audit_command
from livestep.pipeline.errors import MissingTopicError
from livestep.pipeline.records import (
    Source,
    dead_letter_headers,
    dead_letter_topic,
    read_prediction_headers,
)
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

    def __init__(self, bootstrap_servers, input_topic, output_topic, model, directory):
        self.directory = str(directory)
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

    def flags(self, *more):
        """Flags of `livestep audit`; the model's directory comes with the fixture."""
        return [
            *("--bootstrap-servers", self.bootstrap_servers, "--model", self.directory),
            *("--input-topic", self.input_topic, "--output-topic", self.output_topic, *more),
        ]

    def command(self, *more):
        return CliRunner().invoke(audit_command, self.flags(*more))

    def commit(self, offsets):
        """Commit offsets as a worker's group does."""
        group = f"livestep.{self.output_topic}"
        # This client waits while the coordinator of a new group starts.
        consumer = kafka.KafkaConsumer(bootstrap_servers=self.bootstrap_servers, group_id=group)
        with contextlib.closing(consumer):
            consumer.commit(
                {
                    kafka.TopicPartition(self.input_topic, partition): (
                        kafka.OffsetAndMetadata(offset, "", -1)
                    )
                    for partition, offset in offsets.items()
                }
            )
        return group

    def audit(self, **options):
        return audit(
            self.bootstrap_servers, self.input_topic, self.output_topic, self.model, **options
        )

    def faults(self):
        report = self.audit()
        assert report.is_clean == (not report.examples)
        return report.lost, report.repeated, report.out_of_order, report.different


@pytest.fixture
def run(bootstrap_servers, create_topic, topic_names, model, tmp_path):
    # Kafka deletes by the records' own time, and those of these tests are from 1970.
    events, predictions = (
        create_topic(topic_names(prefix), PARTITIONS, retention_ms="-1")
        for prefix in ("events", "predictions")
    )
    return Run(bootstrap_servers, events, predictions, model, tmp_path)


def test_right_predictions_are_clean(run):
    run.write_all()
    report = run.audit()
    assert report.is_clean, report
    assert (report.events, report.predictions, report.keys) == (EVENTS, EVENTS, len(KEYS))
    assert report.dead_letters == 0
    assert report.max_difference == 0


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
    with pytest.raises(MissingTopicError, match="does not exist"):
        audit(bootstrap_servers, topic_names("a"), topic_names("b"), model)


def test_events_that_the_group_has_not_committed_are_not_judged(run):
    # Given a worker that has answered and committed the first half of each partition
    counts = Counter(answer.partition for queue in run.answers.values() for answer in queue)
    half = {partition: count // 2 for partition, count in counts.items()}
    for key, queue in run.answers.items():
        run.answers[key] = [one for one in queue if source_of(one) < half[one.partition]]
    run.write_all()
    group = run.commit(half)
    # When its group is named, all is well
    report = run.audit(group=group)
    assert report.is_clean, report
    assert 0 < report.events == report.predictions < EVENTS
    assert all("not committed" in note for note in report.notes) and report.notes
    # And an answer that is lost among the committed ones is still found
    assert run.audit().lost == EVENTS - report.predictions
    # And the command asks for the worker's default group
    assert run.command().exit_code == 0


def test_answers_to_events_that_the_topic_no_longer_has_are_not_judged(run):
    run.write_all()
    queue = run.answers[b"flat-1"]
    gone = source_of(queue[-1]) + 1
    partition = queue[0].partition
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": run.bootstrap_servers})
    place = confluent_kafka.TopicPartition(run.input_topic, partition, gone)
    (done,) = admin.delete_records([place]).values()
    done.result(30)
    report = run.audit()
    assert (report.events, report.not_judged, report.lost) == (EVENTS - gone, gone, 0)
    assert f"partition {partition} of {run.input_topic} begins at offset {gone}" in report.notes[0]


def test_the_command_of_a_clean_topic_exits_with_0_and_writes_nothing_else(run):
    run.write_all()
    done = subprocess.run(
        [sys.executable, "-m", "livestep.pipeline.cli", "audit", *run.flags()],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert f"events {EVENTS:>19}  of {len(KEYS)} keys" in done.stdout
    assert f"note: group 'livestep.{run.output_topic}' has no committed offsets" in done.stdout


def test_the_command_names_partition_offset_and_key_of_a_lost_answer_and_exits_with_1(run):
    lost = run.answers[b"flat-1"].pop()
    run.write_all()
    done = run.command()
    assert done.exit_code == 1
    place = f"{run.input_topic}/{lost.partition}/{source_of(lost)}"
    assert f"lost: {place}, key 'flat-1': the answer to this event is missing" in done.stdout
    found = json.loads(run.command("--json").stdout)
    assert (found["is_clean"], found["lost"], found["repeated"]) == (False, 1, 0)
    assert [(one["offset"], one["key"]) for one in found["examples"]] == [
        (source_of(lost), "flat-1")
    ]


def test_the_command_covers_only_the_keys_that_are_named(run):
    run.answers[b"flat-1"].pop()
    run.write_all()
    assert run.command("--key", "flat-1").exit_code == 1
    others = run.command("--key", "flat-2", "--key", "flat-3", "--json")
    assert others.exit_code == 0
    found = json.loads(others.stdout)
    count = len(run.answers[b"flat-2"]) + len(run.answers[b"flat-3"])
    assert (found["keys"], found["events"], found["predictions"]) == (2, count, count)


def test_repeated_answers_are_no_fault_at_least_once(run):
    run.write_all()
    run.write(run.answers[b"flat-1"][:3])
    assert run.command().exit_code == 1
    assert run.command("--guarantee", "at-least-once").exit_code == 0


def test_the_command_names_a_missing_topic(run):
    run.output_topic = f"{run.output_topic}.missing"
    with pytest.raises(MissingTopicError, match=run.output_topic):
        CliRunner().invoke(audit_command, run.flags(), catch_exceptions=False)
    letters = run.flags("--output-topic", run.input_topic + ".x", "--dead-letter-topic", "nowhere")
    with pytest.raises(MissingTopicError, match="does not exist"):
        CliRunner().invoke(audit_command, letters, catch_exceptions=False)


def source_of(answer):
    """Return the offset of the event that an answer names."""
    return read_prediction_headers(answer.headers).source.offset
