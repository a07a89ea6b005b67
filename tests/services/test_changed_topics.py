"""The topics change under real workers: created again, given partitions, begun above offset 0."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    NewPartitions,
    NewTopic,
)

from livestep.deploy.local.child_process import ChildProcess
from livestep.deploy.local.services import LocalServices
from livestep.models.sequences.rules import SequenceRules
from tests.services.conftest import MakeRunning
from tests.services.running import UNREACHABLE_REDIS, Running
from tests.support.helpers import wait_until

#: Of a worker that leaves because log and states disagree, and of one that Kafka refuses.
STATE_EXIT, BROKER_EXIT = 7, 4

Recreate = Callable[..., None]


@pytest.fixture
def admin(services: LocalServices) -> AdminClient:
    return AdminClient({"bootstrap.servers": services.bootstrap_servers})


@pytest.fixture
def recreate(admin: AdminClient) -> Iterator[Recreate]:
    """Delete a topic and create it again, at once."""

    def is_created(topic: str, partitions: int) -> bool:
        try:
            admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)
        except KafkaException as error:
            assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS, error
            return False
        return True

    def run(topic: str, partitions: int = 1) -> None:
        admin.delete_topics([topic])[topic].result(30)
        wait_until(lambda: is_created(topic, partitions), 60, "the new topic")

    yield run


def publish(running: Running, keys: list[str]) -> None:
    """Publish an event of each of these keys."""
    event = json.dumps({"x": [0.5, -0.5, 1.0]}).encode()
    running.publish_raw([(key.encode(), event) for key in keys])


def left_with(worker: ChildProcess, code: int, *texts: str) -> None:
    """Assert that a worker ends with this code, and says this in its last words."""
    assert worker.wait(90) == code, worker.log_tail(10_000)
    for text in texts:
        assert text in worker.log_tail(10_000)


@pytest.mark.parametrize("new_events", [8, 3], ids=["longer than before", "still shorter"])
def test_a_topic_created_again_is_predicted_from_its_first_event_and_nothing_is_skipped(
    pipeline: MakeRunning, recreate: Recreate, new_events: int
) -> None:
    # Given a worker that has predicted five events, and is idle
    running = pipeline(partitions=1)
    worker = running.start()
    publish(running, ["a"] * 5)
    running.wait_until_done()
    # When its topic is deleted, created, and at once has events, also behind its position
    recreate(running.input_topic)
    running.published = 0
    publish(running, ["a"] * new_events)
    # Then it reports that, and what a restart does
    left_with(
        worker,
        STATE_EXIT,
        f"topic {running.input_topic} was deleted and created again",
        "A restart begins with the new topic's first event",
    )
    assert len(running.predictions()) == 5
    # And a restart does it: all events, from timestep 0 on
    recreate(running.output_topic)
    running.burst()
    found = [prediction.timestep for prediction in running.predictions()]
    assert found == list(range(new_events))
    running.assert_truth()


def test_no_event_is_predicted_once_the_topic_has_more_partitions(
    pipeline: MakeRunning, admin: AdminClient
) -> None:
    # Given twenty keys on two partitions, each predicted once
    running = pipeline(partitions=2)
    worker = running.start()
    keys = [f"key-{number}" for number in range(20)]
    publish(running, keys)
    running.wait_until_done()
    # When there are three, and all keys come again
    topic = running.input_topic
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
    publish(running, keys)
    # Then none of them begins again
    left_with(worker, STATE_EXIT, f"topic {topic} has 3 partitions", "topics copy")
    assert [prediction.timestep for prediction in running.predictions()] == [0] * 20
    # And nor does a burst say that the log is read to its end
    burst = running.start(burst=True)
    left_with(burst, STATE_EXIT, f"topic {topic} has 3 partitions")


def test_a_model_without_states_soon_predicts_on_partitions_that_are_added(
    pipeline: MakeRunning, admin: AdminClient
) -> None:
    running = pipeline(partitions=2, rules=SequenceRules("one-to-one"))
    worker = running.start(redis_url=UNREACHABLE_REDIS)
    keys = [f"key-{number}" for number in range(20)]
    publish(running, keys)
    running.wait_until_done()
    topic = running.input_topic
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
    publish(running, keys)
    wait_until(lambda: len(running.predictions()) == 40, 60, "all predictions")
    worker.stop()
    assert {prediction.source.partition for prediction in running.predictions()} == {0, 1, 2}
    running.assert_truth()


def test_a_worker_reports_that_its_output_topic_was_replaced_or_deleted(
    pipeline: MakeRunning, recreate: Recreate, admin: AdminClient
) -> None:
    running = pipeline(partitions=1)
    worker = running.start()
    publish(running, ["a"])
    running.wait_until_done()
    # Created again: it continues there
    output = running.output_topic
    recreate(output)
    running.wait_for_log(worker, f"topic {output} was deleted and created again")
    publish(running, ["a"])
    running.wait_until_done()
    assert [prediction.timestep for prediction in running.predictions()] == [1]
    # Deleted: it ends with the next event, and says what to do
    admin.delete_topics([output])[output].result(30)
    running.wait_for_log(worker, f"topic {output} was deleted: what is written to it next")
    publish(running, ["a"])
    left_with(worker, BROKER_EXIT, f"livestep topics create {output}")


def test_a_first_run_on_a_log_whose_beginning_is_gone_warns(
    pipeline: MakeRunning, admin: AdminClient
) -> None:
    running = pipeline(partitions=1)
    publish(running, ["a"] * 8)
    first = TopicPartition(running.input_topic, 0, 6)
    admin.delete_records([first])[first].result(30)
    worker = running.start(burst=True)
    left_with(worker, 0, "partition 0 begins at offset 6 (6 offsets are gone)", "retention.ms=-1")
    assert [prediction.timestep for prediction in running.predictions()] == [0, 1]
