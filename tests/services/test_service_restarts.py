"""Kafka and Redis are killed and restarted: workers and publishers wait, and nothing is lost."""

from __future__ import annotations

import pytest

from livestep.deploy.local.services import LocalServices
from livestep.pipeline.audit.whole_log import read_whole_log
from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.clients.record_sender import PENDING_RECORDS_MAX, RecordSender
from tests.conftest import CreateTopic, TopicNames
from tests.services.conftest import MakeRunning
from tests.support.helpers import wait_until


@pytest.fixture(scope="module")
def services(own_services: LocalServices) -> LocalServices:
    """Kafka and Redis of this module's own, since its tests kill them."""
    return own_services


@pytest.fixture(scope="module")
def bootstrap_servers(services: LocalServices) -> str:
    """Address of that Kafka."""
    return services.bootstrap_servers


def test_a_redis_that_is_away_for_a_while_is_waited_for(
    pipeline: MakeRunning, services: LocalServices
) -> None:
    # Given a worker at work
    running = pipeline()
    worker = running.start(batch_events_max=20, pool_slots=40)
    running.publish(500, keys=200)
    running.wait_until_done()

    # When Redis is killed, events come, and Redis comes back with what its log has
    services.redis.kill()
    try:
        running.publish(1_000, keys=200)
        running.wait_for_log(worker, "livestep.store")
    finally:
        services.redis.start()

    # Then the worker continues, and nothing is wrong
    running.wait_until_done()
    worker.stop()
    assert worker.exit_code == 0, worker.log_tail()
    running.assert_truth()


def test_a_broker_that_is_killed_and_comes_back_is_waited_for(
    pipeline: MakeRunning, services: LocalServices
) -> None:
    # Given a worker at work
    running = pipeline()
    worker = running.start(batch_events_max=50, pool_slots=100, session_timeout_ms=6_000)
    running.publish(3_000)
    wait_until(lambda: running.lag() < 3_000, 90, "some progress")

    # When the broker is killed and comes back
    services.kafka.kill()
    services.kafka.start()
    running.publish(500)

    # Then the worker has waited, or has left and its successor continues; nothing is wrong
    wait_until(lambda: running.lag() == 0 or not worker.is_running, 90, "an end either way")
    worker.stop(30)
    assert "Traceback" not in worker.log_tail(10_000)
    running.burst()
    running.assert_truth()


def test_publishing_waits_for_a_broker_that_is_killed_and_restarted(
    services: LocalServices, create_topic: CreateTopic, topic_names: TopicNames
) -> None:
    # Given a broker that has acknowledged some records, and is killed while others are in flight
    topic = create_topic(topic_names(), 4, retention_ms="-1")
    sender = RecordSender({"bootstrap.servers": services.bootstrap_servers}, topic)
    count = PENDING_RECORDS_MAX + 500  # so that some must be acknowledged
    for number in range(1, count + 1):
        sender.send([EventRecord(number, number + 1, b"k%d" % (number % 50), b"%d" % number)])
    assert 0 < sender.delivered_count
    services.kafka.kill()
    # When it is back
    services.kafka.start()
    sender.flush()
    # Then each record is there once, and the records of a key are in order
    assert sender.delivered_count == count
    numbers: dict[int, list[int]] = {}
    for record in read_whole_log(services.bootstrap_servers, topic):
        numbers.setdefault(record.partition, []).append(int(record.value))
    for found in numbers.values():
        assert found == sorted(set(found))
    assert sum(map(len, numbers.values())) == count
