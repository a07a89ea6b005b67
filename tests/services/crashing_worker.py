"""A worker that kills itself (SIGKILL) at a verb: `crashing_worker before-commit:3 worker ...`.

The code is the worker's own; only the call of one verb is led past the kill.  The number says at
which call of the verb.  `stop-commit:3` stops it (SIGSTOP) before the call instead, and
`defect-load:3` lets the call raise what nothing in the worker foresees.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from livestep.pipeline.cli import main
from livestep.pipeline.engine.cycle import Cycle
from livestep.pipeline.kafka.kafka_log import KafkaLog
from livestep.pipeline.kafka.transaction import Transactions
from livestep.pipeline.state.store import RedisStore

#: Where each verb is done.
PLACES: dict[str, tuple[type, str]] = {
    "poll": (KafkaLog, "poll"),
    "pack": (Cycle, "pack"),
    "load": (Cycle, "load"),
    "send": (Cycle, "send"),
    "commit": (Transactions, "commit"),
    "save": (Cycle, "save"),
    "store": (RedisStore, "save"),
}


def crash_at(place: str) -> None:
    """Lead the place's call past a SIGKILL."""
    when, _, rest = place.partition("-")
    verb, _, number = rest.partition(":")
    owner, name = PLACES[verb]
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def crashing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if when == "before" and calls == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        if when == "stop" and calls == int(number):
            print(f"stopped before {verb}", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        if when == "defect" and calls == int(number):
            raise KeyError(f"planted before {verb}")
        result = original(*args, **kwargs)
        if when == "after" and calls == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, crashing)


if __name__ == "__main__":
    crash_at(sys.argv.pop(1))
    main()
