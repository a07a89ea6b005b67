"""The time in which a worker has to leave, shared by everything that waits."""

from __future__ import annotations

import math
import threading
import time

#: Share of the time that goes to what is still to be done; the rest is for leaving the group and
#: for a call on its way that can't be ended.
_WORK_SHARE = 2 / 3

#: Share for one call that can't be interrupted.
_CALL_SHARE = 1 / 4


class Deadline:
    """When a stop has to be complete; there is no limit before `begin`.

    All of it may be used from several threads.

    Args:
        timeout_s: From `begin` to the end.

    Example:
        >>> deadline = Deadline(30)
        >>> deadline.work_s(100)
        100
        >>> deadline.begin()
        >>> 19 < deadline.work_s(100) <= 20 and 29 < deadline.leave_s(100) <= 30
        True
    """

    def __init__(self, timeout_s: float = math.inf) -> None:
        self._timeout_s = timeout_s
        self._began_at_s = math.inf
        self._lock = threading.Lock()
        #: Set by `begin`: a wait that serves nothing any more ends then.
        self.has_begun = threading.Event()

    def begin(self) -> None:
        """Start the time; only the first call counts."""
        with self._lock:
            if not self.has_begun.is_set():
                self._began_at_s = time.monotonic()
                self.has_begun.set()

    def work_s(self, limit_s: float) -> float:
        """Bound a wait for what should still be done, such as a save."""
        return self._left_s(limit_s, self._timeout_s * _WORK_SHARE)

    def leave_s(self, limit_s: float) -> float:
        """Bound a wait that is a part of leaving."""
        return self._left_s(limit_s, self._timeout_s)

    def call_s(self, limit_s: float) -> float:
        """Bound a call that can't be ended, and may already wait when the stop begins."""
        return min(limit_s, self._timeout_s * _CALL_SHARE)

    def _left_s(self, limit_s: float, share_s: float) -> float:
        if not self.has_begun.is_set():
            return limit_s
        return max(0.0, min(limit_s, self._began_at_s + share_s - time.monotonic()))
