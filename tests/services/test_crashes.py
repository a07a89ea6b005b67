"""Workers that die, wake up late, or lose their services: the truth holds."""

from __future__ import annotations

import random

import pytest
import redis as redis_client_module

from tests.services.conftest import MakeRunning
from tests.support.helpers import wait_until

#: Where a worker kills itself: before or after its n-th call.
CRASHES = [
    "before-poll:30",
    "after-poll:30",
    "before-load:5",
    "before-send:5",
    "after-send:5",
    "after-commit:5",
    "before-save:5",
    "after-save:5",
    "before-store:7",
    "after-store:7",
]


@pytest.mark.parametrize("crash", CRASHES)
def test_a_worker_killed_at_a_verb_leaves_no_trace(pipeline: MakeRunning, crash: str) -> None:
    # Given a worker that kills itself at a verb, with batches so small that many come before
    running = pipeline()
    running.publish(600)
    doomed = running.start(crash=crash, batch_events_max=20, pool_slots=60, worker_id="one")
    wait_until(lambda: doomed.exit_code is not None, 90, f"the crash {crash}")
    assert doomed.exit_code == -9, doomed.log_tail()

    # When its successor of the same name continues
    running.publish(300)
    running.burst(batch_events_max=70, pool_slots=140, worker_id="one")

    # Then each event has its prediction, once, in order, equal to the unroll
    running.assert_truth()


@pytest.mark.parametrize("seed", range(2))
def test_two_workers_killed_again_and_again_at_random(pipeline: MakeRunning, seed: int) -> None:
    # Given two workers, small batches, and a steady load
    rng = random.Random(seed)
    running = pipeline(seed=seed)
    options = {"batch_events_max": 50, "pool_slots": 100}
    workers = [running.start(worker_id=str(i), **options) for i in range(2)]
    running.wait_for_log(workers[0], "assigned partitions")

    # When one of them is killed at a random verb, again and again, and started again
    for _ in range(6):
        running.publish(1_500, seed=seed)
        victim = rng.randrange(2)
        before = running.lag()
        wait_until(lambda b=before: running.lag() < max(b, 1), 90, "some progress")
        workers[victim].kill()
        workers[victim] = running.start(worker_id=str(victim), **options)

    # Then nothing is lost, repeated, mixed up or wrong
    running.wait_until_done()
    for worker in workers:
        worker.stop()
    running.assert_truth()


def test_a_zombie_is_fenced_and_does_no_harm(pipeline: MakeRunning) -> None:
    # Given a worker that is stopped in the middle of its work (SIGSTOP)
    running = pipeline()
    zombie = running.start(batch_events_max=20, pool_slots=60)
    running.publish(300)
    running.wait_until_done()
    zombie.pause()
    running.publish(3_000)

    # When another one takes its place, works, and then the first one continues
    successor = running.start(batch_events_max=200, pool_slots=400)
    running.wait_until_done()
    zombie.resume()
    running.publish(500)

    # Then it has either left or joined again as a newcomer, and the truth holds
    running.wait_until_done()
    successor.stop()
    zombie.stop()
    assert "Traceback" not in zombie.log_tail(10_000)
    running.assert_truth()


def test_a_zombie_in_the_middle_of_a_transaction_has_it_aborted(pipeline: MakeRunning) -> None:
    # Given a worker that is stopped between send and commit
    running = pipeline()
    running.publish(2_000)
    zombie = running.start(crash="stop-commit:5", batch_events_max=20, pool_slots=60)
    running.wait_for_log(zombie, "stopped before commit")

    # When another one does all the work, and the first one then tries to commit
    successor = running.start()
    running.wait_until_done()
    zombie.resume()

    # Then its transaction is aborted, and its batch is nowhere
    running.wait_for_log(zombie, "transaction aborted")
    running.publish(500)
    running.wait_until_done()
    zombie.stop()
    successor.stop()
    running.assert_truth()


def test_of_two_workers_with_one_id_the_older_is_fenced_and_logs_why(
    pipeline: MakeRunning,
) -> None:
    # Given a worker at work
    running = pipeline()
    older = running.start(worker_id="twin")
    running.publish(500)
    running.wait_until_done()

    # When another one of the same id comes
    younger = running.start(worker_id="twin")
    running.wait_for_log(younger, "assigned partitions")
    running.publish(2_000)

    # Then the older one leaves with its own exit code, and the other does the work
    assert older.wait(90) == 8, older.log_tail()
    assert "another worker has this worker id" in older.log_tail()
    running.wait_until_done()
    younger.stop()
    running.assert_truth()


def test_a_flushed_redis_is_healed_by_replay(
    pipeline: MakeRunning, redis_client: redis_client_module.Redis
) -> None:
    # Given states in Redis, all of them lost between two runs
    running = pipeline()
    running.publish(3_000)
    running.burst(batch_events_max=200, pool_slots=400)
    redis_client.flushall()

    # When a worker continues, and is killed in the middle of its replay, and another continues
    running.publish(200)
    doomed = running.start(crash="after-store:4", batch_events_max=100, pool_slots=200)
    wait_until(lambda: doomed.exit_code is not None, 90, "the crash in the replay")
    running.burst()

    # Then the predictions continue as if nothing had happened
    running.assert_truth()


def test_a_redis_that_forgets_while_the_worker_runs_is_healed(
    pipeline: MakeRunning, redis_client: redis_client_module.Redis
) -> None:
    # Given a worker whose pool holds few of its keys
    running = pipeline()
    worker = running.start(batch_events_max=20, pool_slots=40)
    running.publish(1_000, keys=200)
    running.wait_until_done()

    # When Redis loses everything under it
    redis_client.flushall()
    running.publish(1_000, keys=200)

    # Then it notices, replays, and continues
    running.wait_until_done()
    worker.stop()
    assert worker.exit_code == 0, worker.log_tail()
    assert "replay from" in worker.log_tail(10_000)
    running.assert_truth()
