"""Ends a process whose call into a client library does not return."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from livestep.pipeline.exit_codes import ExitCode
from livestep.pipeline.process.stopping import end_process

#: Seconds between two looks at the call.
TICK_S = 1.0


class CallWatchdog:
    """Ends the process if one call takes longer than it may.

    The call's own timeout comes first; this one is for calls that ignore it.  Nothing is lost, as
    with any crash: the next worker continues after the last commit.  Time is counted in looks, not
    by a clock, so that a process that was frozen gets its time back.

    Args:
        limit_s: Seconds after which a call is considered hung.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._call: object | None = None
        self._name = ""
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="livestep-watchdog", daemon=True)
        self._thread.start()

    @contextmanager
    def watch(self, name: str) -> Iterator[None]:
        """Watch the call made within; one at a time.

        Args:
            name: Of the call, for the error.
        """
        self._name, self._call = name, object()
        try:
            yield
        finally:
            self._call = None

    def close(self) -> None:
        """End the thread."""
        self._is_closed.set()

    def _run(self) -> None:
        seen, ticks = None, 0
        while not self._is_closed.wait(TICK_S):
            call = self._call
            ticks = ticks + 1 if call is seen and call is not None else 0
            seen = call
            if ticks * TICK_S >= self._limit_s:
                end_process(
                    ExitCode.KAFKA,
                    f"Kafka's client has not returned from {self._name} for {self._limit_s:g} s; "
                    "nothing is lost: a restart continues after the last commit",
                )
