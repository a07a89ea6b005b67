"""Prints headings, lines and progress: bars on a terminal, a few lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TimeElapsedColumn
from rich.text import Text

#: Without a terminal, a line about each task is printed this often.
LINE_INTERVAL_S = 5.0

#: Shows how much of a task is done: task, done, total, and a note in place of the count.
Show = Callable[..., None]


class Screen(Console):
    """A console with headings, indented lines and progress."""

    def heading(self, text: str) -> None:
        """Print the title of an act."""
        self.print()
        self.print(Text(text, style="bold"), soft_wrap=True)

    def say(self, text: str, style: str = "") -> None:
        """Print a line; above the bars, if there are any."""
        self.print(Text(f"   {text}", style=style), soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, *tasks: str) -> Iterator[Show]:
        """Show the progress of tasks while the block runs; the bars disappear at its end."""
        columns = ("   {task.description}", BarColumn(), "{task.fields[note]}", TimeElapsedColumn())
        bars = Progress(*columns, console=self, transient=True, disable=not self.is_terminal)
        ids: dict[str, TaskID] = {}
        printed_s: dict[str, float] = {}

        def show(task: str, done: float = 0, total: float = 0, note: str = "") -> None:
            if task not in ids:
                ids[task] = bars.add_task(task, total=None, note="")
                printed_s[task] = time.monotonic()
                if not self.is_terminal:
                    self.say(f"{task} ...")
            note = note or (f"{done:,.0f} of {total:,.0f}" if total else "")
            bars.update(ids[task], completed=done, total=total or None, note=note)
            if not self.is_terminal and time.monotonic() - printed_s[task] >= LINE_INTERVAL_S:
                printed_s[task] = time.monotonic()
                self.say(f"{task}: {note}")

        with bars:
            for task in tasks:
                show(task)
            yield show
