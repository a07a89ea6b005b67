"""The status lines of a worker's log, as numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from livestep.deploy.local.child_process import ChildProcess

_STATUS = re.compile(
    r"([\d,]+) events/s, lag ([\d,]+), ([\d,]+) keys in pool, ([\d,]+) events a batch, (\d+) part"
)
_REPLAYED = re.compile(r"([\d,]+) events/s replayed")
_VERBS = re.compile(r"us an event: (.*)$")


@dataclass(frozen=True)
class Status:
    """One status line of a worker; see `engine.status`; `verbs` are microseconds an event."""

    events_per_s: int
    lag: int
    pool_keys: int
    events_a_batch: int
    partitions: int
    replayed_per_s: int
    verbs: str


def statuses(worker: ChildProcess) -> list[Status]:
    """Read all status lines of a worker's log."""
    if not worker.log_path.exists():
        return []
    found = []
    for line in worker.log_path.read_text(encoding="utf-8", errors="replace").splitlines():
        if match := _STATUS.search(line):
            replayed = _REPLAYED.search(line)
            numbers = [int(text.replace(",", "")) for text in match.groups()]
            verbs = _VERBS.search(line)
            found.append(
                Status(
                    *numbers,
                    replayed_per_s=int(replayed[1].replace(",", "")) if replayed else 0,
                    verbs=verbs[1] if verbs else "",
                )
            )
    return found
