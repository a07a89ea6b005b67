"""Workers in processes of their own: `livestep worker`, started, killed and stopped by us."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from livestep.deploy.local.child_process import ChildProcess, ServiceError

#: Where `pipeline` is found, also by a Python that has it not installed.
ROOT = Path(__file__).resolve().parents[2]

#: Between two looks at what a worker does.
POLL_INTERVAL_S = 0.05

#: How long a worker may take to have partitions: most of it is the import of torch.
START_TIMEOUT_S = 60.0

# What the engine logs, see `Engine.assigned` and `Engine.revoked`.
_ASSIGNMENT = re.compile(r" (assigned|revoked|lost) partitions \[([\d, ]*)\]$", re.MULTILINE)


class HasEnvironment(Protocol):
    """Services that say in variables where they are, such as `LocalServices`."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Addresses, for the environment of a worker."""


class WorkerProcess(ChildProcess):
    """One worker.

    Args:
        name: For messages, and for its `--worker-id`: the name of its log, too.
        services: Where Kafka and Redis are.
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
        """Partitions that it says it has; a worker that was killed says nothing any more."""
        if not self.log_path.exists():
            return []
        return assigned_partitions(self.log_path.read_text(encoding="utf-8", errors="replace"))

    def check(self) -> None:
        """Make sure that it runs.

        Raises:
            ServiceError: If it has ended; has the last line of its log.
        """
        if not self.is_running:
            last = self.log_tail(1) or "it wrote nothing"
            raise ServiceError(f"{self.name} ended with exit status {self.exit_code}: {last}")

    def wait_for_partitions(self) -> list[int]:
        """Wait until the group has given it partitions.

        Raises:
            ServiceError: If it ends, or gets none in `START_TIMEOUT_S`.
        """
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not (partitions := self.partitions):
            self.check()
            if time.monotonic() > deadline_s:
                raise ServiceError(f"{self.name} has no partitions after {START_TIMEOUT_S:g} s")
            time.sleep(POLL_INTERVAL_S)
        return partitions


def assigned_partitions(log: str) -> list[int]:
    r"""Read from a worker's log which partitions it has.

    Args:
        log: The whole of it.

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
