"""How a worker stops by a signal, in time, whatever it waits for."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, Self

from livestep.pipeline.exit_codes import ExitCode
from livestep.pipeline.process.deadline import Deadline

_log = logging.getLogger("livestep.engine")

#: Signals that drain a worker, and the exit code of one that is ended by them before it is drained.
_CODES = {
    signal.SIGTERM: ExitCode.TERMINATED,
    signal.SIGINT: ExitCode.INTERRUPT,
    signal.SIGHUP: ExitCode.HANGUP,
}


class Stop:
    """The stop of a worker: started once, by a signal or `begin`, and complete within its deadline.

    Waits end with the deadline.  A call into a client library may not: when the time has passed,
    the process ends at once.  Like a crash, that loses nothing.  A second signal
    ends it at once, and so does the first one before `listen`: there is nothing to drain yet.  A
    signal that is ignored, as by nohup, remains ignored.

    Enter it in the main thread.

    Args:
        timeout_s: `Settings.drain_timeout_s`.

    Attributes:
        deadline: Of all waits.
        has_begun: Set in the event loop of `listen`.
    """

    def __init__(self, timeout_s: float) -> None:
        self.deadline = Deadline(timeout_s)
        self._timeout_s = timeout_s
        self.has_begun = asyncio.Event()
        self._timer = threading.Timer(timeout_s, self._end_late)
        self._timer.daemon = True
        self._last_words: Callable[[], tuple[int, str]]
        self._is_signalled = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _CODES:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                self._before[number] = before
                # Python's own handler raises KeyboardInterrupt.
                if number != signal.SIGINT:
                    signal.signal(number, _end_while_starting)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen(self, last_words: Callable[[], tuple[int, str]]) -> None:
        """From now on, begin the stop at a signal, in the running event loop.

        Args:
            last_words: Returns exit code and error of a process whose time has passed.
        """
        self._last_words = last_words
        for number in self._before:
            asyncio.get_running_loop().add_signal_handler(number, self._handle, number)

    def begin(self) -> None:
        """Begin to stop; only the first call counts. Call it in the event loop, after `listen`."""
        if not self.has_begun.is_set():
            self.deadline.begin()
            self._timer.start()
            self.has_begun.set()

    def _handle(self, number: signal.Signals) -> None:
        if self._is_signalled:
            end_process(_CODES[number], f"ended at once by a second signal, {number.name}")
        self._is_signalled = True
        self.begin()
        _log.info(
            "%s: stopping within %g s; a second signal ends the worker at once",
            number.name,
            self._timeout_s,
        )

    def _end_late(self) -> None:
        """End the process when the time has passed: something still waits."""
        end_process(*self._last_words())


def _end_while_starting(number: int, _: FrameType | None) -> NoReturn:
    one = signal.Signals(number)
    end_process(_CODES[one], f"ended by {one.name} while the worker was starting")


def end_process(code: int, text: str) -> NoReturn:
    """End this process now, without waiting for any thread.

    Args:
        code: Exit code.
        text: The error, one line.
    """
    # Past Python's standard error, whose lock a thread that hangs may hold. A pipe counts as
    # writable if so many bytes have room; one that is full, or has lost its reader, gets none.
    try:
        if select.select([], [2], [], 0)[1]:
            os.write(2, f"error: {text}\n".encode(errors="replace")[: select.PIPE_BUF])
    finally:
        os._exit(code)
