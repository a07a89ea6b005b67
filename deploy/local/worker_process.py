"""`livestep worker` in a child process, to be started, stopped and killed."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from livestep.deploy.local.child_process import ChildProcess, ServiceError

#: Where a Python without an installed `livestep` finds it.
ROOT = Path(__file__).resolve().parents[2]

#: Between two checks of a worker.
POLL_INTERVAL_S = 0.05

#: How long a worker may take until it has partitions; importing torch takes most of it.
START_TIMEOUT_S = 60.0

# See what `Engine.assigned` and `Engine.revoked` log.
_ASSIGNMENT = re.compile(r" (assigned|revoked|lost) partitions \[([\d, ]*)\]$", re.MULTILINE)


class HasEnvironment(Protocol):
    """Services whose addresses are variables, such as `LocalServices`."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Addresses for a worker's environment."""


class WorkerProcess(ChildProcess):
    """A worker.

    Args:
        name: For messages; its `--worker-id` and its log are named after it.
        services: Kafka and Redis.
        directory: An existing folder for its log.
        flags: Of `livestep worker`, such as ["--model", "cook"].
    """

    def __init__(
        self, name: str, services: HasEnvironment, directory: Path, flags: Sequence[str]
    ) -> None:
        worker_id = name.replace(" ", "-")
        command = [
            sys.executable,
            "-m",
            "livestep.pipeline.cli",
            "worker",
            "--worker-id",
            worker_id,
        ]
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        super().__init__(
            name=name,
            command=[*command, *flags],
            log_path=directory / f"{worker_id}.log",
            environment={**services.environment, "PYTHONPATH": os.pathsep.join(paths)},
        )

    @property
    def partitions(self) -> list[int]:
        """Its partitions according to its log, which ends when the worker is killed."""
        if not self.log_path.exists():
            return []
        return assigned_partitions(self.log_path.read_text(encoding="utf-8", errors="replace"))

    def check(self) -> None:
        """Check that it runs.

        Raises:
            ServiceError: If it has ended; has the last line of its log.
        """
        if not self.is_running:
            last = self.log_tail(1) or "its log is empty"
            raise ServiceError(f"{self.name} ended with exit status {self.exit_code}: {last}")

    def wait_for_partitions(self) -> list[int]:
        """Wait until partitions are assigned to it.

        Raises:
            ServiceError: If it ends, or gets none within `START_TIMEOUT_S`.
        """
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not (partitions := self.partitions):
            self.check()
            if time.monotonic() > deadline_s:
                raise ServiceError(f"{self.name} has no partitions after {START_TIMEOUT_S:g} s")
            time.sleep(POLL_INTERVAL_S)
        return partitions


def assigned_partitions(log: str) -> list[int]:
    r"""Return the partitions that a worker has according to its log.

    Args:
        log: The whole log.

    Example:
        >>> assigned_partitions(
        ...     "... livestep.engine: assigned partitions [0, 1, 2]\n"
        ...     "... livestep.engine: revoked partitions [1]\n"
        ... )
        [0, 2]
    """
    partitions: set[int] = set()
    for verb, listed in _ASSIGNMENT.findall(log):
        named = {int(number) for number in listed.split(",") if number.strip()}
        partitions = partitions | named if verb == "assigned" else partitions - named
    return sorted(partitions)
