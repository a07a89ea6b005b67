"""Measure overload, endurance and recovery: `python -m tests.load --help`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec
import torch
from rich.console import Console
from rich.table import Table

from livestep.deploy.local.child_process import ServiceError
from tests.load import endurance, overload, recoveries
from tests.load.rig import Rig, ScenarioError, make_rig
from tests.support.rig.machine import describe_machine
from tests.support.rig.progress import Progress
from tests.support.rig.runs import exits

#: What each scenario is called with: its size in full, and in a first look (--quick).
SCENARIOS: dict[str, tuple[Callable[[Rig, Any], dict[str, Any]], float, float]] = {
    "overload": (overload.overload, 1_000_000, 30_000),
    "one-key": (overload.one_key, 300_000, 10_000),
    "million-keys": (overload.million_keys, 1_000_000, 10_000),
    "slow-redis": (overload.slow_redis, 20.0, 4.0),
    "restarts": (endurance.restarts, 50, 3),
    "sigkill": (recoveries.sigkill, 1_000_000, 20_000),
    "replay": (recoveries.replay, 1_000_000, 60_000),
    "endurance": (endurance.endurance, 30.0, 0.5),
}


@click.command()
@click.argument("names", nargs=-1, metavar=f"[{'|'.join(SCENARIOS)}]...")
@click.option("--quick", is_flag=True, help="Small sizes, for a first look.")
@click.option("--minutes", type=float, help="Length of `endurance`.  [default: 30]")
@click.option("--output", type=click.Path(path_type=Path), help="File for all figures, as JSON.")
def main(names: tuple[str, ...], quick: bool, minutes: float | None, output: Path | None) -> None:
    """Run scenarios of overload, endurance and recovery on real Kafka and Redis.

    Without names all are run, the long one last. Each prints a table; a scenario that does not keep
    the promise, or leaves something behind, is an error, and the exit status 1.
    """
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise click.BadParameter(f"{', '.join(unknown)}: known are {', '.join(SCENARIOS)}")
    progress = Progress()
    # The truth is computed next to the workers; threads would be in their way.
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with exits(ServiceError), make_rig(progress) as rig:
        for name in names or SCENARIOS:
            scenario, full, small = SCENARIOS[name]
            size = small if quick else full
            if name == "endurance" and minutes:
                size = minutes
            progress.say(f"scenario {name}, size {size:,g}")
            try:
                found[name] = scenario(rig, size)
            except (ScenarioError, TimeoutError) as error:
                progress.fail(f"{name}: {error}")
                continue
            show(name, found[name])
            if output is not None:
                write(output, found, progress)
    if progress.failures:
        sys.exit(1)


def show(name: str, found: Mapping[str, Any]) -> None:
    """Print the figures of one scenario."""
    table = Table(title=name, show_header=False, title_justify="left")
    for label, value in found.items():
        text = (
            ", ".join(f"{part} {number:,}" for part, number in value.items())
            if isinstance(value, dict)
            else f"{value:,}"
            if isinstance(value, int | float)
            else str(value)
        )
        table.add_row(label.replace("_", " "), text)
    Console(width=110, highlight=False).print(table)


def write(output: Path, found: Mapping[str, Any], progress: Progress) -> None:
    """Write all figures so far, and on which machine."""
    text = {
        "machine": msgspec.to_builtins(describe_machine()),
        "failures": progress.failures,
        "scenarios": found,
    }
    output.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
