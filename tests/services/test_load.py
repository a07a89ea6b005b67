"""More than a worker can do, all on one key, a slow Redis, nothing to do, other partitions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient, NewPartitions

from livestep import GRU
from livestep.deploy.local.child_process import ChildProcess
from livestep.pipeline.commands.topics import topics
from livestep.pipeline.errors import PartitionsChangedError
from livestep.pipeline.kafka.topic_setup import describe_topics
from tests.load.measures import left_behind, redis_use
from tests.load.rig import feed_for
from tests.services.conftest import MakeRunning
from tests.services.running import PATIENT_SESSION_TIMEOUT_MS, Running, make_running
from tests.support.helpers import wait_until
from tests.support.rig.kafka_clients import RandomFeed
from tests.support.rig.machine import sample_process
from tests.support.rig.status_lines import statuses

#: What one worker's memory may grow by while it has far too much to do: its buffers, once.
GROWTH_KB_MAX = 200_000

#: Nobody kills a worker here.
PATIENT = {"session_timeout_ms": PATIENT_SESSION_TIMEOUT_MS}


@pytest.fixture
def feeds() -> Iterator[Any]:
    """A maker of feeds, closed at the end."""
    made: list[RandomFeed] = []

    def make(running: Running) -> RandomFeed:
        made.append(feed_for(running))
        return made[-1]

    yield make
    for feed in made:
        feed.close()


def tells_of_waiting(worker: ChildProcess) -> bool:
    """Whether a status line says that batches wait for Redis."""
    lines = worker.log_tail(10_000).splitlines()
    return any(" partitions, " in line and " batches wait for Redis" in line for line in lines)


def raw(pipeline: MakeRunning, **options: Any) -> Running:
    """Make a pipeline with raw vectors as events."""
    return pipeline(net=GRU(input_size=4, hidden_size=8, output_size=1), codec="float32", **options)


def test_ten_times_too_much_makes_lag_and_full_batches_and_no_more_memory(
    pipeline: MakeRunning, feeds: Any
) -> None:
    # Given a worker with batches of 100 at most, that has seen some events
    running = raw(pipeline)
    feed = feeds(running)
    feed.publish(feed.random_keys(1_000, keys=200))
    feed.flush()
    worker = running.start(batch_events_max=100, pool_slots=200, **PATIENT)
    running.wait_until_done()
    before = sample_process(worker.pid)

    # When much more comes at once than it can do
    feed.publish(feed.random_keys(10_000, keys=200))
    feed.flush()
    running.wait_until_done()

    # Then batches have grown up to the bound, memory has not, and all is as if it had come slowly
    after = sample_process(worker.pid)
    worker.stop(60)
    assert 50 < max(status.events_a_batch for status in statuses(worker)) <= 100
    assert max(status.lag for status in statuses(worker)) > 1_000
    assert after.rss_kb - before.rss_kb < GROWTH_KB_MAX
    assert after.threads <= before.threads + 2
    running.assert_truth()


def test_one_key_with_all_the_load_keeps_its_order_and_starves_no_other(
    pipeline: MakeRunning, feeds: Any
) -> None:
    # Given one key with nearly all events, and others that come after them
    running = raw(pipeline)
    feed = feeds(running)
    feed.publish(b"other-%d" % (i // 500) if i % 500 == 0 else b"hot" for i in range(8_000))
    feed.flush()
    # When a worker predicts them
    running.burst(batch_events_max=500, pool_slots=1_000)
    # Then each key has its events, in order
    running.assert_truth()
    found = running.predictions()
    assert [p.timestep for p in found if p.key == "hot"] == list(range(8_000 - 16))
    assert len({p.key for p in found}) == 17


def test_many_keys_go_through_a_small_pool(pipeline: MakeRunning, feeds: Any) -> None:
    # Given thirty times more keys than the pool has slots, each with two events far apart
    running = raw(pipeline)
    feed = feeds(running)
    keys = [b"key-%d" % number for number in range(3_000)]
    feed.publish(keys * 2)
    feed.flush()
    before = redis_use(running.services.redis_url)
    # When a worker predicts them
    worker = running.start(batch_events_max=50, pool_slots=100, burst=True, **PATIENT)
    assert worker.wait(90) == 0, worker.log_tail()
    # Then the pool has stayed in its bounds, and each state went to Redis and came back
    traffic = redis_use(running.services.redis_url).since(before)
    assert max((status.pool_keys for status in statuses(worker)), default=0) <= 100
    assert traffic.bytes_in > 2 * len(keys) * 8 * 4
    assert traffic.bytes_out > len(keys) * 8 * 4
    running.assert_truth()


def test_a_slow_redis_holds_back_polling_only_when_its_queue_is_full_and_the_log_shows_it(
    pipeline: MakeRunning, feeds: Any, redis_client: redis.Redis
) -> None:
    # Given a worker with room for three batches that wait for Redis, all keys in its pool
    running = raw(pipeline)
    feed = feeds(running)
    bounds = {"batch_events_max": 20, "pool_slots": 400, "save_queue_batches_max": 3, **PATIENT}
    feed.publish(feed.random_keys(400, keys=10))
    feed.flush()
    worker = running.start(**bounds)
    running.wait_until_done()
    done = len(running.predictions())
    assert done == 400

    # When Redis accepts no writes, and much more comes than may wait
    redis_client.execute_command("CLIENT", "PAUSE", "600000", "WRITE")
    try:
        feed.publish(feed.random_keys(2_000, keys=10))
        feed.flush()
        # Then predictions continue up to the bound, which is logged, and then polling waits
        running.wait_for_log(worker, "polling is held back: ")
        wait_until(lambda: tells_of_waiting(worker), 60, "a status line that tells of it")
        waiting = len(running.predictions()) - done
        assert 20 <= waiting <= (3 + 3) * 20
        assert running.lag() > 0
    finally:
        redis_client.execute_command("CLIENT", "UNPAUSE")

    # And when Redis writes again, all the rest is done
    running.wait_until_done()
    worker.stop(60)
    assert worker.exit_code == 0, worker.log_tail()
    running.assert_truth()


def test_workers_without_work_wait_and_leave_nothing_behind(pipeline: MakeRunning) -> None:
    # Given a topic without events, and more workers than it has partitions
    running = raw(pipeline, partitions=1)
    servers, url = running.services.bootstrap_servers, running.services.redis_url
    others = redis_use(url).connections
    workers = [running.start(**PATIENT) for _ in range(2)]

    def partitions() -> list[int]:
        return sorted(status.partitions for worker in workers for status in statuses(worker)[-1:])

    wait_until(lambda: partitions() == [0, 1], 120, "one with the partition, one without")
    # When they are stopped, then they end well, and no service holds anything of them
    for worker in workers:
        worker.stop(60)
    assert [worker.exit_code for worker in workers] == [0, 0]

    def is_all_gone() -> bool:
        left = left_behind(servers, url, running.group)
        return left.redis_connections <= others and left.group_members + left.open_transactions == 0

    wait_until(is_all_gone, 60, "nothing of them")
    assert running.predictions() == []


def test_one_worker_can_own_64_partitions(pipeline: MakeRunning, feeds: Any) -> None:
    running = raw(pipeline, partitions=64)
    feed = feeds(running)
    feed.publish(feed.random_keys(2_000, keys=500))
    feed.flush()
    running.burst()
    running.assert_truth()
    assert len({p.partition for p in running.predictions()}) > 50


def grow(running: Running, count: int) -> None:
    """Give the input topic more partitions, and wait until the broker tells of them."""
    servers, topic = running.services.bootstrap_servers, running.input_topic
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_partitions([NewPartitions(topic, count)])[topic].result(30)
    wait_until(lambda: describe_topics(servers)[topic].partition_count == count, 60, "partitions")


def test_more_partitions_are_refused_and_a_copied_topic_is_the_way_out(
    pipeline: MakeRunning, feeds: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker on a topic of 4 partitions, that looks often whether there are more
    monkeypatch.setenv("LIVESTEP_KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS", "500")
    running = raw(pipeline)
    feed = feeds(running)
    feed.publish(feed.random_keys(500, keys=40))
    feed.flush()
    worker = running.start(**PATIENT)
    running.wait_until_done()

    # When the topic grows to 8, then the worker refuses, and so does every one that is started
    grow(running, 8)
    wait_until(lambda: worker.exit_code is not None, 90, "the worker's refusal")
    assert worker.exit_code == 7, worker.log_tail()
    assert "livestep topics copy" in worker.log_tail()
    feed.publish(feed.random_keys(500, keys=40))
    feed.flush()
    with pytest.raises(PartitionsChangedError, match="livestep topics copy"):
        running.burst()

    # When the history is copied to a new topic, as the message says
    moved = make_running(
        running.services,
        tmp_path / "moved",
        f"{running.output_topic}.moved",
        net=GRU(input_size=4, hidden_size=8, output_size=1),
        codec="float32",
        partitions=8,
    )
    servers = ["--bootstrap-servers", running.services.bootstrap_servers]
    copy = ["copy", running.input_topic, moved.input_topic, *servers]
    result = CliRunner().invoke(topics, copy)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("copied  1000 events from ")
    moved.published = 1_000
    moved.burst()

    # Then all events are predicted there, as if they had always been in 8 partitions
    moved.assert_truth()
    assert len({p.partition for p in moved.predictions()}) == 8
    # And a second copy would repeat them
    again = CliRunner().invoke(topics, copy)
    assert again.exit_code != 0
    assert "is not empty" in f"{again.output}{again.exception}"
