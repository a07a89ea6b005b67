"""Workers that die in the middle of sequences: each answer once, as if nothing had happened."""

from __future__ import annotations

import random

import pytest
import redis

from tests.services.conftest import MakeRunning
from tests.services.running import shaped_running
from tests.support.helpers import wait_until

#: Where a worker kills itself, for shapes with states and for those without.
CRASHES = {
    "many-to-one": ["after-commit:3", "after-store:3"],
    "encode-decode": ["after-send:3", "after-commit:3", "before-save:3"],
    "synchronized": ["before-commit:3", "after-store:3"],
    "one-to-one": ["after-send:3", "after-commit:3"],
    "one-to-many": ["after-send:3", "after-commit:3"],
}


@pytest.mark.parametrize(
    ("shape", "crash"), [(shape, crash) for shape in CRASHES for crash in CRASHES[shape]]
)
def test_a_worker_killed_at_a_verb_leaves_no_trace(
    pipeline: MakeRunning, shape: str, crash: str
) -> None:
    # Given a worker that kills itself at a verb, in the middle of the sequences of its keys
    running, events, options = shaped_running(pipeline, shape, crash)
    running.publish_shaped(events, 300)
    limits = {"batch_events_max": 20, "pool_slots": 60}
    doomed = running.start(crash=crash, worker_id="one", **limits, **options)
    wait_until(lambda: doomed.exit_code is not None, 90, f"the crash {crash}")
    assert doomed.exit_code == -9, doomed.log_tail()

    # When its successor of the same name continues
    running.publish_shaped(events, 150)
    running.burst(batch_events_max=70, pool_slots=140, worker_id="one", **options)

    # Then each answer is there, once, in order, equal to the offline truth
    running.assert_sequences()


@pytest.mark.parametrize("shape", ["many-to-one", "encode-decode"])
def test_a_flushed_redis_is_healed_by_replay_in_the_middle_of_sequences(
    pipeline: MakeRunning, redis_client: redis.Redis, shape: str
) -> None:
    # Given sequences under way, whose states are lost between two runs
    running, events, _ = shaped_running(pipeline, shape, "flushed")
    running.publish_shaped(events, 400)
    running.burst(batch_events_max=50, pool_slots=100)
    redis_client.flushall()

    # When a worker continues, and is killed in the middle of its replay, and another continues
    running.publish_shaped(events, 100)
    doomed = running.start(crash="after-store:2", batch_events_max=40, pool_slots=80)
    wait_until(lambda: doomed.exit_code is not None, 90, "the crash in the replay")
    running.burst()

    # Then the answers continue as if nothing had happened
    running.assert_sequences()


def test_two_workers_killed_again_and_again_at_random(pipeline: MakeRunning) -> None:
    # Given two workers that generate, and a steady load
    rng = random.Random(0)
    running, events, _ = shaped_running(pipeline, "encode-decode", "random")
    limits = {"batch_events_max": 50, "pool_slots": 100}
    workers = [running.start(worker_id=str(number), **limits) for number in range(2)]
    running.wait_for_log(workers[0], "assigned partitions")

    # When one of them is killed at a random moment, again and again, and started again
    for _ in range(3):
        running.publish_shaped(events, 800)
        victim = rng.randrange(2)
        before = running.lag()
        wait_until(lambda b=before: running.lag() < max(b, 1), 90, "some progress")
        workers[victim].kill()
        workers[victim] = running.start(worker_id=str(victim), **limits)

    # Then nothing is lost, repeated, mixed up or wrong
    running.wait_until_done()
    for worker in workers:
        worker.stop()
    running.assert_sequences()
