"""Child processes that never outlive this process, however it ends.

Hides: the tether to this process (`deploy/local/tether.py`), the separate session that keeps the
terminal's Ctrl-C away from a child, log files, and signals with bounded waits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

#: How long a clean shutdown may take before the child is killed. A Kafka broker needs one to two
#: seconds.
STOP_TIMEOUT_S = 15.0

#: SIGKILL ends a child within milliseconds, unless it is blocked in a disk call.
KILL_TIMEOUT_S = 10.0

#: Lines of a child's log that an error shows.
LOG_TAIL_LINES = 20

# PR_SET_PDEATHSIG fires when the starting *thread* ends, and a test may restart a service from a
# short-lived thread. So one thread, which ends with the interpreter, starts all children.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="child-starter")


class ServiceError(RuntimeError):
    """A required program can't be fetched or started; names it, the reason and the remedy."""


def tethered(command: Sequence[str]) -> list[str]:
    """Return a command line that runs `command` and dies with the calling process.

    The process id is the command's own. Valid only for a child of this process, started from a
    thread that lives as long as the child should (see `deploy/local/tether.py`).
    """
    tether = str(Path(__file__).with_name("tether.py"))
    return [sys.executable, "-I", "-S", tether, str(os.getpid()), *command]


class ChildProcess:
    """A program to start, stop, kill, pause and restart; it never outlives this process.

    Not thread-safe. The output of all starts is appended to `log_path`.

    Args:
        name: For messages.
        command: Program and arguments.
        log_path: File for standard output and standard error; its folder must exist.
        environment: Variables in addition to those of this process.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sleeper = ChildProcess("sleeper", ["sleep", "60"], Path(folder) / "sleeper.log")
        ...     sleeper.start()
        ...     sleeper.is_running
        ...     sleeper.kill()
        ...     sleeper.is_running, sleeper.exit_code
        True
        (False, -9)

    Source:
        prctl(2), PR_SET_PDEATHSIG.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log_path = log_path
        self.environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the latest start.

        Raises:
            ServiceError: If it was never started.
        """
        if self._process is None:
            raise ServiceError(f"{self.name} was never started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit status of the latest start, or minus the signal; None while it runs."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start the program; do nothing if it is already running."""
        if not self.is_running:
            _starter.submit(self._start).result()

    def _start(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                tethered(self.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.log_path.parent,
                env={**os.environ, **self.environment},
                # A separate session: Ctrl-C in the terminal reaches only this process, and it
                # decides what stops when.
                start_new_session=True,
            )

    def wait(self, timeout_s: float) -> int:
        """Wait until the program ends, and return its exit status.

        Raises:
            TimeoutError: If it still runs after `timeout_s`; it keeps running.
        """
        if self._process is None:
            raise ServiceError(f"{self.name} was never started")
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {timeout_s:g} s") from None

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Ask the program to exit (SIGTERM); kill it if it is still running after `timeout_s`.

        A paused program is resumed, otherwise it could not exit.
        """
        if self.is_running:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)
            try:
                self.wait(timeout_s)
            except TimeoutError:
                self.kill()

    def kill(self) -> None:
        """Kill the program (SIGKILL), as the out-of-memory killer would."""
        if self.is_running:
            self.signal(signal.SIGKILL)
            self.wait(KILL_TIMEOUT_S)

    def pause(self) -> None:
        """Pause the program (SIGSTOP): it keeps its connections but answers nothing."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a paused program (SIGCONT)."""
        self.signal(signal.SIGCONT)

    def signal(self, signal_number: signal.Signals) -> None:
        """Send a signal, unless the program has ended."""
        if self._process is not None:
            self._process.send_signal(signal_number)

    def log_tail(self, line_count: int = LOG_TAIL_LINES) -> str:
        """Return the last lines of its log."""
        if not self.log_path.exists():
            return ""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-line_count:])


class Service(ChildProcess, ABC):
    """A server on this machine; it counts as started once it answers.

    It can be restarted after `stop` or `kill` with the same address and data.
    """

    #: How long a start may take; the slow case is a broker that recovers its log on a busy machine.
    start_timeout_s: float = 60.0

    #: Between two checks of a server that is starting.
    poll_interval_s: float = 0.05

    def start(self) -> None:
        """Start the server, unless it is running, and wait until it answers.

        Raises:
            ServiceError: If it exits, or does not answer within `start_timeout_s`; has the end of
                its log. It is not left running.
        """
        super().start()
        deadline = time.monotonic() + self.start_timeout_s
        while not self.is_ready():
            if not self.is_running:
                raise self._start_error(f"ended with exit status {self.exit_code}")
            if time.monotonic() > deadline:
                self.kill()
                raise self._start_error(f"did not answer within {self.start_timeout_s:g} s")
            time.sleep(self.poll_interval_s)

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the server answers a real request; returns within a second or so."""

    def _start_error(self, what: str) -> ServiceError:
        tail = self.log_tail() or "(it wrote nothing)"
        return ServiceError(f"{self.name} {what} during its start. End of {self.log_path}:\n{tail}")


@contextlib.contextmanager
def orderly_termination() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt inside the block.

    So `with` and `finally` clean up as after Ctrl-C. Only the main thread receives signals; in any
    other thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signal_number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {
        number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
