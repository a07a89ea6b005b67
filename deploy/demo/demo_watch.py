"""Watching from outside how far the predictions are: by the offsets that the group has committed.

Prediction and offset are committed in one transaction, so the one counts the other. Asking for
four numbers costs nothing beside reading every prediction, which is left to the audit.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kafka import KafkaAdminClient

from livestep.deploy.local.threads import in_background
from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.connection import broker_errors, connect

#: Between two questions; what is measured is no finer.
WATCH_INTERVAL_S = 0.05


class GapMeter:
    """Measures how long partitions stood still after their worker was killed.

    Example:
        >>> meter = GapMeter()
        >>> meter.note(1.0, {0: 10, 1: 10})
        >>> meter.kill(2.0, [0])
        >>> meter.note(3.0, {0: 10, 1: 20})
        >>> meter.note(8.5, {0: 15, 1: 30})
        >>> meter.longest_s
        6.5
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._offsets: dict[int, int] = {}
        self._moved_s: dict[int, float] = {}
        self._killed_s: dict[int, float] = {}

    def note(self, now_s: float, offsets: Mapping[int, int]) -> None:
        """Note what is committed, by partition."""
        for partition, offset in offsets.items():
            if offset == self._offsets.get(partition):
                continue
            if partition in self._killed_s:
                # What was idle when the worker was killed stood still from then on only.
                since_s = max(self._moved_s.get(partition, 0.0), self._killed_s[partition])
                self.longest_s = max(self.longest_s, now_s - since_s)
            self._offsets[partition] = offset
            self._moved_s[partition] = now_s

    def kill(self, now_s: float, partitions: Sequence[int]) -> None:
        """Note that the worker of these partitions is gone."""
        self._killed_s = dict.fromkeys(partitions, now_s)


class CommitWatch:
    """What a group has committed, always up to date.

    Args:
        bootstrap_servers: host:port[,host:port...].
        group: Consumer group that reads one topic, whose offsets have no gaps.
    """

    def __init__(self, bootstrap_servers: str, group: str) -> None:
        self._group = group
        self._gap = GapMeter()
        self._failure: BrokerError | None = None
        self._admin = connect(KafkaAdminClient, bootstrap_servers)
        self._lock = threading.Lock()
        self._offsets: dict[int, int] = {}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Watch while the block runs."""
        with contextlib.closing(self._admin), in_background(self._run, "commit-watch"):
            yield

    def offsets(self) -> dict[int, int]:
        """Return the committed offset of each partition that has one.

        Raises:
            BrokerError: If the broker has refused.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failure
            return dict(self._offsets)

    @property
    def event_count(self) -> int:
        """How many events have their prediction."""
        return sum(self.offsets().values())

    def killed(self, partitions: Sequence[int]) -> None:
        """Measure from now on how long these partitions stand still."""
        with self._lock:
            self._gap.kill(time.monotonic(), partitions)

    @property
    def gap_s(self) -> float:
        """Longest time that one of the killed worker's partitions had no prediction."""
        with self._lock:
            return self._gap.longest_s

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(WATCH_INTERVAL_S):
            try:
                with broker_errors(f"asking for the offsets of group {self._group!r}"):
                    found: Any = self._admin.list_group_offsets(self._group)[self._group]
            except BrokerError as error:
                with self._lock:
                    self._failure = error
                return
            with self._lock:
                self._offsets = {place.partition: at.offset for place, at in found.items()}
                self._gap.note(time.monotonic(), self._offsets)
