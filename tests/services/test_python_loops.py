"""The worker without the native loops: the same predictions, also next to a worker with them."""

from __future__ import annotations

import pytest

from livestep.pipeline.native import NATIVE_VARIABLE, native
from tests.services.conftest import MakeRunning

PYTHON = {NATIVE_VARIABLE: "off"}


def test_python_loops_equal_the_unroll_through_a_crash_and_lost_states(
    pipeline: MakeRunning,
) -> None:
    # Given a worker in Python that kills itself between a commit and its save
    running = pipeline()
    running.publish(3_000)
    crashed = running.start(crash="after-commit:3", environment=PYTHON, batch_events_max=500)
    crashed.wait(60)
    # When the next one repairs that by a replay
    successor = running.start(burst=True, environment=PYTHON)
    assert successor.wait(120) == 0, successor.log_tail()
    assert "loops: Python (LIVESTEP_NATIVE=off)" in successor.log_tail(1_000)
    # Then each event has its prediction, once
    running.assert_truth()


@pytest.mark.skipif(native is None, reason="the native loops are not built")
def test_workers_with_native_and_with_python_loops_share_a_group(pipeline: MakeRunning) -> None:
    # Given one of each
    running = pipeline()
    first, second = running.start(environment=PYTHON), running.start()
    for worker in (first, second):
        running.wait_for_log(worker, "assigned partitions")
    running.publish(5_000)
    # When either takes over what the other one has saved
    first.kill()
    running.publish(3_000)
    running.wait_until_done()
    third = running.start(environment=PYTHON)
    running.wait_for_log(third, "assigned partitions")
    second.kill()
    running.publish(3_000)
    running.wait_until_done()
    third.stop()
    assert third.exit_code == 0, third.log_tail()
    # Then they can't be told from each other
    running.assert_truth()
