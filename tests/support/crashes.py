"""Workers in memory that die at any call, and logs that poll ragged batches."""

from __future__ import annotations

import random
from typing import Any

import pytest

from livestep import MemoryStore
from livestep.pipeline.batch.stepping import Stepper
from livestep.pipeline.engine.cycle import Cycle
from livestep.pipeline.memory.memory_log import MemoryLog

#: Where a worker may die: just before a call, or just after it.
PLACES: dict[str, tuple[type, str]] = {
    "poll": (MemoryLog, "poll"),
    "committed": (MemoryLog, "committed"),
    "describe": (MemoryStore, "describe"),
    "begin": (MemoryStore, "begin"),
    "pack": (Cycle, "pack"),
    "load": (Cycle, "load"),
    "read": (MemoryStore, "load"),
    "step": (Stepper, "step"),
    "send": (Cycle, "send"),
    "commit": (MemoryLog, "commit"),
    "save": (Cycle, "save"),
    "write": (MemoryStore, "write"),
}


class Crash(BaseException):
    """The end of a worker; nothing in the engine may catch it."""


class RaggedLog(MemoryLog):
    """Polls random numbers of events."""

    rng = random.Random(0)

    def poll(self, records_max: int, timeout_s: float) -> Any:
        return super().poll(self.rng.randint(1, records_max), timeout_s)


def crash_at(monkeypatch: pytest.MonkeyPatch, place: str, when: str, number: int) -> None:
    """Let the n-th call of a place raise `Crash`, before or after it."""
    owner, name = PLACES[place]
    original = getattr(owner, name)
    calls = iter(range(1, 1_000_000))

    def crashing(*args: Any, **kwargs: Any) -> Any:
        is_last = next(calls) == number
        if is_last and when == "before":
            raise Crash(place)
        result = original(*args, **kwargs)
        if is_last:
            raise Crash(place)
        return result

    monkeypatch.setattr(owner, name, crashing)
