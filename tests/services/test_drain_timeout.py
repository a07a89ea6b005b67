"""A worker stops in time, whatever Redis and Kafka do, and the next one makes up for it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from livestep.deploy.local.child_process import ChildProcess
from livestep.deploy.local.jars import kafka_jars
from livestep.deploy.local.kafka_broker import KafkaBroker
from livestep.deploy.local.redis_server import RedisServer
from livestep.deploy.local.services import LocalServices
from tests.conftest import TopicNames
from tests.services.conftest import MakeRunning
from tests.services.running import Running, make_running
from tests.support.helpers import wait_until

#: Short, so that the tests are; the default is 20.
DRAIN_TIMEOUT_S = 6.0

#: For Python to end after that: with torch loaded it takes seconds on a busy machine.
SLACK_S = 8.0

#: Limits of a worker whose batches of a few keys are committed, and then wait to be saved.
SAVING = {"batch_events_max": 20, "pool_slots": 400, "save_queue_batches_max": 3}

#: Exit codes: all is done; Kafka did not answer; states were left unsaved; SIGTERM.
DONE, KAFKA, UNSAVED, TERMINATED = 0, 4, 10, 143


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, which may be frozen and killed."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.kill()
    server.release()


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker of this module's own, which may be frozen."""
    broker = KafkaBroker(kafka_jars(), tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.kill()
    broker.release()


def freeze(server: ChildProcess) -> None:
    """Let a server answer nothing, with its connections open."""
    server.pause()


def take_away(server: ChildProcess) -> None:
    """End a server."""
    server.kill()


def bring_back(server: ChildProcess) -> None:
    """Let a server answer again."""
    server.resume()
    server.start()


HARMS: dict[str, Callable[[ChildProcess], None]] = {"frozen": freeze, "away": take_away}


def told_to_stop(worker: ChildProcess) -> int:
    """Tell a worker to stop, and assert that it does so in time.

    Returns:
        code: How it has ended.
    """
    begin_s = time.monotonic()
    worker.signal(signal.SIGTERM)
    code = worker.wait(60)
    took_s = time.monotonic() - begin_s
    assert took_s < DRAIN_TIMEOUT_S + SLACK_S, f"{took_s:.1f} s\n{worker.log_tail(40)}"
    assert "Traceback" not in worker.log_tail(10_000)
    return code


def assert_made_up_for(running: Running, **settings: Any) -> None:
    """Let the next worker do the rest, and assert that each event is predicted once, rightly."""
    running.publish(100)
    successor = running.start(burst=True, **settings)
    assert successor.wait(120) == DONE, successor.log_tail()
    running.assert_truth()


@pytest.mark.parametrize("harm", HARMS)
def test_an_idle_worker_does_not_wait_for_redis(
    pipeline: MakeRunning, own_redis: RedisServer, harm: str
) -> None:
    running = pipeline()
    running.publish(300)
    options = {"redis_url": own_redis.url, "drain_timeout_s": DRAIN_TIMEOUT_S}
    worker = running.start(**options)
    running.wait_until_done()
    wait_until(lambda: " 0 events/s" in worker.log_tail(1), 60, "a status line of nothing to do")
    HARMS[harm](own_redis)
    assert told_to_stop(worker) == DONE
    bring_back(own_redis)
    assert_made_up_for(running, **options)


@pytest.mark.parametrize("harm", HARMS)
def test_a_worker_that_waits_to_save_stops_in_time_without_redis(
    pipeline: MakeRunning, own_redis: RedisServer, harm: str
) -> None:
    # Given a worker whose states are all in its pool
    running = pipeline()
    running.publish(400, keys=10)
    options = {"redis_url": own_redis.url, "drain_timeout_s": DRAIN_TIMEOUT_S, **SAVING}
    worker = running.start(**options)
    running.wait_until_done()
    # When Redis goes, and as many batches wait for it as may
    HARMS[harm](own_redis)
    running.publish(2_000, keys=10)
    running.wait_for_log(worker, "polling is held back")
    # Then it stops in time, and says that states are unsaved
    assert told_to_stop(worker) == UNSAVED
    assert "states unsaved" in worker.log_tail(1)
    bring_back(own_redis)
    assert_made_up_for(running, **options)


@pytest.mark.parametrize("harm", HARMS)
def test_a_worker_that_waits_to_load_stops_in_time_without_redis(
    pipeline: MakeRunning, own_redis: RedisServer, harm: str
) -> None:
    # Given a worker whose pool is too small for its keys
    running = pipeline()
    running.publish(400, keys=200)
    bounds = {"batch_events_max": 20, "pool_slots": 40}
    options = {"redis_url": own_redis.url, "drain_timeout_s": DRAIN_TIMEOUT_S, **bounds}
    worker = running.start(**options)
    running.wait_until_done()
    # When Redis goes, and there is more to do
    HARMS[harm](own_redis)
    running.publish(2_000, keys=200)
    running.wait_for_log(worker, "livestep.store: Redis at")
    # Then it stops in time: the batch in flight has not happened
    assert told_to_stop(worker) in (DONE, UNSAVED)
    bring_back(own_redis)
    assert_made_up_for(running, **options)


@pytest.mark.parametrize("harm", HARMS)
def test_a_worker_in_a_replay_stops_in_time_without_redis(
    pipeline: MakeRunning, own_redis: RedisServer, harm: str
) -> None:
    # Given a worker that replays a long log in small batches
    running = pipeline(partitions=1)
    running.publish(4_000)
    running.burst(redis_url=own_redis.url)
    with redis.Redis.from_url(own_redis.url) as client:
        client.flushall()
    bounds = {"batch_events_max": 4, "pool_slots": 16}
    options = {"redis_url": own_redis.url, "drain_timeout_s": DRAIN_TIMEOUT_S}
    worker = running.start(**options, **bounds)
    running.wait_for_log(worker, "replay from 0 to")
    # When Redis goes in the middle of it, and the worker waits for it
    HARMS[harm](own_redis)
    running.wait_for_log(worker, "livestep.store: Redis at")
    assert "replay done" not in worker.log_tail(1_000)
    # Then it stops in time
    assert told_to_stop(worker) in (DONE, UNSAVED)
    bring_back(own_redis)
    assert_made_up_for(running, **options)


@pytest.mark.parametrize("harm", HARMS)
def test_a_worker_that_takes_partitions_over_stops_in_time_without_redis(
    pipeline: MakeRunning, own_redis: RedisServer, harm: str
) -> None:
    # Given two workers, and then no Redis
    running = pipeline()
    running.publish(300)
    options = {"redis_url": own_redis.url, "drain_timeout_s": DRAIN_TIMEOUT_S}
    first, second = running.start(**options), running.start(**options)
    for worker in (first, second):
        running.wait_for_log(worker, "assigned partitions")
    running.wait_until_done()
    HARMS[harm](own_redis)
    # When one of them dies, and the other waits for Redis to take its partitions over
    first.kill()
    running.wait_for_log(second, "livestep.store: Redis at")
    # Then it stops in time
    assert told_to_stop(second) in (DONE, UNSAVED)
    bring_back(own_redis)
    assert_made_up_for(running, **options)


@pytest.mark.parametrize("harm", HARMS)
def test_a_worker_that_waits_for_redis_to_start_ends_at_once(
    pipeline: MakeRunning, own_redis: RedisServer, harm: str
) -> None:
    running = pipeline()
    HARMS[harm](own_redis)
    worker = running.start(redis_url=own_redis.url, drain_timeout_s=DRAIN_TIMEOUT_S)
    running.wait_for_log(worker, "livestep.store: Redis at")
    assert told_to_stop(worker) == TERMINATED
    assert worker.log_tail(1) == "error: ended by SIGTERM while the worker was starting"


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
@pytest.mark.parametrize("load", ["idle", "under load"])
def test_a_worker_stops_in_time_without_kafka(
    own_broker: KafkaBroker,
    own_redis: RedisServer,
    tmp_path: Path,
    topic_names: TopicNames,
    load: str,
    guarantee: str,
) -> None:
    # Given a worker on a broker that is frozen, idle or in the middle of a batch
    own_services = SimpleNamespace(
        bootstrap_servers=own_broker.bootstrap_servers, redis_url=own_redis.url
    )
    running = make_running(cast(LocalServices, own_services), tmp_path, topic_names("t"))
    options = {"drain_timeout_s": DRAIN_TIMEOUT_S, "guarantee": guarantee}
    try:
        running.publish(300)
        bounds = {"batch_events_max": 20, "pool_slots": 40} if load == "under load" else {}
        worker = running.start(**options, **bounds)
        if load == "idle":
            running.wait_until_done()
        else:
            running.publish(5_000)
            wait_until(lambda: 0 < running.lag() < 4_000, 60, "some events committed")
        freeze(own_broker)
        # Then it stops in time, by itself or by force
        assert told_to_stop(worker) in (DONE, KAFKA)
        bring_back(own_broker)
        # And each event is predicted, whatever happened to the batch in flight
        successor = running.start(burst=True, **options)
        assert successor.wait(120) == DONE, successor.log_tail()
        report = running.audit()
        assert report.events == running.published
        assert report.is_clean or (guarantee == "at-least-once" and load == "under load"), report
    finally:
        bring_back(own_broker)
        running.close()


def test_a_second_signal_ends_a_worker_at_once(
    pipeline: MakeRunning, own_redis: RedisServer
) -> None:
    # Given a worker that waits with unsaved states for a Redis that is away, for a long time
    running = pipeline()
    running.publish(400, keys=10)
    options = {"redis_url": own_redis.url, **SAVING}
    worker = running.start(**options, drain_timeout_s=300.0)
    running.wait_until_done()
    take_away(own_redis)
    # Batches that are committed: one that waits to load its states may be given up, and leaves
    # nothing unsaved.
    running.publish(2_000, keys=10)
    running.wait_for_log(worker, "polling is held back")
    worker.signal(signal.SIGTERM)
    # Signals that are pending together are not taken in the order in which they were sent.
    running.wait_for_log(worker, "livestep.engine: SIGTERM: stopping within 300 s")
    # When it is told again
    worker.signal(signal.SIGINT)
    assert worker.wait(10) == 130
    assert worker.log_tail(1) == "error: ended at once by a second signal, SIGINT"
    bring_back(own_redis)
    assert_made_up_for(running, **options)
