"""The parts of the demo: its events, its accident, its five counts, and its screen."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pytest

from livestep.deploy.demo import demo_accident, screen
from livestep.deploy.demo.demo_accident import HOLD_AT, Accident, Commits
from livestep.deploy.demo.demo_report import draw, fault_counts
from livestep.deploy.demo.demo_story import SLOW_DAYS, Story, event_time_ms
from livestep.deploy.demo.screen import Screen
from livestep.deploy.local.child_process import ServiceError
from livestep.deploy.local.worker_process import WorkerProcess, assigned_partitions
from livestep.models.examples.cook import DISHES
from tests.support.judged import CLEAN_AUDIT
from tests.support.worker_records import Answer

MEASURED = [("latency p99", "3,000.0 ms", "21 events, one by one"), ("gap", "6.5 s", "x" * 27)]


@pytest.fixture(scope="module")
def story() -> Story:
    return Story(flat_count=12, day_count=40, seed=3)


def prediction(story: Story, key: str, index: int) -> Answer:
    """A record that names the right dish."""
    day = story.days[key][index]
    value = {"dish": {"label": day.dish, "probabilities": {}}}
    return Answer(key.encode(), orjson.dumps(value), event_time_ms(day.date), [])


def test_slow_and_fast_part_together_are_each_flats_days_in_order(story: Story) -> None:
    published = [(story.slow_flat, day) for day in story.slow_part] + list(story.fast_part())
    assert len(story.slow_part) == SLOW_DAYS
    assert len(published) == story.event_count == 12 * 40
    for key, days in story.days.items():
        assert [day for of_key, day in published if of_key == key] == days
        # Only the first event has yesterday's dish.
        assert [day for day in days if "yesterday" in day.event] == days[:1]
    assert [key for key, _ in story.fast_part()][-24:] == [*story.days, *story.days]
    assert {day.dish for days in story.days.values() for day in days} == set(DISHES)


def test_the_same_seed_makes_the_same_story() -> None:
    assert Story(10, 30, seed=1).days == Story(10, 30, seed=1).days != Story(10, 30, seed=2).days


def test_a_right_dish_is_no_fault(story: Story) -> None:
    for key, days in story.days.items():
        assert not any(story.wrong_dish(prediction(story, key, i)) for i in range(len(days)))


@pytest.mark.parametrize(
    "change",
    [
        {"key": b"flat-9"},
        {"key": None},
        {"value": None},
        {"value": b"{"},
        {"value": b'{"dish":1}'},
        {"value": b'{"dish":{"label":"4"}}'},
        {"timestamp": event_time_ms(date(2011, 1, 1))},
        {"timestamp": event_time_ms(date(2031, 1, 1))},
    ],
    ids=repr,
)
def test_any_other_record_is_a_fault_that_names_flat_and_day(
    story: Story, change: dict[str, Any]
) -> None:
    record = prediction(story, "flat-004", 7).but(**change)
    fault = story.wrong_dish(record)
    assert fault is not None and fault.startswith(f"wrong dish for {record.key!r} on 20")


class QuietWorker(WorkerProcess):
    """A process whose log is written by the test."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.command = ["sleep", "60"]
        self.log_path = directory / f"{name}.log"
        self.environment = {}
        self._process = None

    def log(self, text: str) -> None:
        with self.log_path.open("a") as log:
            log.write(f"2026-01-01 00:00:00,000 INFO    livestep.engine: {text}\n")


class Scene:
    """An accident with two workers, the first of which has all partitions."""

    def __init__(self, directory: Path) -> None:
        self.screen = Screen(file=io.StringIO(), width=200)
        self.commits = Commits()
        self.first, self.second = QuietWorker("first", directory), QuietWorker("second", directory)
        self.first.start()
        self.first.log("assigned partitions [0, 1]")
        self.accident = Accident(self.screen, self.commits, self.first, self._start_second)
        self.look = self.accident.look

    def _start_second(self) -> WorkerProcess:
        self.second.start()
        return self.second

    def share_partitions(self) -> None:
        self.first.log("revoked partitions [1]")
        self.second.log("assigned partitions [1]")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.first.kill()
    scene.second.kill()


def test_the_second_worker_is_started_half_way_and_publishing_waits_for_it(scene: Scene) -> None:
    assert scene.look(0.49)
    assert scene.second.exit_code is None and not scene.second.is_running
    assert scene.look(0.5)
    assert scene.second.is_running
    assert not scene.look(HOLD_AT)
    scene.share_partitions()
    assert scene.look(HOLD_AT)


