"""Short runs of `python -m tests.chaos`: each kind of fault once, and a cluster that fails over."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos.place import open_place
from tests.chaos.report import ChaosReport, render
from tests.chaos.run import Plan, run
from tests.support.rig.progress import Progress

# The run's own time-outs end it first, with what it was waiting for.
pytestmark = pytest.mark.timeout(900)


def run_in(folder: Path, plan: Plan) -> ChaosReport:
    """Run a plan on services of its own: the other tests' have no proxies, and are theirs."""
    console = Console(highlight=False)
    with open_place(folder, is_cluster=plan.is_cluster) as place:
        report = run(plan, place, Progress(console))
    console.print(render(report))
    return report


def test_each_kind_of_fault_once_under_load(tmp_path: Path) -> None:
    # Given two workers under a steady load, and a seed
    plan = Plan(
        seed=7,
        minutes=0.45,
        interval_s=1.6,
        events_per_s=500,
        keys=1_000,
        workers=2,
        partitions=4,
        session_timeout_ms=2_000,
    )

    # When each kind of fault happens once at least
    report = run_in(tmp_path, plan)

    # Then each event was predicted exactly once, in order, and rightly
    assert [name for name, kind in report.faults.items() if not kind.count] == []
    assert report.audit.events > 0
    assert report.is_clean, report


def test_a_broker_and_a_master_of_clusters_are_killed(tmp_path: Path) -> None:
    # Given three brokers, a Redis Cluster, and two workers under a steady load
    plan = Plan(
        seed=1,
        minutes=0.1,
        interval_s=3.0,
        events_per_s=500,
        keys=1_000,
        workers=2,
        partitions=4,
        is_cluster=True,
        only=("kafka-kill", "redis-kill"),
    )

    # When a broker and a master are killed, and their replicas take over
    report = run_in(tmp_path, plan)

    # Then each event was predicted exactly once, in order, and rightly
    assert report.kills >= 2
    assert report.is_clean, report
