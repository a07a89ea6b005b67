"""What can go wrong, where it can, and how a run meets it.

A fault is bound to a worker, to a verb and to a moment: before it, after it, or at a point within
it, from its n-th call on. Points within a verb are the calls that it makes: to the log, to the
store, between two records that are sent, between two chunks that are written.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal

VERBS = ("poll", "pack", "load", "step", "send", "commit", "save")

#: No worker in particular.
ANY_WORKER = -1

Phase = Literal["before", "within", "after"]
Place = Literal["", "log", "store"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault.

    Attributes:
        text: What it is.
        moments: Where it may strike: verb, phase.
        place: What the point within the verb has to be a call of; empty for any.
        when: Whether that call has to be about to be made, or just made; None for either.
        elsewhere: Why it can't strike anywhere else; empty if it can strike everywhere.
        edition: Of the plans that it belongs to, and of all later ones.
    """

    text: str
    moments: tuple[tuple[str, Phase], ...]
    place: Place = ""
    when: Literal["before", "after"] | None = None
    elsewhere: str = ""
    edition: int = 1


def _everywhere() -> tuple[tuple[str, Phase], ...]:
    phases: tuple[Phase, ...] = ("before", "within", "after")
    return tuple((verb, phase) for verb in VERBS for phase in phases)


def _within(*verbs: str) -> tuple[tuple[str, Phase], ...]:
    return tuple((verb, "within") for verb in verbs)


_OPEN: tuple[tuple[str, Phase], ...] = (
    ("send", "within"),
    ("send", "after"),
    ("commit", "before"),
    ("commit", "within"),
)
_NO_TRANSACTION = "no transaction is open there"
_NO_STORE = "the verb does not call the store"

#: All kinds by their names.
KINDS: dict[str, Kind] = {
    "crash": Kind("the process dies", _everywhere()),
    "zombie": Kind("the process is paused and resumes late", _everywhere()),
    "rebalance": Kind("the group begins a new generation", _everywhere()),
    "fenced": Kind("another process starts under the same name", _everywhere()),
    "restart": Kind("the worker is stopped and restarted with other sizes", _everywhere()),
    "flushed": Kind("Redis loses everything", _everywhere()),
    "failover": Kind("Redis loses its last writes", _everywhere()),
    "evicted": Kind("Redis loses one partition's hash", _everywhere()),
    "changed": Kind("bytes in Redis are changed", _everywhere(), edition=2),
    "aborted": Kind(
        "the broker aborts the transaction", _OPEN, when="before", elsewhere=_NO_TRANSACTION
    ),
    "timed-out": Kind("the transaction times out", _OPEN, elsewhere=_NO_TRANSACTION),
    "unknown": Kind(
        "the result of the commit is unknown",
        _within("commit"),
        place="log",
        elsewhere="only a commit has such a result",
    ),
    "broker-late": Kind(
        "the broker answers late",
        _within("poll", "send", "commit"),
        place="log",
        elsewhere="the verb does not call the broker",
    ),
    "nothing-polled": Kind(
        "the broker returns nothing for a while",
        (("poll", "before"),),
        elsewhere="only a poll returns records",
    ),
    "refused": Kind(
        "Redis refuses, or its response is lost permanently",
        _within("poll", "load", "save"),
        place="store",
        elsewhere=_NO_STORE,
    ),
    "redis-late": Kind(
        "Redis answers late", _within("poll", "load", "save"), place="store", elsewhere=_NO_STORE
    ),
    "sent-twice": Kind(
        "a response of Redis is lost, and the call is retried",
        _within("poll", "save"),
        place="store",
        when="after",
        elsewhere="the verb does not write to the store",
    ),
}

#: Offsets without a record; they are in the log, and the verb that reads it meets them.
GAPS = "gap"

#: What a run may be about, in addition to its faults.
STORIES = {
    "at-least-once": "the workers send without a transaction",
    "takeover-zeros": "another model takes over, with states at zeros",
    "takeover-warm": "another model takes over, and first replays the history",
    "recreated": "the input topic is deleted and created again",
    "added": "the input topic gets more partitions",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a plan.

    Attributes:
        kind: Its name in `KINDS`.
        worker: Whom it strikes; `ANY_WORKER` for the first worker there.
        verb: In which verb.
        phase: Before, within or after it.
        call: From which call of the verb on.
        point: Which point within the call.
        length: Ticks for whatever lasts; writes for a failover.
    """

    kind: str
    worker: int
    verb: str
    phase: Phase
    call: int
    point: int
    length: int

    def __str__(self) -> str:
        return f"{self.kind} {self.phase} {self.verb}"


def draw_fault(rng: random.Random, workers: int) -> Fault:
    """Draw a fault of the first edition.

    Each kind is as frequent as it has moments, a rare kind a little more.
    """
    kinds = {name: kind for name, kind in KINDS.items() if kind.edition == 1}
    weights = [len(kind.moments) + 4 for kind in kinds.values()]
    name = rng.choices(list(kinds), weights)[0]
    moments = KINDS[name].moments
    # Within a verb there are many moments.
    shares = [3 if phase == "within" else 1 for _, phase in moments]
    verb, phase = rng.choices(moments, shares)[0]
    return Fault(
        kind=name,
        worker=rng.randrange(workers),
        verb=verb,
        phase=phase,
        call=int(rng.expovariate(0.25)),
        point=rng.choice([0, 0, 1, 1, 2, 3, 4]),
        length=rng.choice([1, 1, 2, 5, 20, 40, 80]),
    )


class Faults:
    """The faults of a run that are still to come.

    Args:
        faults: All.

    Attributes:
        hits: How often each kind has struck at each moment: kind, verb, phase.
    """

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self._waiting = list(faults)
        self._calls: Counter[tuple[int, str]] = Counter()
        self._points: Counter[tuple[int, str]] = Counter()
        self.hits: Counter[tuple[str, str, str]] = Counter()

    def begin_call(self, worker: int, verb: str) -> None:
        """Count a call of a verb."""
        self._calls[worker, verb] += 1
        self._points[worker, verb] = 0

    def take(
        self, worker: int, verb: str, phase: Phase, place: Place = "", when: str = ""
    ) -> list[Fault]:
        """Take what strikes at this point; a fault strikes once."""
        if not self._waiting:
            return []
        call = self._calls[worker, verb]
        point = self._points[worker, verb]
        if phase == "within":
            self._points[worker, verb] += 1
        struck = [
            fault
            for fault in self._waiting
            if fault.worker in (worker, ANY_WORKER)
            and (fault.verb, fault.phase) == (verb, phase)
            and fault.call <= call
            and (phase != "within" or fault.point <= point)
            and _fits(KINDS[fault.kind], phase, place, when)
        ]
        for fault in struck:
            self._waiting.remove(fault)
            self.hits[fault.kind, verb, phase] += 1
        return struck

    def stop(self) -> None:
        """Let nothing strike any more."""
        self._waiting.clear()


def _fits(kind: Kind, phase: Phase, place: Place, when: str) -> bool:
    if phase != "within":
        return True
    return kind.place in ("", place) and kind.when in (None, when or "before")