def test_the_first_worker_is_killed_after_both_have_shared_the_work(scene: Scene) -> None:
    scene.look(0.5)
    scene.commits.note(1.0, {0: 100, 1: 200})
    scene.share_partitions()
    scene.look(0.6)
    scene.commits.note(2.0, {0: 150, 1: 270})
    scene.look(0.69)
    assert scene.first.is_running
    scene.look(0.71)
    assert scene.first.exit_code == -signal.SIGKILL
    scene.second.log("assigned partitions [0]")
    scene.look(1.0)
    assert scene.second.is_running
    text = scene.screen.file.getvalue()  # type: ignore[attr-defined]
    assert f"kill -9 {scene.first.pid}: first is gone, with partitions 0 (second has pr" in text
    assert "predicted 70 events so far" in text
    assert text.endswith("second has partitions 0, 1\n")


def test_a_worker_that_dies_unexpectedly_is_an_error_with_its_last_words(scene: Scene) -> None:
    scene.look(0.5)
    scene.second.kill()
    with pytest.raises(ServiceError, match="second ended with exit status -9"):
        scene.look(0.6)
    scene.first.log("error: Redis is away")
    scene.first.kill()
    with pytest.raises(ServiceError, match=r"first ended with exit status -9: .*Redis is away"):
        scene.look(0.6)


def test_a_second_worker_without_partitions_is_an_error(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_accident, "START_TIMEOUT_S", -1.0)
    with pytest.raises(ServiceError, match="second has no partitions"):
        scene.look(0.5)


def test_partitions_are_the_assigned_ones_less_revoked_and_lost_ones() -> None:
    verbs = ("assigned [0, 1, 2, 3]", "revoked [2, 3]", "lost [1]", "assigned [3]")
    log = "".join(
        f"INFO livestep.engine: {verb.replace(' ', ' partitions ', 1)}\n" for verb in verbs
    )
    assert assigned_partitions(log) == [0, 3]
    assert assigned_partitions("") == []


def test_only_partitions_of_the_killed_worker_have_a_gap_and_the_longest_counts() -> None:
    commits = Commits()
    commits.note(0.0, {0: 1, 1: 1})
    commits.kill(1.0, [0])
    commits.note(1.1, {0: 2, 1: 1})  # a commit that was under way when the worker was killed
    commits.note(7.1, {0: 3, 1: 1})
    commits.note(9.2, {0: 4, 1: 2})
    assert commits.longest_gap_s == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("published", "change", "wrong_dishes", "name"),
    [
        (100, {"lost": 1}, 0, "lost"),
        (100, {"dead_letters": 1}, 0, "lost"),
        (101, {}, 0, "lost"),
        (100, {"repeated": 1}, 0, "repeated"),
        (100, {"out_of_order": 1}, 0, "out of order"),
        (100, {"different": 1}, 0, "different from offline unroll"),
        (100, {}, 1, "different from the rules"),
    ],
)
def test_each_fault_alone_is_counted_under_its_name(
    published: int, change: dict[str, int], wrong_dishes: int, name: str
) -> None:
    counts = fault_counts(published, replace(CLEAN_AUDIT, **change), wrong_dishes)
    assert {key: count for key, count in counts.items() if count} == {name: 1}
    assert not any(fault_counts(100, CLEAN_AUDIT, 0).values())


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    narrow, wide = Screen(file=io.StringIO(), width=80), Screen(file=io.StringIO(), width=200)
    for one in (narrow, wide):
        one.print(draw(100, CLEAN_AUDIT, fault_counts(100, CLEAN_AUDIT, 0), MEASURED))
    text = narrow.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("\n") == wide.file.getvalue().count("\n")  # type: ignore[attr-defined]
    for cell in ("at most by 1.5e-07", "3,000.0 ms", "6.5 s", "of 4 flats"):
        assert cell in text


def test_progress_without_a_terminal_is_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Screen(file=io.StringIO(), width=40)
    with plain.progress("counting") as show:
        show("counting", 7, 10)
        monkeypatch.setattr(screen, "LINE_INTERVAL_S", 0.0)
        show("counting", 1_000, 2_000)
        show("counting", 1, 1, "almost done")
        plain.say("[red] stays " * 8)
    assert plain.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "   counting ...",
        "   counting: 1,000 of 2,000",
        "   counting: almost done",
        "   " + "[red] stays " * 8,
    ]


def test_on_a_terminal_lines_are_printed_above_the_bar() -> None:
    terminal = Screen(file=io.StringIO(), force_terminal=True, width=80, _environ={"TERM": "xterm"})
    with terminal.progress("counting") as show:
        show("counting", 5, 10)
        terminal.say("half-way")
    text = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "half-way" in text and "5 of 10" in text
