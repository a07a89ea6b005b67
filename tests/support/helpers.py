"""What tests in several folders need."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Between two looks at a predicate: short compared with anything that a test waits for.
POLL_INTERVAL_S = 0.02


def wait_until(predicate: Callable[[], T], timeout_s: float = 30.0, message: str = "") -> T:
    """Wait until `predicate` returns something true, and return that.

    Replaces every sleep of a fixed length. The predicate is asked at least once, and once more
    after the time-out.

    Args:
        predicate: Asked again and again; an exception from it ends the wait.
        timeout_s: Generous, since a test that passes does not wait that long.
        message: What was waited for; without it the name of the predicate.

    Raises:
        TimeoutError: If it never became true; says what it returned last.

    Example:
        >>> ticks = iter([0, 0, 3])
        >>> wait_until(lambda: next(ticks))
        3
    """
    deadline = time.monotonic() + timeout_s
    while True:
        is_over = time.monotonic() > deadline
        if result := predicate():
            return result
        if is_over:
            what = message or getattr(predicate, "__name__", repr(predicate))
            raise TimeoutError(f"waited {timeout_s:g} s for: {what}; last result: {result!r}")
        time.sleep(POLL_INTERVAL_S)
