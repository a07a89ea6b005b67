"""The accident of the demo: a second worker joins half-way, then the first is killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import Enum, auto

from livestep.deploy.demo.demo_watch import CommitWatch
from livestep.deploy.demo.screen import Screen
from livestep.deploy.local.child_process import ServiceError
from livestep.deploy.local.worker_process import START_TIMEOUT_S, WorkerProcess

#: Shares of the events: published when the second worker is started; published when publishing
#: holds until that has its partitions, if it hasn't yet; and published while both predict.
SECOND_WORKER_AT, HOLD_AT, TOGETHER = 0.5, 0.75, 0.1


class Phase(Enum):
    """What has happened so far."""

    ALONE = auto()
    SECOND_STARTS = auto()
    BOTH_PREDICT = auto()
    FIRST_KILLED = auto()
    TAKEN_OVER = auto()


class Takeover:
    """Does to the workers what is due, each time it is told how much is published.

    Args:
        screen: Where it says so.
        watch: What is committed.
        first: Runs and has all partitions; will be killed.
        start_second: Starts the other.

    Attributes:
        phase: What has happened so far.
        alone_s: From the making of this to the start of the second.
        alone_count: Events that were predicted by then, since the beginning of the topic.
    """

    def __init__(
        self,
        screen: Screen,
        watch: CommitWatch,
        first: WorkerProcess,
        start_second: Callable[[], WorkerProcess],
    ) -> None:
        self.phase = Phase.ALONE
        self.alone_s, self.alone_count = 0.0, 0
        self._made_s = time.monotonic()
        self._screen = screen
        self._watch = watch
        self._workers = [first]
        self._start_second = start_second
        self._all_partitions = first.partitions
        self._kill_at = 1.0
        self._deadline_s = 0.0
        self._joined: dict[int, int] = {}

    def look(self, share: float) -> bool:
        """Do what is due.

        Args:
            share: Of the events that are published, from 0 to 1.

        Returns:
            may_go_on: False if publishing should hold until the second worker is there.

        Raises:
            ServiceError: If a worker has ended by itself, or the second gets no partitions.
        """
        for worker in self._workers:
            worker.check()
        if self.phase is Phase.ALONE and share >= SECOND_WORKER_AT:
            self._start()
        elif self.phase is Phase.SECOND_STARTS:
            self._see_whether_it_joined(share)
        elif self.phase is Phase.BOTH_PREDICT and share >= self._kill_at:
            self._kill_first()
        elif self.phase is Phase.FIRST_KILLED:
            self._see_whether_it_took_over()
        return self.phase is not Phase.SECOND_STARTS or share < HOLD_AT

    def _start(self) -> None:
        self.alone_s = time.monotonic() - self._made_s
        self.alone_count = self._watch.event_count
        second = self._start_second()
        self._workers.append(second)
        self._deadline_s = time.monotonic() + START_TIMEOUT_S
        self._screen.say(f"{second.name} (process {second.pid}) is starting")
        self.phase = Phase.SECOND_STARTS

    def _see_whether_it_joined(self, share: float) -> None:
        second = self._workers[-1]
        if partitions := second.partitions:
            self._joined = self._watch.offsets()
            self._kill_at = share + TOGETHER
            self._screen.say(f"{second.name} has partitions {listed(partitions)}: both predict")
            self.phase = Phase.BOTH_PREDICT
        elif time.monotonic() > self._deadline_s:
            raise ServiceError(f"{second.name} has no partitions after {START_TIMEOUT_S:g} s")

    def _kill_first(self) -> None:
        first, second = self._workers
        partitions, offsets = first.partitions, self._watch.offsets()
        self._watch.killed(partitions)
        first.kill()
        self._workers.remove(first)
        shared = sum(offsets[place] - self._joined.get(place, 0) for place in second.partitions)
        self._screen.say(
            f"kill -9 {first.pid}: {first.name} is gone, with partitions {listed(partitions)} "
            f"({second.name} has predicted {shared:,} events until now)",
            style="bold red",
        )
        self.phase = Phase.FIRST_KILLED

    def _see_whether_it_took_over(self) -> None:
        second = self._workers[-1]
        if second.partitions == self._all_partitions:
            self._screen.say(f"{second.name} has partitions {listed(self._all_partitions)}")
            self.phase = Phase.TAKEN_OVER


def listed(partitions: Sequence[int]) -> str:
    """Write partitions down.

    Example:
        >>> listed([0, 2])
        '0, 2'
    """
    return ", ".join(map(str, partitions))
