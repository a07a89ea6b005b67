"""Chaos on real Kafka and Redis: faults from a seed under a steady load, judged at the end.

python -m tests.chaos --minutes 5 --seed 1
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from livestep.deploy.local.child_process import ServiceError
from livestep.deploy.local.jars import DATA_ROOT
from tests.chaos.place import open_place
from tests.chaos.report import render
from tests.chaos.run import Plan, run
from tests.chaos.schedule import KINDS
from tests.support.rig.progress import Progress
from tests.support.rig.runs import RunFolder, exits, run_folder


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
    with exits(), run_folder("chaos", directory) as folder:
        is_clean = _is_clean(Plan(**options), Progress(), output, folder)
    sys.exit(0 if is_clean else 1)


def _is_clean(plan: Plan, progress: Progress, output: Path | None, folder: RunFolder) -> bool:
    """Run, show and write the report; keep the logs only if they explain a failure."""
    try:
        with open_place(folder.path, is_cluster=plan.is_cluster) as place:
            report = run(plan, place, progress)
    except (ServiceError, RuntimeError, TimeoutError) as error:
        folder.is_kept = True
        progress.fail(f"{error}; logs: {folder.path}")
        return False
    progress.console.print(render(report))
    if output is not None:
        report.write(output)
    if not report.is_clean:
        folder.is_kept = True
        progress.fail(f"not clean; logs: {folder.path}")
    return report.is_clean


if __name__ == "__main__":
    main()
