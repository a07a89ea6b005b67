"""The accident of the demo: what is done to the workers, and when."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from livestep.deploy.demo.demo_takeover import HOLD_AT, Phase, Takeover
from livestep.deploy.demo.demo_watch import CommitWatch, GapMeter
from livestep.deploy.demo.screen import Screen
from livestep.deploy.local.child_process import ServiceError
from livestep.deploy.local.worker_process import WorkerProcess, assigned_partitions


class QuietWorker(WorkerProcess):
    """A process that lives, and whose log is written by the test."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.command = ["sleep", "60"]
        self.log_path = directory / f"{name}.log"
        self.environment = {}
        self._process = None

    def says(self, text: str) -> None:
        with self.log_path.open("a") as log:
            log.write(f"2026-01-01 00:00:00,000 INFO    livestep.engine: {text}\n")


class MemoryWatch(CommitWatch):
    """What is committed, as the test says."""

    def __init__(self) -> None:
        self.committed: dict[int, int] = {}
        self.killed_partitions: list[int] = []

    def offsets(self) -> dict[int, int]:
        return dict(self.committed)

    def killed(self, partitions: object) -> None:
        self.killed_partitions = list(partitions)  # type: ignore[call-overload]


class Scene:
    """A takeover with two workers, the first of which has all partitions."""

    def __init__(self, directory: Path) -> None:
        self.console = Console(file=io.StringIO(), width=200)
        self.watch = MemoryWatch()
        self.first = QuietWorker("first", directory)
        self.second = QuietWorker("second", directory)
        self.first.start()
        self.first.says("assigned partitions [0, 1]")
        self.takeover = Takeover(Screen(self.console), self.watch, self.first, self._start_second)

    def _start_second(self) -> WorkerProcess:
        self.second.start()
        return self.second

    def second_joins(self) -> None:
        self.first.says("revoked partitions [1]")
        self.second.says("assigned partitions [1]")

    @property
    def said(self) -> str:
        assert isinstance(self.console.file, io.StringIO)
        return self.console.file.getvalue()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.first.kill()
    scene.second.kill()


def test_the_second_worker_is_started_half_way(scene: Scene) -> None:
    assert scene.takeover.look(0.49)
    assert scene.takeover.phase is Phase.ALONE
    assert not scene.second.is_running
    assert scene.takeover.look(0.5)
    assert scene.takeover.phase is Phase.SECOND_STARTS
    assert scene.second.is_running


def test_publishing_holds_late_until_the_second_has_partitions(scene: Scene) -> None:
    scene.takeover.look(0.5)
    assert scene.takeover.look(HOLD_AT - 0.01)
    assert not scene.takeover.look(HOLD_AT)
    scene.second_joins()
    assert scene.takeover.look(HOLD_AT)
    assert scene.takeover.phase is Phase.BOTH_PREDICT


def test_the_first_is_killed_after_both_have_shared_the_work(scene: Scene) -> None:
    # Given two workers with a partition each
    scene.takeover.look(0.5)
    scene.second_joins()
    scene.watch.committed = {0: 100, 1: 200}
    scene.takeover.look(0.6)
    # When a tenth more is published
    scene.watch.committed = {0: 150, 1: 270}
    scene.takeover.look(0.69)
    assert scene.first.is_running
    scene.takeover.look(0.71)
    # Then the first is gone, with the partition that it had, and the screen says so
    assert scene.first.exit_code == -signal.SIGKILL
    assert scene.second.is_running
    assert scene.watch.killed_partitions == [0]
    assert f"kill -9 {scene.first.pid}" in scene.said
    assert "second has predicted 70 events" in scene.said
    # And the second takes over in the end
    scene.second.says("assigned partitions [0]")
    scene.takeover.look(1.0)
    assert scene.takeover.phase is Phase.TAKEN_OVER


def test_a_first_worker_that_dies_by_itself_is_an_error_that_says_what_it_said(
    scene: Scene,
) -> None:
    scene.first.says("error: Redis is away")
    scene.first.kill()
    with pytest.raises(ServiceError, match=r"first ended with exit status -9: .*Redis is away"):
        scene.takeover.look(0.1)


def test_a_second_worker_that_dies_is_an_error(scene: Scene) -> None:
    scene.takeover.look(0.5)
    scene.second.kill()
    with pytest.raises(ServiceError, match="second ended with exit status -9"):
        scene.takeover.look(0.6)


def test_a_second_worker_that_gets_no_partitions_is_an_error(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livestep.deploy.demo.demo_takeover.START_TIMEOUT_S", -1.0)
    scene.takeover.look(0.5)
    with pytest.raises(ServiceError, match="second has no partitions"):
        scene.takeover.look(HOLD_AT)


def test_partitions_are_what_was_assigned_less_what_was_revoked_or_lost() -> None:
    log = (
        "INFO livestep.engine: assigned partitions [0, 1, 2, 3]\n"
        "INFO livestep.engine: revoked partitions [2, 3]\n"
        "INFO livestep.engine: lost partitions [1]\n"
        "INFO livestep.engine: assigned partitions [3]\n"
    )
    assert assigned_partitions(log) == [0, 3]
    assert assigned_partitions("") == []


def test_only_partitions_of_the_killed_worker_have_a_gap() -> None:
    meter = GapMeter()
    meter.note(0.0, {0: 1, 1: 1})
    meter.kill(1.0, [0])
    meter.note(9.0, {0: 1, 1: 2})
    assert meter.longest_s == 0.0
    meter.note(9.5, {0: 2, 1: 3})
    assert meter.longest_s == 8.5


def test_the_gap_is_the_longest_one_after_the_kill() -> None:
    # A commit that was on its way when the worker was killed may still be seen.
    meter = GapMeter()
    meter.note(0.0, {0: 1})
    meter.kill(1.0, [0])
    meter.note(1.1, {0: 2})
    meter.note(7.1, {0: 3})
    meter.note(7.2, {0: 4})
    assert meter.longest_s == pytest.approx(6.0)
