"""The reader who watches predictions come: when, on which partition, how long there was none."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from livestep.deploy.local.threads import in_background
from tests.support.rig.kafka_clients import QUIET, make_reader

#: What is shorter is how transactions come, not a loss of service.
SILENCE_S_MIN = 0.5

#: A fault is felt some time later: what was committed is still read, what is in memory still used.
REACH_S = 1.5

#: Messages of one read, and how long it waits for them.
_READ_MAX, _READ_TIMEOUT_S = 10_000, 0.05


class Silence(NamedTuple):
    """A time without a prediction on one partition."""

    partition: int
    begin_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        """How long it was."""
        return self.end_s - self.begin_s


class Recovery(NamedTuple):
    """What a fault did to one partition; zeros if nothing was felt.

    Attributes:
        silence_s: Without a prediction, from the fault on.
        after_end_s: Of which after the fault was healed.
    """

    silence_s: float
    after_end_s: float


@dataclass
class Arrivals:
    """When predictions came, partition by partition.

    Example:
        >>> arrivals = Arrivals()
        >>> for now_s in (1.0, 1.1, 4.0, 4.1):
        ...     arrivals.note(now_s, {0: 10})
        >>> arrivals.recoveries([0], begin_s=1.2, end_s=2.0)
        [Recovery(silence_s=2.8, after_end_s=2.0)]
    """

    count: int = 0
    silences: list[Silence] = field(default_factory=list)
    _last_s: dict[int, float] = field(default_factory=dict)

    @property
    def partitions(self) -> list[int]:
        """Those that have had predictions."""
        return sorted(self._last_s)

    @property
    def longest_silence_s(self) -> float:
        """Longest time without a prediction on a partition."""
        return max((silence.length_s for silence in self.silences), default=0.0)

    def note(self, now_s: float, counts: dict[int, int]) -> None:
        """Note how many predictions came now, by partition."""
        for partition, count in counts.items():
            last_s = self._last_s.get(partition, now_s)
            if now_s - last_s >= SILENCE_S_MIN:
                self.silences.append(Silence(partition, last_s, now_s))
            self._last_s[partition] = now_s
            self.count += count

    def finish(self, now_s: float) -> None:
        """Note the end of the run: what is silent now has been so until now."""
        self.note(now_s, dict.fromkeys(self._last_s, 0))

    def recoveries(self, partitions: Iterable[int], begin_s: float, end_s: float) -> list[Recovery]:
        """Measure, for each partition, the longest silence that a fault has touched.

        Args:
            partitions: Those that the fault could hit.
            begin_s: When it began.
            end_s: When it was healed.
        """
        found = []
        for partition in partitions:
            touched = [
                Recovery(
                    round(silence.end_s - max(silence.begin_s, begin_s), 3),
                    round(max(0.0, silence.end_s - max(silence.begin_s, end_s)), 3),
                )
                for silence in self.silences
                if silence.partition == partition
                and silence.begin_s <= end_s + REACH_S
                and silence.end_s > begin_s
            ]
            found.append(max(touched, default=Recovery(0.0, 0.0)))
        return found


class Probe:
    """Reads a topic of predictions live, committed ones only, in a thread of its own.

    Args:
        bootstrap_servers: host:port[,host:port...].
        topic: Of predictions.
        partition_count: Of that topic.
    """

    def __init__(self, bootstrap_servers: str, topic: str, partition_count: int) -> None:
        self._consumer = make_reader(bootstrap_servers, topic, partition_count, **QUIET)
        self._arrivals = Arrivals()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Read while the block runs."""
        with contextlib.closing(self._consumer), in_background(self._run, "probe"):
            yield

    @property
    def count(self) -> int:
        """Predictions so far."""
        with self._lock:
            return self._arrivals.count

    @property
    def partitions(self) -> list[int]:
        """Partitions that have had predictions."""
        with self._lock:
            return self._arrivals.partitions

    def arrivals(self) -> Arrivals:
        """Close the books: what was seen until now."""
        with self._lock:
            self._arrivals.finish(time.monotonic())
            done, self._arrivals = self._arrivals, Arrivals()
            return done

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            messages = self._consumer.consume(_READ_MAX, _READ_TIMEOUT_S)
            counts: Counter[int] = Counter()
            for message in messages:
                partition = message.partition()
                # An error reports an unavailable broker: the client reconnects itself.
                if message.error() is None and partition is not None:
                    counts[partition] += 1
            if counts:
                with self._lock:
                    self._arrivals.note(time.monotonic(), dict(counts))
