"""What an operator can allow that a worker refuses at first; and the command's exit codes.

Everything that it refuses is in the table of `tests/hostile`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from livestep import GRU, save_model
from livestep.deploy.local.services import LocalServices
from livestep.pipeline.errors import HistoryMissingError, OtherModelError
from tests.services.conftest import MakeRunning


def test_another_model_is_refused_until_the_operator_chooses_how_it_takes_over(
    pipeline: MakeRunning, tmp_path: Path
) -> None:
    # Given predictions of one model, and another model in its place
    running = pipeline()
    running.publish(400, keys=5)
    running.burst()
    save_model(GRU(input_size=3, hidden_size=8, output_size=2), tmp_path / "other")

    # When nothing says how, then it is refused and both ways are named
    with pytest.raises(OtherModelError, match=r"--on-new-model zeros.*--on-new-model warm"):
        running.burst(model=str(tmp_path / "other"))

    # When it is to be warm, then its first predictions have the whole history behind them
    running.publish(100, keys=5)
    running.burst(model=str(tmp_path / "other"), on_new_model="warm")
    warm = [p for p in running.predictions() if p.model != running.model.fingerprint]
    assert len(warm) == 100
    assert min(p.timestep for p in warm) > 40

    # When the first model comes back with zeros, then its keys start over
    running.publish(100, keys=5)
    running.burst(on_new_model="zeros")
    again = running.predictions()[-100:]
    assert {p.model for p in again} == {running.model.fingerprint}
    assert min(p.timestep for p in again) == 0

    # And a Redis that loses everything is healed from there, not from the log's start
    redis.Redis.from_url(running.services.redis_url).flushall()
    running.publish(50, keys=5)
    running.burst()
    assert max(p.timestep for p in running.predictions()) < 450
    last = running.predictions()[-50:]
    assert {p.timestep for p in last} & set(range(10, 60))


def test_history_that_is_no_longer_in_the_log_is_refused_or_accepted(
    pipeline: MakeRunning, redis_client: redis.Redis
) -> None:
    # Given a partition whose first events have been deleted, and a Redis that has lost its states
    running = pipeline(partitions=1)
    running.publish(100, keys=3)
    running.burst()
    admin = AdminClient({"bootstrap.servers": running.services.bootstrap_servers})
    kept = TopicPartition(running.input_topic, 0, 60)
    for future in admin.delete_records([kept]).values():
        future.result(10)
    redis_client.flushall()

    # When a worker starts, then it says from which offset on the history is missing
    with pytest.raises(HistoryMissingError, match="offsets 0 to 59 .*--accept-missing-history"):
        running.burst()

    # When that is accepted, then states begin with what is left
    running.publish(30, keys=3)
    running.burst(accept_missing_history=True)
    last = running.predictions()[-30:]
    assert sum(p.timestep for p in last) < 30 * 40
    assert min(p.timestep for p in last) > 3


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"bootstrap_servers": "127.0.0.1:1"}, 4, "no Kafka broker answers"),
        ({"redis_url": "redis://127.0.0.1:1", "redis_wait_s": 0.1}, 5, "Redis at 127.0.0.1:1"),
        ({"model": "/nowhere"}, 6, "/nowhere"),
        ({"pool_slots": 7}, 3, "--pool-slots"),
    ],
)
def test_the_command_ends_with_one_line_and_its_own_exit_code(
    pipeline: MakeRunning, changes: dict[str, Any], code: int, text: str
) -> None:
    running = pipeline()
    worker = running.start(**changes)
    assert worker.wait(90) == code, worker.log_tail()
    assert text in worker.log_tail(3)
    assert "Traceback" not in worker.log_tail(1_000)


@pytest.mark.parametrize("verb", ["poll", "load", "store"])
def test_a_defect_ends_a_worker_by_exit_code_9_with_its_traceback_in_the_log_once(
    pipeline: MakeRunning, verb: str
) -> None:
    # Given a worker that meets, at a verb, an exception that nothing foresees
    running = pipeline()
    running.publish(200)
    worker = running.start(crash=f"defect-{verb}:5", batch_events_max=20, pool_slots=40)
    # Then it leaves with one line that reports the cause, and where to look
    assert worker.wait(90) == 9, worker.log_tail()
    log = worker.log_tail(10_000)
    (last,) = [line for line in log.splitlines() if line.startswith("error: ")]
    assert f"a defect of Livestep: KeyError: 'planted before {verb}'" in last
    assert "the log has the traceback" in last
    assert log.count("Traceback (most recent call last)") == 1
    # And nothing is lost
    running.burst()
    running.assert_truth()


def test_check_reports_what_is_wrong_and_exits_with_0_or_1(
    pipeline: MakeRunning, services: LocalServices
) -> None:
    running = pipeline()

    def check(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "livestep.pipeline.cli", "check", *flags]
        command += ["--model", str(running.folder / "model")]
        command += ["--input-topic", running.input_topic]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=Path(__file__).parents[2],
            env={"PATH": "/usr/bin:/bin", **services.environment},
        )

    good = check("--output-topic", running.output_topic)
    assert good.returncode == 0, good.stdout + good.stderr
    assert good.stdout.count("ok    ") == 9

    bad = check("--output-topic", "nowhere", "--redis-url", "redis://127.0.0.1:1")
    assert bad.returncode == 1
    assert "topic nowhere is missing" in bad.stdout
    assert "Redis at 127.0.0.1:1" in bad.stdout
    assert "skipped events: needs topics" in bad.stdout
