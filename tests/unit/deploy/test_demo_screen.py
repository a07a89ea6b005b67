"""Progress without a terminal is a few plain lines, and with one it leaves nothing behind."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from livestep.deploy.demo.screen import Screen


def plain() -> tuple[Screen, io.StringIO]:
    file = io.StringIO()
    return Screen(Console(file=file, width=40)), file


def test_a_task_says_once_what_is_done_if_it_is_short() -> None:
    screen, file = plain()
    with screen.tasks(("counting", 10)) as [update]:
        for count in range(11):
            update(count)
    assert file.getvalue().splitlines() == ["   counting ..."]


def test_a_long_task_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livestep.deploy.demo.screen.LINE_INTERVAL_S", 0.0)
    screen, file = plain()
    with screen.tasks(("counting", 2_000), ("waiting", None)) as [update, update_other]:
        update(1_000)
        update(2_000, "almost done")
        update_other(7)
    assert file.getvalue().splitlines()[2:] == [
        "   counting: 1,000 of 2,000",
        "   counting: almost done",
        "   waiting: 7",
    ]


def test_a_long_line_is_not_broken_and_brackets_stay() -> None:
    screen, file = plain()
    text = "[red] is no colour here; " * 8
    screen.say(text)
    assert file.getvalue() == f"   {text}\n"


def test_on_a_terminal_lines_stand_above_the_bar() -> None:
    file = io.StringIO()
    screen = Screen(Console(file=file, force_terminal=True, width=80, _environ={"TERM": "xterm"}))
    with screen.tasks(("counting", 10)) as [update]:
        update(5)
        screen.say("half-way")
    assert "half-way" in file.getvalue()
    assert "5 of 10" in file.getvalue()
