"""`python -m tests.simulation`: run seeds, tell their stories, shrink what fails."""

from __future__ import annotations

import sys
from collections import Counter

import click
import torch
from rich.console import Console
from rich.progress import Progress

from tests.simulation.ablations import ABLATIONS, ablated
from tests.simulation.coverage import table
from tests.simulation.editions import EDITION, draw_plan
from tests.simulation.plan import Plan
from tests.simulation.seeds import repeat_line
from tests.simulation.shrink import shrink
from tests.simulation.simulated_faults import KINDS
from tests.simulation.simulation import Outcome, simulate

_console = Console(highlight=False)


def _tell(outcome: Outcome, plan: Plan) -> None:
    """Print a story: tick, who, what."""
    faults = ", ".join(map(str, plan.faults)) or "none"
    _console.print(
        f"{plan.shape}, {plan.model().codec}, {plan.guarantee}: {len(plan.sizes)} workers, "
        f"{plan.partitions} partitions, {len(plan.events)} events; faults planned: {faults}",
        markup=False,
        soft_wrap=True,
    )
    for tick, name, text in outcome.story:
        _console.print(f"{tick:6} {_short(name):6} {text}", markup=False, soft_wrap=True)


def _short(name: str) -> str:
    """Write many lives as a number."""
    lives = name.count("'")
    return name if lives < 4 else f"{name.rstrip(chr(39))}'{lives}"


def _tell_failure(seed: int, edition: int, outcome: Outcome, ablation: str | None) -> None:
    """Shrink a failing seed, and tell what is left of it."""
    line = repeat_line(seed, edition, ablation)
    _console.print(f"[bold red]FAILED[/]  {line}", soft_wrap=True)
    _console.print(outcome.failure or "", markup=False, soft_wrap=True)
    _console.print("shrinking...")

    def is_failing(plan: Plan) -> bool:
        return simulate(plan, ablated(ablation)).check == outcome.check

    small = shrink(draw_plan(seed, edition), is_failing)
    again = simulate(small, ablated(ablation))
    _console.print("the shortest story that was found:")
    _tell(again, small)
    _console.print(again.failure or "", markup=False, soft_wrap=True)


def _run_one(seed: int, edition: int, ablation: str | None) -> bool:
    """Run one seed and tell its story; say whether it is as it has to be."""
    plan = draw_plan(seed, edition)
    outcome = simulate(plan, ablated(ablation))
    if outcome.failure is None:
        _tell(outcome, plan)
        struck = sum(count for (kind, _, _), count in outcome.hits.items() if kind in KINDS)
        _console.print(f"seed {seed}: nothing wrong, with {struck} faults")
        return True
    _tell_failure(seed, edition, outcome, ablation)
    return False


def _run_many(first: int, count: int, edition: int, ablation: str | None, is_told: bool) -> bool:
    """Run seeds until one fails; say whether none has."""
    hits: Counter[tuple[str, str, str]] = Counter()
    failed: Outcome | None = None
    with Progress(console=_console) as progress:
        task = progress.add_task("seeds", total=count)
        for seed in range(first, first + count):
            outcome = simulate(draw_plan(seed, edition), ablated(ablation))
            hits += outcome.hits
            progress.advance(task)
            if outcome.failure is not None:
                failed = outcome
                break
    if is_told:
        _console.print(table(hits, seed + 1 - first))
    if failed is None:
        _console.print(f"{count} seeds from {first} on: nothing wrong")
        return True
    _tell_failure(seed, edition, failed, ablation)
    return False


@click.command()
@click.option("--seed", type=int, help="Run this one, and tell its story.")
@click.option("--seeds", type=click.IntRange(min=1), default=1_000, help="How many to run.")
@click.option("--from", "first", type=int, default=0, help="The first of them.")
@click.option("--edition", type=click.IntRange(1, EDITION), default=EDITION, help="Of the plans.")
@click.option("--ablation", type=click.Choice(list(ABLATIONS)), help="Take this away.")
@click.option("--coverage", is_flag=True, help="Print how often each fault has struck.")
def main(
    seed: int | None, seeds: int, first: int, edition: int, ablation: str | None, coverage: bool
) -> None:
    """Simulate the worker under faults; exit code 1 if something is wrong."""
    torch.set_num_threads(1)
    if seed is not None:
        is_right = _run_one(seed, edition, ablation)
    else:
        is_right = _run_many(first, seeds, edition, ablation, coverage)
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
