"""A run is clean only if everything about it is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.chaos.probe import Arrivals
from tests.chaos.report import ChaosReport, Happened, render, summarize
from tests.chaos.schedule import KINDS
from tests.support.judged import CLEAN_AUDIT
from tests.support.rig.machine import describe_machine


def report(**changes: Any) -> ChaosReport:
    """A clean run with one kill, but for the changes."""
    arrivals = Arrivals()
    for now_s in (1.0, 1.2, 4.2, 4.4):
        arrivals.note(now_s, {0: 25})
    happened = [Happened("worker-kill", 1.2, 1.2, [0])]
    given: dict[str, Any] = {
        "seed": 1,
        "is_cluster": False,
        "minutes": 1.0,
        "workers": 3,
        "machine": describe_machine(),
        "faults": summarize(KINDS, happened, arrivals),
        "kills": 1,
        "worker_starts": 4,
        "exits": {"4": 2},
        "acknowledged": 100,
        "audit": CLEAN_AUDIT,
        "longest_silence_s": 3.0,
        "catch_up_s": 1.0,
        "events_per_s": 50.0,
        **changes,
    }
    return ChaosReport(**given)


def test_a_run_without_a_fault_of_ours_is_clean() -> None:
    assert report().is_clean


@pytest.mark.parametrize(
    "changes",
    [
        {"audit": dataclasses.replace(CLEAN_AUDIT, lost=1)},
        {"audit": dataclasses.replace(CLEAN_AUDIT, repeated=1)},
        {"audit": dataclasses.replace(CLEAN_AUDIT, out_of_order=1)},
        {"audit": dataclasses.replace(CLEAN_AUDIT, different=1)},
        {"audit": dataclasses.replace(CLEAN_AUDIT, dead_letters=1)},
        {"audit": dataclasses.replace(CLEAN_AUDIT, predictions=99)},
        {"acknowledged": 101},
        {"failures": ["worker-1 ended with exit status 1"]},
    ],
    ids=str,
)
def test_one_thing_wrong_is_enough(changes: dict[str, Any]) -> None:
    assert not report(**changes).is_clean


def test_recovery_is_measured_for_each_kind() -> None:
    faults = report().faults
    assert faults["worker-kill"].count == 1
    assert faults["worker-kill"].recovery_s_max == 3.0
    assert faults["redis-kill"].count == 0


def test_it_can_be_read_by_people_and_programs(tmp_path: Path) -> None:
    # Given a report, when it is shown and written
    console = Console(record=True, width=120, file=(tmp_path / "shown").open("w"))
    console.print(render(report()))
    console.file.close()
    report().write(tmp_path / "report.json")

    # Then both say how it went
    shown = console.export_text()
    assert "worker-kill" in shown
    assert "2 x 4 (Kafka away)" in shown
    assert "clean" in shown
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written["is_clean"] is True
    assert written["faults"]["worker-kill"]["recovery_s_max"] == 3.0
    assert written["audit"]["events"] == 100
