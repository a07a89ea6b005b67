"""Progress on a terminal, and lines where there is none."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

#: Without a terminal, a task says how far it is this often.
LINE_INTERVAL_S = 15.0


class Progress:
    """Says what is done and how far it is, on standard error.

    Args:
        console: Where to; standard error if None.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._start = time.monotonic()
        self.failures: list[str] = []

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def say(self, text: str) -> None:
        """Print a line."""
        minutes, seconds = divmod(int(self.elapsed_s), 60)
        self.console.print(f"{minutes:2}:{seconds:02}  {text}", soft_wrap=True, markup=False)

    def fail(self, text: str) -> None:
        """Print what went wrong, and remember that something did."""
        self.failures.append(text)
        self.say(f"error: {text}")

    @contextlib.contextmanager
    def task(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a bar while the block runs.

        Args:
            text: What is done.
            total: Number of things to do.

        Yields:
            update: To be called with how many are done.
        """
        if not self.console.is_terminal:
            self.say(text)
            yield self._lines(text, total)
            return
        columns = (
            TextColumn("       {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with RichProgress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(text, total=total)
            yield lambda count: bar.update(task, completed=count)

    def _lines(self, text: str, total: int) -> Callable[[int], None]:
        said_at = time.monotonic()

        def update(count: int) -> None:
            nonlocal said_at
            if time.monotonic() - said_at >= LINE_INTERVAL_S:
                said_at = time.monotonic()
                self.say(f"{text}: {count:,} of {total:,}")

        return update
