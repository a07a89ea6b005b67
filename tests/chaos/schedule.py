"""Which fault happens when: all that chance decides about a run comes from its seed, here."""

from __future__ import annotations

import random
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    Attributes:
        name: Its name, also of what does it in `chaos_faults.py`.
        text: What happens.
        weight: How often it is drawn, compared with the others.
        lasts_s: From, to; (0, 0) for what ends at once.
        is_kill: Whether it ends a process by SIGKILL.
        needs_one_node: Whether a cluster can't have it.
        needs_prlimit: Whether it takes a limit that only Linux lets us set on another process.
    """

    name: str
    text: str
    weight: int
    lasts_s: tuple[float, float] = (0.0, 0.0)
    is_kill: bool = False
    needs_one_node: bool = False
    needs_prlimit: bool = False


#: A silence that ends a session: times the session time-out.
PAUSE_SESSIONS = (1.3, 2.5)

KINDS = (
    Kind("worker-kill", "a worker is killed and started again", 13, is_kill=True),
    Kind("worker-pause", "a worker is stopped past the session time-out, and wakes up", 2),
    Kind("worker-add", "a worker comes, and leaves later", 1, (6.0, 12.0)),
    Kind("worker-leave", "a worker is told to leave, and is started again", 1),
    Kind("redis-kill", "Redis is killed, and started again", 3, (0.5, 4.0), is_kill=True),
    Kind("redis-flush", "Redis loses all states", 1),
    Kind(
        "redis-snapshot",
        "Redis is killed, and comes back with the states of an earlier time",
        1,
        (0.5, 2.0),
        is_kill=True,
        needs_one_node=True,
    ),
    Kind("redis-cut", "all connections to Redis are closed", 1),
    Kind("redis-full", "Redis has no memory for writes", 1, (2.0, 6.0)),
    Kind("redis-disk-full", "Redis' disk is full", 1, (2.0, 6.0), needs_prlimit=True),
    Kind("redis-slow", "the network to Redis is slow and narrow", 1, (3, 8), needs_one_node=True),
    Kind("redis-silent", "the network to Redis loses all", 1, (2, 7), needs_one_node=True),
    Kind("kafka-kill", "a broker is killed, and started again", 3, (0.5, 3.0), is_kill=True),
    Kind("kafka-cut", "all connections of workers to brokers are closed", 1),
    Kind("kafka-slow", "the network to the brokers is slow and narrow", 1, (3.0, 8.0)),
    Kind("kafka-silent", "the network to the brokers loses all", 1, (2.0, 7.0)),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a run.

    Attributes:
        at_s: When it begins, after the begin of the run.
        kind: Name of its kind.
        target: Which of those that it can hit: an index, modulo their number.
        lasts_s: How long until it is healed.
    """

    at_s: float
    kind: str
    target: int
    lasts_s: float


def kinds_for(*, is_cluster: bool) -> tuple[Kind, ...]:
    """Return the kinds that can happen on this machine."""
    return tuple(
        kind
        for kind in KINDS
        if not (is_cluster and kind.needs_one_node)
        and (not kind.needs_prlimit or hasattr(resource, "prlimit"))
    )


def make_schedule(
    seed: int,
    kinds: Sequence[Kind],
    *,
    duration_s: float,
    interval_s: float,
    session_timeout_s: float,
) -> list[Fault]:
    """Draw the faults of a run: first one of each kind, then each as often as its weight says.

    They overlap: the next one does not wait until the last one is healed.

    Args:
        seed: The same one gives the same faults.
        kinds: Of which.
        duration_s: When the last one has begun at the latest.
        interval_s: Between two on average.
        session_timeout_s: Of the workers; a pause is longer.

    Example:
        >>> faults = make_schedule(
        ...     1, KINDS, duration_s=60, interval_s=3, session_timeout_s=4
        ... )
        >>> faults == make_schedule(1, KINDS, duration_s=60, interval_s=3, session_timeout_s=4)
        True
        >>> {kind.name for kind in KINDS} == {fault.kind for fault in faults[: len(KINDS)]}
        True
    """
    rng = random.Random(seed)
    cards = _cards(rng, kinds)
    faults: list[Fault] = []
    at_s = 0.0
    while at_s < duration_s:
        kind = next(cards)
        lasts_s = rng.uniform(*kind.lasts_s)
        if kind.name == "worker-pause":
            lasts_s = session_timeout_s * rng.uniform(*PAUSE_SESSIONS)
        faults.append(Fault(round(at_s, 3), kind.name, rng.randrange(1_000), round(lasts_s, 3)))
        at_s += interval_s * rng.uniform(0.5, 1.5)
    return faults


def _cards(rng: random.Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    """Deal one of each kind, then deck after deck, so that rare kinds come, too."""
    once = list(kinds)
    rng.shuffle(once)
    yield from once
    while True:
        deck = [kind for kind in kinds for _ in range(kind.weight)]
        rng.shuffle(deck)
        yield from deck
