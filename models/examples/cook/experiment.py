"""`make experiment`: which nets learn the cook's rule, from how many weeks, and for how long.

    experiment.py         the command: progress bars, then tables and plot
    experiment_weeks.py   the lessons: all weeks, unseen weeks, and weeks of six dishes
    experiment_nets.py    the contenders, their training and their predictions
    experiment_runs.py    what one run does; all runs
    experiment_tables.py  the tables in README.md
    experiment_plot.py    experiment.png

The results are in README.md, next to this file.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from livestep.models.examples.cook.experiment_plot import check_plotting, draw
from livestep.models.examples.cook.experiment_runs import Job, Plan, run_experiment
from livestep.models.examples.cook.experiment_tables import describe_effort, tables, write_readme
from livestep.models.model_errors import ModelError

README, PLOT = "README.md", "experiment.png"

#: More processes are not needed and cost memory: each imports torch.
PROCESSES_MAX = 4


@click.command()
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(__file__).parent,
    help=f"Where to write {README} and {PLOT}.  [default: next to the program]",
)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=min(os.cpu_count() or 1, PROCESSES_MAX),
    help="Nets to train at the same time.  [default: number of processors, at most 4]",
)
def main(directory: Path, processes: int) -> None:
    """Compare six nets on the cook's weeks; write the tables and a plot."""
    try:
        make_experiment(Plan(), directory, processes, Console(stderr=True, highlight=False))
    except ModelError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def make_experiment(plan: Plan, directory: Path, process_count: int, console: Console) -> None:
    """Run a plan and write its results.

    Args:
        plan: What to run.
        directory: Where to write `README` and `PLOT`.
        process_count: Nets to train at the same time.
        console: Shows the progress and the paths of the results.

    Raises:
        ModelError: If a package is missing, or the README has no place for the tables.
    """
    check_plotting()
    start_s, start_processor_s = time.monotonic(), _processor_s()
    with _bars(plan, console) as advance:
        runs = run_experiment(plan, process_count, advance)
    seconds, processor_s = time.monotonic() - start_s, _processor_s() - start_processor_s
    footer = (
        f"{describe_effort(runs, plan)} {len(runs)} nets in {seconds:.0f} s; each of "
        f"{process_count} processes computed for {processor_s / process_count:.0f} s "
        f"({os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__})."
    )
    write_readme(directory / README, tables(runs, plan, footer))
    draw(runs, plan, directory / PLOT)
    console.print(f"{footer}\nWrote {directory / README} and {directory / PLOT}.", soft_wrap=True)


def _processor_s() -> float:
    """Return the processor time of this process and its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@contextmanager
def _bars(plan: Plan, console: Console) -> Iterator[Callable[[Job], None]]:
    """Show one bar for each kind of net while the block runs."""
    counts: dict[str, int] = {}
    for job in plan.jobs():
        counts[job.title] = counts.get(job.title, 0) + 1
    columns = (
        TextColumn("{task.description:30}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks = {title: progress.add_task(title, total=count) for title, count in counts.items()}
        yield lambda job: progress.advance(tasks[job.title])


if __name__ == "__main__":
    main()
