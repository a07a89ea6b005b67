"""Chaos on real Kafka and Redis: faults from a seed under a steady load, judged at the end.

python -m tests.chaos --minutes 5 --seed 1
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from livestep.deploy.demo.screen import Screen
from livestep.deploy.local.child_process import ServiceError, orderly_termination
from livestep.deploy.local.jars import DATA_ROOT
from livestep.deploy.local.services import EXIT_INTERRUPTED
from tests.chaos.place import open_place
from tests.chaos.report import render
from tests.chaos.run import Plan, run
from tests.chaos.schedule import KINDS


@click.command(context_settings={"show_default": True})
@click.option(
    "--minutes", default=5.0, type=click.FloatRange(min=0.1), help="Length of the faults."
)
@click.option("--seed", default=1, help="Repeats the faults.")
@click.option("--cluster/--one", "is_cluster", help="Three brokers and a Redis Cluster.")
@click.option("--events-per-s", default=Plan.events_per_s, help="Of the load.")
@click.option("--interval-s", default=Plan.interval_s, help="Between faults, on average.")
@click.option("--keys", default=Plan.keys, help="Of the load.")
@click.option("--workers", default=Plan.workers, help="That run all the time.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([kind.name for kind in KINDS]),
    help="A kind of fault; may be given several times. [default: all]",
)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="JSON file for the report."
)
@click.option(
    "--directory", type=click.Path(path_type=Path), default=DATA_ROOT, help="For data and logs."
)
def main(output: Path | None, directory: Path, **options: Any) -> None:
    """Exit 0 if each event was predicted exactly once, in order and rightly; else 1, logs kept."""
    screen = Screen()
    try:
        with orderly_termination():
            sys.exit(0 if _is_clean(Plan(**options), screen, output, directory) else 1)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _is_clean(plan: Plan, screen: Screen, output: Path | None, root: Path) -> bool:
    """Run, show and write the report; keep logs only if there is something to find in them."""
    root.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="chaos-", dir=root)).resolve()
    with contextlib.ExitStack() as remove:
        remove.callback(shutil.rmtree, directory)
        try:
            with open_place(directory, is_cluster=plan.is_cluster) as place:
                report = run(plan, place, screen)
        except (ServiceError, RuntimeError, TimeoutError) as error:
            remove.pop_all()
            screen.say(f"the run failed: {error}", "bold red")
            screen.say(f"logs: {directory}")
            return False
        screen.show(render(report))
        if output is not None:
            report.write(output)
        if not report.is_clean:
            remove.pop_all()
            screen.say(f"logs: {directory}")
        return report.is_clean


if __name__ == "__main__":
    main()
