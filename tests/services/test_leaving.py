"""A worker that leaves: in order, in time, and with an exit code that says what was left undone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from livestep.deploy.local.redis_server import RedisServer
from tests.services.conftest import MakeRunning


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own, which may be filled, frozen and killed."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.kill()
    server.release()


def set_bytes_max(server: RedisServer, count: int) -> None:
    """Limit the memory of the server; 0 removes the limit."""
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", count)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_signal_that_ends_a_program_drains_the_worker(
    pipeline: MakeRunning, number: signal.Signals
) -> None:
    running = pipeline()
    running.publish(300)
    worker = running.start()
    running.wait_until_done()
    os.kill(worker.pid, number)
    assert worker.wait(60) == 0, worker.log_tail()
    assert "undone" not in worker.log_tail(1_000)
    # Then all is saved: the next one has nothing to replay
    running.publish(100)
    successor = running.start(burst=True)
    assert successor.wait(120) == 0, successor.log_tail()
    assert "replay from" not in successor.log_tail(1_000)
    running.assert_truth()


def test_a_burst_that_leaves_states_unsaved_has_its_own_exit_code(
    pipeline: MakeRunning, own_redis: RedisServer
) -> None:
    # Given states in a Redis that is full by now
    running = pipeline()
    running.publish(200)
    running.burst(redis_url=own_redis.url)
    set_bytes_max(own_redis, 1)
    running.publish(200)
    # When a burst predicts all events, and can't save
    worker = running.start(burst=True, redis_url=own_redis.url)
    code = worker.wait(120)
    # Then it's done, and says that the states are to be replayed
    assert code == 10, worker.log_tail()
    assert worker.log_tail(1).startswith("error: left with states unsaved; the next owner")
    assert "maxmemory" in worker.log_tail(1)
    assert running.lag() == 0
    # And the next one replays them
    set_bytes_max(own_redis, 0)
    running.publish(200)
    successor = running.start(burst=True, redis_url=own_redis.url)
    assert successor.wait(120) == 0, successor.log_tail()
    assert "replay from" in successor.log_tail(1_000)
    running.assert_truth()
