"""The accident of act 3: a second worker joins half-way, then the first is killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from livestep.deploy.demo.screen import Screen
from livestep.deploy.local.child_process import ServiceError
from livestep.deploy.local.worker_process import START_TIMEOUT_S, WorkerProcess

#: Shares of the events: published when the second worker is started; published when publishing
#: waits until it has its partitions; and published while both predict.
SECOND_WORKER_AT, HOLD_AT, TOGETHER = 0.5, 0.75, 0.1


class Commits:
    """What the group has committed: one offset for each event that has its prediction.

    Attributes:
        offsets: By partition.
        longest_gap_s: The longest time that a partition of the killed worker had no prediction.

    Example:
        >>> commits = Commits()
        >>> commits.note(1.0, {0: 10, 1: 10})
        >>> commits.kill(2.0, [0])
        >>> commits.note(3.0, {0: 10, 1: 20})
        >>> commits.note(8.5, {0: 15, 1: 30})
        >>> commits.event_count, commits.longest_gap_s
        (45, 6.5)
    """

    def __init__(self) -> None:
        self.offsets: dict[int, int] = {}
        self.longest_gap_s = 0.0
        self._moved_s: dict[int, float] = {}
        self._killed_s: dict[int, float] = {}

    @property
    def event_count(self) -> int:
        """How many events have their prediction."""
        return sum(self.offsets.values())

    def note(self, now_s: float, offsets: Mapping[int, int]) -> None:
        """Note what is committed, by partition."""
        for partition, offset in offsets.items():
            if offset == self.offsets.get(partition):
                continue
            if partition in self._killed_s:
                # A partition that was idle before the kill counts from the kill on only.
                since_s = max(self._moved_s.get(partition, 0.0), self._killed_s[partition])
                self.longest_gap_s = max(self.longest_gap_s, now_s - since_s)
            self.offsets[partition] = offset
            self._moved_s[partition] = now_s

    def kill(self, now_s: float, partitions: Sequence[int]) -> None:
        """Note that the worker of these partitions was killed."""
        self._killed_s = dict.fromkeys(partitions, now_s)


class Accident:
    """Starts the second worker and kills the first one when enough events are published.

    Attributes:
        alone_s: How long the first worker, which has all partitions at first, was alone.
        alone_count: Events that it had predicted by then.
    """

    def __init__(
        self,
        screen: Screen,
        commits: Commits,
        first: WorkerProcess,
        start_second: Callable[[], WorkerProcess],
    ) -> None:
        self.alone_s, self.alone_count = 0.0, 0
        self._commits, self._alive, self._share = commits, [first], 0.0
        self._steps = self._run(screen, start_second)

    def look(self, share: float) -> bool:
        """Do what is due when a share of the events, from 0 to 1, is published.

        Returns:
            may_publish: False while publishing should wait for the second worker.

        Raises:
            ServiceError: If a worker has ended unexpectedly, or the second one gets no partitions.
        """
        for worker in self._alive:
            worker.check()
        self._share = share
        return next(self._steps, True)

    def _run(self, screen: Screen, start_second: Callable[[], WorkerProcess]) -> Iterator[bool]:
        (first,) = self._alive
        all_partitions, began_s = first.partitions, time.monotonic()
        while self._share < SECOND_WORKER_AT:
            yield True
        self.alone_s = time.monotonic() - began_s
        self.alone_count = self._commits.event_count
        second = start_second()
        self._alive.append(second)
        screen.say(f"{second.name} (process {second.pid}) is starting")
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not (joined := second.partitions):
            if time.monotonic() > deadline_s:
                raise ServiceError(f"{second.name} has no partitions after {START_TIMEOUT_S:g} s")
            yield self._share < HOLD_AT
        screen.say(f"{second.name} has partitions {listed(joined)}: both predict")
        before, kill_at = dict(self._commits.offsets), self._share + TOGETHER
        while self._share < kill_at:
            yield True
        lost, offsets = first.partitions, self._commits.offsets
        shared = sum(offsets.get(place, 0) - before.get(place, 0) for place in second.partitions)
        self._commits.kill(time.monotonic(), lost)
        first.kill()
        self._alive.remove(first)
        screen.say(
            f"kill -9 {first.pid}: {first.name} is gone, with partitions {listed(lost)} "
            f"({second.name} has predicted {shared:,} events so far)",
            style="bold red",
        )
        while second.partitions != all_partitions:
            yield True
        screen.say(f"{second.name} has partitions {listed(all_partitions)}")


def listed(partitions: Sequence[int]) -> str:
    """Return partitions as text: 0, 2."""
    return ", ".join(map(str, partitions))
