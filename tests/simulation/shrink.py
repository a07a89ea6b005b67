"""Takes from a plan that fails what it does not need to fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from tests.simulation.plan import PLAIN, Plan

#: Runs that shrinking may take.
RUNS_MAX = 300


def shrink(plan: Plan, is_failing: Callable[[Plan], bool], runs_max: int = RUNS_MAX) -> Plan:
    """Take away piece by piece, and keep what still fails; the largest pieces first.

    Args:
        plan: One that fails.
        is_failing: Runs a plan; whether it fails in the same way.
        runs_max: Runs after which the smallest so far is taken.
    """
    runs = 0
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for candidate in _smaller(plan):
            if runs >= runs_max:
                return plan
            runs += 1
            if is_failing(candidate):
                plan, is_smaller = candidate, True
                break
    return plan


def size(plan: Plan) -> int:
    """Measure a plan by what has to be read to understand it."""
    return len(plan.events) + 3 * (len(plan.faults) + len(plan.rebalances) + len(plan.sizes))


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Return plans that lack something of this one."""
    for name in ("events", "faults", "rebalances"):
        for rest in _without_parts(getattr(plan, name)):
            yield dataclasses.replace(plan, **{name: rest})
    if len(plan.sizes) > 1:
        last = len(plan.sizes) - 1
        faults = tuple(fault for fault in plan.faults if fault.worker < last)
        yield dataclasses.replace(plan, sizes=plan.sizes[:-1], faults=faults)
    if plan.partitions > 1:
        rebalances = tuple(
            dataclasses.replace(one, owners=one.owners[:-1]) for one in plan.rebalances
        )
        yield dataclasses.replace(plan, partitions=plan.partitions - 1, rebalances=rebalances)
    for name, simplest in (
        ("switch_share", 0.0),
        ("trim_tick", 0),
        ("takeover", None),
        ("topic_change", None),
        ("guarantee", "exactly-once"),
    ):
        if getattr(plan, name) != simplest:
            yield dataclasses.replace(plan, **{name: simplest})
    if any(event.mode != PLAIN for event in plan.events):
        events = tuple(
            dataclasses.replace(event, mode=PLAIN, open_ticks=0) for event in plan.events
        )
        yield dataclasses.replace(plan, events=events)


def _without_parts(parts: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Leave out halves, quarters, and so on down to single ones."""
    length = len(parts)
    while length:
        length = (length + 1) // 2 if length > 1 else 0
        if not length:
            return
        for start in range(0, len(parts), length):
            yield parts[:start] + parts[start + length :]
        if length == 1:
            return
