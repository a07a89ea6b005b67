"""Editions of plans: what a seed means never changes, what is new comes as a new edition.

1   two or three workers, one model, exactly once; faults of processes, Kafka and Redis
2   the same seed's plan with more: at least once, another model that takes over, an input topic
    that is deleted and created again or gets more partitions, bytes that somebody changes in Redis,
    and faults that are aimed at each moment in turn
"""

from __future__ import annotations

import random
from dataclasses import replace

from tests.simulation.plan import Plan, Takeover, TopicChange, draw_first_edition
from tests.simulation.simulated_faults import ANY_WORKER, KINDS, Fault, draw_fault
from tests.support.shaped import is_huge

#: The newest one.
EDITION = 2

#: Faults of a plan that are aimed.
_AIMED = 5

#: Kinds that need a transaction of the worker's.
_OF_TRANSACTIONS = frozenset({"timed-out"})

#: Changes of one plan; five of one partition in a row are not accidental for a worker.
_CHANGES_MAX = 4


def draw_plan(seed: int, edition: int = EDITION) -> Plan:
    """Draw a plan."""
    plan = draw_first_edition(seed)
    return plan if edition == 1 else _widened(plan)


def _widened(plan: Plan) -> Plan:
    """Draw what the second edition has more."""
    rng = random.Random(f"{plan.seed}/edition-2")
    is_stateless = plan.model().rules.is_stateless
    workers = len(plan.sizes)
    faults = [*plan.faults, *(_aimed(plan, rng, number) for number in range(_AIMED))]
    faults += [draw_fault(rng, workers) for _ in range(rng.choice([0, 0, 4, 8]))]
    faults += [_change(rng, workers) for _ in range(rng.choice([0, 0, 1, 2, 3]))]
    happening = rng.choice(["", "", "at-least-once", "takeover", "recreated", "added"])
    tick = rng.randint(1, max(plan.events[-1].tick, 1))
    if happening == "takeover" and not is_stateless:
        # A model without states has nothing to take over.
        takeover = Takeover(tick, rng.choice([0, 5, 30]), rng.choice(["zeros", "warm"]))
        # Nobody says of an event that a replay has met that its step was not finite.
        events = tuple(event for event in plan.events if not is_huge(event.record))
        plan = replace(plan, takeover=takeover, trim_tick=0, events=events)
    elif happening in ("recreated", "added"):
        added = rng.randint(1, 2) if happening == "added" else 0
        change = TopicChange(tick, added, is_group_told=rng.random() < 0.5)
        plan = replace(plan, topic_change=change, trim_tick=0)
    elif happening == "at-least-once":
        plan = replace(plan, guarantee="at-least-once")
        faults = [fault for fault in faults if fault.kind not in _OF_TRANSACTIONS]
    changes = [fault for fault in faults if fault.kind == "changed"]
    for fault in changes[0 if is_stateless else _CHANGES_MAX :]:
        faults.remove(fault)
    losses = {"flushed", "failover", "evicted", "changed"}
    if not losses.isdisjoint(fault.kind for fault in faults):
        plan = replace(plan, trim_tick=0)
    return replace(plan, faults=tuple(faults))


def _aimed(plan: Plan, rng: random.Random, number: int) -> Fault:
    """Aim a fault at one of the first calls; seeds in a row take one moment after another."""
    moments = [(name, *moment) for name, kind in KINDS.items() for moment in kind.moments]
    name, verb, phase = moments[(plan.seed * _AIMED + number) % len(moments)]
    return Fault(
        kind=name,
        worker=ANY_WORKER,
        verb=verb,
        phase=phase,
        call=rng.choice([0, 0, 1, 2]),
        point=rng.choice([0, 0, 0, 0, 1, 2]),
        length=rng.choice([1, 2, 5, 20, 40]),
    )


def _change(rng: random.Random, workers: int) -> Fault:
    verb, phase = rng.choice(KINDS["changed"].moments)
    return Fault(
        kind="changed",
        worker=rng.randrange(workers),
        verb=verb,
        phase=phase,
        call=int(rng.expovariate(0.25)),
        point=rng.choice([0, 0, 1, 2]),
        length=rng.randrange(1_000),
    )
