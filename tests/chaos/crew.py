"""The workers, and who starts them again: what systemd or Kubernetes do for users."""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from livestep.deploy.local.threads import in_background
from livestep.deploy.local.worker_process import HasEnvironment, WorkerProcess
from livestep.pipeline.errors import BrokerError, FencedError, StoreError
from livestep.pipeline.exit_codes import ExitCode

_log = logging.getLogger("tests.chaos")

#: How a worker may leave by itself when services are away or its partitions are another's: the
#: supervisor starts it again.
WORTH_RESTARTING = {
    BrokerError.exit_code: "Kafka away",
    StoreError.exit_code: "Redis away",
    FencedError.exit_code: "fenced",
}

#: Before a worker that has ended is started again.
RESTART_DELAY_S = 0.5

#: Between two looks at the workers.
TEND_INTERVAL_S = 0.1

#: How long an orderly end may take: the save queue is written out, and Redis may be away.
LEAVE_TIMEOUT_S = 90.0

#: How a worker ends that was asked to: by itself, also where Redis is away; or, while Python still
#: starts, by the signal.
LEFT = (0, ExitCode.UNSAVED, -signal.SIGTERM)

#: What no log of ours may have in it.
TRACEBACK = "Traceback (most recent call last)"


@dataclass
class Books:
    """What happened to the workers.

    Attributes:
        starts: How many processes there were.
        exits: Documented ends that nobody asked for, by exit code.
        failures: Ends and logs that no worker should have.
    """

    starts: int = 0
    exits: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Member:
    """One worker, and its successors of the same name.

    Args:
        name: The worker's id.
        start: Makes and starts a process for it.
        books: Where ends are noted.
    """

    def __init__(self, name: str, start: Callable[[str], WorkerProcess], books: Books) -> None:
        self.name = name
        self._make = start
        self._books = books
        self._lock = threading.RLock()
        self._process: WorkerProcess | None = None
        self._is_wanted = False
        self._is_killed = False
        self._start_at_s = 0.0

    @property
    def partitions(self) -> list[int]:
        """What it has, as far as it knows; nothing if it doesn't run."""
        with self._lock:
            is_running = self._process is not None and self._process.is_running
            return self._process.partitions if is_running and self._process else []

    @property
    def log_path(self) -> Path | None:
        """Log of the present process."""
        with self._lock:
            return self._process.log_path if self._process else None

    def want(self) -> None:
        """Have it run from now on."""
        with self._lock:
            self._is_wanted = True
            self.tend()

    def tend(self) -> None:
        """Start it if it should run and doesn't; note how it has ended."""
        if not self._lock.acquire(blocking=False):
            return  # somebody waits for its end, and the others need care meanwhile
        with contextlib.ExitStack() as stack:
            stack.callback(self._lock.release)
            if not self._is_wanted or (self._process is not None and self._process.is_running):
                return
            if self._process is not None and not self._start_at_s:
                self._note_end()
                self._start_at_s = time.monotonic() + RESTART_DELAY_S
            if time.monotonic() >= self._start_at_s:
                self._process = self._make(self.name)
                self._books.starts += 1
                _log.info("%s is started: pid %d", self.name, self._process.pid)
                self._is_killed = False
                self._start_at_s = 0.0

    def kill(self) -> bool:
        """End it at once, and say whether it ran at all; its successor comes soon."""
        with self._lock:
            if not self._is_wanted or self._process is None or not self._process.is_running:
                return False
            _log.info("%s (pid %d) is killed", self.name, self._process.pid)
            self._process.kill()
            self._is_killed = True
            return True

    def pause(self) -> None:
        """Freeze it."""
        with self._lock:
            if self._process is not None and self._process.is_running:
                self._process.pause()

    def resume(self) -> None:
        """Let it continue."""
        with self._lock:
            if self._process is not None and self._process.is_running:
                self._process.resume()

    def leave(self) -> None:
        """Ask it to end, wait until it has, and don't start it again."""
        with self._lock:
            self._is_wanted = False
            if self._process is None or self._start_at_s:
                return  # its end is noted already, or it never ran
            if self._process.is_running:
                self._process.stop(LEAVE_TIMEOUT_S)
            if self._process.exit_code in LEFT:
                self._check_log()
            else:
                self._note_end()
            self._process = None

    def abandon(self) -> None:
        """End it at once, permanently."""
        with self._lock:
            self._is_wanted = False
            if self._process is not None:
                self._process.kill()

    def _note_end(self) -> None:
        process = self._process
        assert process is not None
        self._check_log()
        code = process.exit_code
        _log.info("%s (pid %d) ended with %s", self.name, process.pid, code)
        if self._is_killed and code == -signal.SIGKILL:
            return
        if code in WORTH_RESTARTING:
            self._books.exits[code] += 1
            return
        self._books.failures.append(
            f"{self.name} ended with exit status {code} ({process.log_path}): {process.log_tail(3)}"
        )

    def _check_log(self) -> None:
        process = self._process
        assert process is not None
        if TRACEBACK in process.log_path.read_text(encoding="utf-8", errors="replace"):
            self._books.failures.append(f"a stack trace in {process.log_path}")


class Crew:
    """All workers of a run.

    Args:
        services: Where they find Kafka and Redis.
        directory: For their logs, one folder for each process.
        flags: Of `livestep worker`.
        count: Workers that run all the time.
    """

    def __init__(
        self, services: HasEnvironment, directory: Path, flags: Sequence[str], count: int
    ) -> None:
        self._services = services
        self._directory = directory
        self._flags = list(flags)
        self.books = Books()
        self._numbers = itertools.count()
        self.members = [self._member(f"worker-{number}") for number in range(count)]
        self._extra = [self._member(f"extra-{number}") for number in range(count)]
        self._free = list(self._extra)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run the workers while the block runs; what still runs then is killed."""
        for member in self.members:
            member.want()
        try:
            with in_background(self._tend, "supervisor"):
                yield
        finally:
            for member in (*self.members, *self._extra):
                member.abandon()

    def add(self) -> Member:
        """Start one more; give it back by `take_away`."""
        with self._lock:
            member = self._free.pop(0)
        member.want()
        return member

    def take_away(self, member: Member) -> None:
        """Have it leave."""
        member.leave()
        with self._lock:
            self._free.append(member)

    def leave(self) -> None:
        """Have all workers end in order."""
        for member in (*self.members, *self._extra):
            member.leave()

    def _tend(self, stop: threading.Event) -> None:
        while not stop.wait(TEND_INTERVAL_S):
            for member in (*self.members, *self._extra):
                member.tend()

    def _member(self, name: str) -> Member:
        return Member(name, self._start, self.books)

    def _start(self, name: str) -> WorkerProcess:
        # A folder for each process: which partitions it has is read from its log.
        folder = self._directory / name / str(next(self._numbers))
        folder.mkdir(parents=True)
        process = WorkerProcess(name, self._services, folder, self._flags)
        process.start()
        return process
