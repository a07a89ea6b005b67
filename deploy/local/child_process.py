"""Child processes that never outlive us, whatever ends us.

Hides: the tether to this process (`deploy/local/tether.py`), the session of its own that keeps the
terminal's Ctrl-C away from a child, log files, signals with bounded waits.
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

#: How long an orderly end may take before the child is killed. A Kafka broker needs one to two
#: seconds.
STOP_TIMEOUT_S = 15.0

#: A child that was sent SIGKILL is gone in milliseconds, unless the kernel holds it in a disk call.
KILL_TIMEOUT_S = 10.0

#: Lines of its log that an error about a child shows.
LOG_TAIL_LINES = 20

# PR_SET_PDEATHSIG fires when the starting *thread* ends, and a test may well restart a service from
# a thread of its own. So one thread starts all children; it ends with the interpreter.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="child-starter")


class ServiceError(RuntimeError):
    """A program that we depend on can't be fetched or started: which, why and what to do."""


def tethered(command: Sequence[str]) -> list[str]:
    """Return the command line that runs `command` and dies with the process that calls this.

    The process id stays the command's own. Valid only for a child of this process, started from a
    thread that lives as long as the child should (see `deploy/local/tether.py`).
    """
    tether = str(Path(__file__).with_name("tether.py"))
    return [sys.executable, "-I", "-S", tether, str(os.getpid()), *command]


class ChildProcess:
    """A program that we start, stop, kill, pause and start again, and that never outlives us.

    Not for use from several threads at once. Its output is appended to `log_path`, over all starts.

    Args:
        name: For messages.
        command: Program and arguments.
        log_path: File for standard output and standard error; its folder must exist.
        environment: Variables beside those of this process.

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
        """How the latest start ended: the exit status, or minus the signal; None while it runs."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Start the program; do nothing if it runs already."""
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
                # A session of its own: Ctrl-C in the terminal reaches us, and we decide what stops
                # when.
                start_new_session=True,
            )

    def wait(self, timeout_s: float) -> int:
        """Wait until the program has ended and return its exit status.

        Raises:
            TimeoutError: If it still runs after `timeout_s`; it is left running.
        """
        if self._process is None:
            raise ServiceError(f"{self.name} was never started")
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {timeout_s:g} s") from None

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Ask the program to end (SIGTERM); kill it if it has not after `timeout_s`.

        A paused one is resumed, else it could not end.
        """
        if self.is_running:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)
            try:
                self.wait(timeout_s)
            except TimeoutError:
                self.kill()

    def kill(self) -> None:
        """End the program at once (SIGKILL), as the out-of-memory killer would."""
        if self.is_running:
            self.signal(signal.SIGKILL)
            self.wait(KILL_TIMEOUT_S)

    def pause(self) -> None:
        """Freeze the program (SIGSTOP): it keeps its connections and answers nothing."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused program go on (SIGCONT)."""
        self.signal(signal.SIGCONT)

    def signal(self, signal_number: signal.Signals) -> None:
        """Send a signal; a program that has ended gets none."""
        if self._process is not None:
            self._process.send_signal(signal_number)

    def log_tail(self, line_count: int = LOG_TAIL_LINES) -> str:
        """Return the last lines of its log."""
        if not self.log_path.exists():
            return ""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-line_count:])


class Service(ChildProcess, ABC):
    """A server on this machine: started means that it answers.

    Start it again after `stop` or `kill`: same address, same data.
    """

    #: How long a start may take; a broker that recovers its log on a busy machine is the slow case.
    start_timeout_s: float = 60.0

    #: Between two looks at a server that starts.
    poll_interval_s: float = 0.05

    def start(self) -> None:
        """Start the server and wait until it answers; do nothing but wait if it runs already.

        Raises:
            ServiceError: If it ends or does not answer in `start_timeout_s`; has the tail of its
            log. It is
                not left running.
        """
        super().start()
        deadline = time.monotonic() + self.start_timeout_s
        while not self.is_ready():
            if not self.is_running:
                raise self._start_error(f"ended with exit status {self.exit_code}")
            if time.monotonic() > deadline:
                self.kill()
                raise self._start_error(f"gave no answer in {self.start_timeout_s:g} s")
            time.sleep(self.poll_interval_s)

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the server answers a real request; returns within a second or so."""

    def _start_error(self, what: str) -> ServiceError:
        tail = self.log_tail() or "(it wrote nothing)"
        return ServiceError(f"{self.name} {what} when started. End of {self.log_path}:\n{tail}")


@contextlib.contextmanager
def orderly_termination() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt inside the block.

    So `with` and `finally` clean up as they do after Ctrl-C. Only the main thread may
    receive signals; in any other this does nothing.
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
