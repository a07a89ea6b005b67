"""What a long program tells its user: bars on a terminal, a few lines where there is none."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

#: Without a terminal, a task says how far it is this often.
LINE_INTERVAL_S = 5.0

#: Wide enough for all that is printed, so that a line in a file is not broken in two.
PLAIN_WIDTH = 100


class Update(Protocol):
    """Say how much of a task is done; a note takes the place of the count."""

    def __call__(self, done: float, note: str = "") -> None:
        """See above."""


class Screen:
    """Prints headings, lines and progress.

    Args:
        console: Where to; standard output if None.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = max(self.console.width, PLAIN_WIDTH)

    def heading(self, text: str) -> None:
        """Print what begins now."""
        self.console.print()
        self.console.print(Text(text, style="bold"), soft_wrap=True)

    def say(self, text: str, style: str = "") -> None:
        """Print a line; above the bars, if there are some."""
        self.console.print(Text(f"   {text}", style=style), soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """Print anything that rich can print."""
        self.console.print(what)

    @contextlib.contextmanager
    def tasks(self, *tasks: tuple[str, float | None]) -> Iterator[list[Update]]:
        """Show progress while the block runs; at its end the bars are gone.

        Args:
            tasks: What is done, and how much of it there is to do; None if nobody knows.

        Yields:
            updates: One for each task; may be called from any thread.
        """
        if not self.console.is_terminal:
            yield [self._lines(text, total) for text, total in tasks]
            return
        columns = (
            TextColumn("   {task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            yield [self._bar(progress, text, total) for text, total in tasks]

    @staticmethod
    def _bar(progress: Progress, text: str, total: float | None) -> Update:
        task = progress.add_task(text, total=total, note="")

        def update(done: float, note: str = "") -> None:
            progress.update(task, completed=done, note=note or _count(done, total))

        return update

    def _lines(self, text: str, total: float | None) -> Update:
        self.say(f"{text} ...")
        said_s = time.monotonic()

        def update(done: float, note: str = "") -> None:
            nonlocal said_s
            if time.monotonic() - said_s >= LINE_INTERVAL_S:
                said_s = time.monotonic()
                self.say(f"{text}: {note or _count(done, total)}")

        return update


def _count(done: float, total: float | None) -> str:
    return f"{done:,.0f}" if total is None else f"{done:,.0f} of {total:,.0f}"
