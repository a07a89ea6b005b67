"""What a run has shown: numbers for a table, a JSON file, and the verdict."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Group
from rich.table import Table
from rich.text import Text

from livestep.pipeline.audit.audit_report import AuditReport
from tests.chaos.crew import WORTH_RESTARTING
from tests.chaos.probe import Arrivals, Recovery
from tests.chaos.schedule import Kind
from tests.support.rig.machine import Machine


class Happened(NamedTuple):
    """A fault as it was; times as of `time.monotonic`.

    Attributes:
        kind: Name of its kind.
        begin_s: When it was done.
        end_s: When it was healed.
        partitions: That it could hit.
    """

    kind: str
    begin_s: float
    end_s: float
    partitions: Sequence[int]


@dataclass(frozen=True, slots=True)
class KindReport:
    """One kind of fault; seconds, over each partition that each fault could hit.

    Attributes:
        count: How often it happened.
        lasted_s: How long until it was healed, median.
        recovery_s_median: From the fault until predictions came again; 0 if they never stopped
            for half a second.
        recovery_s_max: The longest.
        after_end_s_median: The same, from the moment on when it was healed.
        after_end_s_max: The longest.
    """

    count: int
    lasted_s: float
    recovery_s_median: float
    recovery_s_max: float
    after_end_s_median: float
    after_end_s_max: float


@dataclass(frozen=True, slots=True)
class ChaosReport:
    """A whole run.

    Attributes:
        seed: It repeats the faults.
        is_cluster: Three brokers and a Redis Cluster, or one each.
        minutes: Of faults.
        workers: Run all the time.
        machine: What it ran on.
        faults: By kind.
        kills: SIGKILLs.
        worker_starts: Processes.
        exits: Documented exits of workers that nobody asked for, by exit code; started again.
        acknowledged: Events that the load was told are in the topic.
        audit: The judge's.
        longest_silence_s: Longest time without a prediction on one partition, under load.
        catch_up_s: From the last fault healed, and the load's end, to a lag of 0.
        events_per_s: Predictions a second, faults included.
        failures: What went wrong, apart from wrong predictions.
    """

    seed: int
    is_cluster: bool
    minutes: float
    workers: int
    machine: Machine
    faults: Mapping[str, KindReport]
    kills: int
    worker_starts: int
    exits: Mapping[str, int]
    acknowledged: int
    audit: AuditReport
    longest_silence_s: float
    catch_up_s: float
    events_per_s: float
    failures: Sequence[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether the promise held."""
        return (
            self.audit.is_clean
            and not self.failures
            and self.audit.events == self.acknowledged == self.audit.predictions
            and not self.audit.dead_letters
        )

    def write(self, path: Path) -> None:
        """Write all of it as JSON."""
        content = {**msgspec.to_builtins(self), "is_clean": self.is_clean}
        path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def summarize(
    kinds: Iterable[Kind], happened: Sequence[Happened], arrivals: Arrivals
) -> dict[str, KindReport]:
    """Measure the recovery from each kind of fault."""
    by_kind: dict[str, list[Happened]] = defaultdict(list)
    for one in happened:
        by_kind[one.kind].append(one)
    reports = {}
    for kind in kinds:
        faults = by_kind[kind.name]
        recoveries = [
            recovery
            for one in faults
            for recovery in arrivals.recoveries(one.partitions, one.begin_s, one.end_s)
        ] or [Recovery(0.0, 0.0)]
        silences = [one.silence_s for one in recoveries]
        after_ends = [one.after_end_s for one in recoveries]
        lasted = [one.end_s - one.begin_s for one in faults] or [0.0]
        reports[kind.name] = KindReport(
            len(faults),
            round(statistics.median(lasted), 3),
            round(statistics.median(silences), 3),
            max(silences),
            round(statistics.median(after_ends), 3),
            max(after_ends),
        )
    return reports


def render(report: ChaosReport) -> Group:
    """Lay a report out for a terminal."""
    table = Table(title="Recovery, seconds without a prediction on a partition")
    for name in ("fault", "times", "lasted", "median", "worst", "after its end: median", "worst"):
        table.add_column(name, justify="left" if name == "fault" else "right")
    for name, kind in report.faults.items():
        numbers = (
            kind.lasted_s,
            kind.recovery_s_median,
            kind.recovery_s_max,
            kind.after_end_s_median,
            kind.after_end_s_max,
        )
        table.add_row(name, str(kind.count), *(f"{number:.1f}" for number in numbers))
    audit = report.audit
    exits = ", ".join(
        f"{count} x {code} ({WORTH_RESTARTING[int(code)]})" for code, count in report.exits.items()
    )
    lines = [
        f"{sum(kind.count for kind in report.faults.values())} faults, {report.kills} of them "
        f"kills, in {report.minutes:g} minutes (seed {report.seed}); "
        f"{report.worker_starts} starts of workers; exits by themselves: {exits or 'none'}",
        f"{audit.events:,} events ({report.acknowledged:,} acknowledged), "
        f"{audit.predictions:,} predictions, {audit.keys:,} keys; "
        f"{report.events_per_s:,.0f} predictions/s with all faults",
        f"lost {audit.lost}, repeated {audit.repeated}, out of order {audit.out_of_order}, "
        f"wrong {audit.different}, dead letters {audit.dead_letters}; "
        f"largest difference {audit.max_difference:.1e}",
        f"longest gap without a prediction on a partition {report.longest_silence_s:.1f} s; "
        f"caught up {report.catch_up_s:.1f} s after the last fault",
        *map(str, audit.examples),
        *report.failures,
    ]
    verdict = Text("clean", "bold green") if report.is_clean else Text("NOT CLEAN", "bold red")
    return Group(table, *map(Text, lines), verdict)
