"""How a test run ends on a signal: its fixtures are torn down, also in the processes of xdist."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from livestep.deploy.local.child_process import orderly_termination
from livestep.deploy.local.tether import tie_to_parent

#: The signals that end a run: Ctrl-C, `kill`, and a terminal that closes.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def clean_end() -> Iterator[None]:
    """Turn a signal that ends the run into KeyboardInterrupt, once.

    In a process that pytest-xdist has started, that includes the end of the main process: execnet
    notices it after five seconds and interrupts again, while the services are being stopped, and
    ten seconds later ends the process. So the kernel reports it at once, and only the first signal
    interrupts.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        with orderly_termination():
            yield
        return

    is_interrupted = False

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        nonlocal is_interrupted
        if not is_interrupted:
            is_interrupted = True
            raise KeyboardInterrupt

    # SIGINT, too: a shell has background jobs ignore it, and execnet sends it anyway.
    previous = {number: signal.signal(number, interrupt) for number in ENDING}
    tie_to_parent(os.getppid(), signal.SIGTERM)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
