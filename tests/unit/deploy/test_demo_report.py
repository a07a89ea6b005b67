"""The demo's five counts: each one alone makes it fail."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from livestep.deploy.demo.demo_report import Measured, Report
from tests.support.judged import CLEAN_AUDIT

MEASURED = Measured([20.0] * 20 + [300.0], alone_rate=20_000, fast_rate=12_000, gap_s=6.5)


def report(wrong_dishes: int = 0, published: int = 100, **changes: int) -> Report:
    return Report(published, replace(CLEAN_AUDIT, **changes), wrong_dishes, MEASURED)


def drawn(what: Report, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what.table())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_report_without_faults_is_clean() -> None:
    assert report().is_clean
    assert set(report().counts.values()) == {0}


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (report(lost=1), "lost"),
        (report(dead_letters=1), "lost"),
        (report(published=101), "lost"),
        (report(repeated=1), "repeated"),
        (report(out_of_order=1), "out of order"),
        (report(different=1), "different from offline unroll"),
        (report(wrong_dishes=1), "different from the rules"),
    ],
)
def test_each_fault_alone_is_counted_under_its_name(found: Report, name: str) -> None:
    assert not found.is_clean
    assert {key: count for key, count in found.counts.items() if count} == {name: 1}


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    lines = drawn(report()).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == len(drawn(report(), width=200).splitlines()), "a cell is broken in two"


def test_the_table_has_the_largest_difference_and_both_latencies() -> None:
    text = drawn(report())
    assert "at most by 1.5e-07" in text
    assert "20.0 ms" in text
    assert "300.0 ms" in text
