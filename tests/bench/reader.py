"""The independent reader of a contestant's outputs, and the rate that it sees."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from confluent_kafka import KafkaException

from tests.bench.bench_topics import PARTITIONS
from tests.support.rig.kafka_clients import make_reader

#: Most records that one look takes.
LOOK_RECORDS_MAX = 20_000

#: After the last output, how long to look for one too many.
EXTRA_WAIT_S = 1.0

#: Shares of the outputs between which the start and the end of the rate's window are looked for.
WINDOW_START = (0.05, 0.25)
WINDOW_END = (0.75, 0.95)


@dataclass
class Outputs:
    """What has arrived.

    Attributes:
        keys: Key of each output, in the order of arrival.
        values: Value of each.
        arrivals: (time.time() in s, outputs so far) after each look that found some.
    """

    keys: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    arrivals: list[tuple[float, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)


class OutputReader:
    """Reads an output topic from its start, `read_committed`, without a group.

    Args:
        bootstrap_servers: The broker.
        topic: Exists.
        pause_s: Sleep between two looks: the resolution of arrival times, and what keeps the
            reader from taking the contestant's processor.
    """

    def __init__(self, bootstrap_servers: str, topic: str, pause_s: float) -> None:
        self._pause_s = pause_s
        self._consumer = make_reader(
            bootstrap_servers,
            topic,
            PARTITIONS,
            **{"fetch.queue.backoff.ms": 5, "queued.max.messages.kbytes": 262_144},
        )

    def __enter__(self) -> OutputReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def look(self, outputs: Outputs) -> None:
        """Take what has arrived, waiting for a first record for a tenth of a second at most.

        Raises:
            KafkaException: If the broker reports an error.
        """
        first = self._consumer.poll(0.1)
        if first is None:
            return
        records = [first, *self._consumer.consume(LOOK_RECORDS_MAX, 0)]
        now = time.time()
        for record in records:
            if record.error():
                raise KafkaException(record.error())
            outputs.keys.append(record.key() or b"")
            outputs.values.append(record.value() or b"")
        outputs.arrivals.append((now, len(outputs)))
        time.sleep(self._pause_s)

    def read(
        self,
        expected: int | None,
        timeout_s: float,
        is_alive: Callable[[], bool],
        on_look: Callable[[int], None],
    ) -> Outputs:
        """Read until all expected outputs are there and a moment has brought no more.

        Args:
            expected: Number of outputs; None if they are all that the contestant writes before it
                ends by itself.
            timeout_s: Give up after this time, with what there is.
            is_alive: Whether the contestant can still write; if not, what there is is all.
            on_look: Called with the number of outputs so far.
        """
        outputs = Outputs()
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and (expected is None or len(outputs) < expected):
            was_alive = is_alive()
            before = len(outputs)
            self.look(outputs)
            on_look(len(outputs))
            if not was_alive and len(outputs) == before:
                break
        if expected is None:
            return outputs
        deadline = time.monotonic() + EXTRA_WAIT_S
        while time.monotonic() < deadline:
            self.look(outputs)
        return outputs


def steady_rate(arrivals: Sequence[tuple[float, int]]) -> float:
    """Compute events per second from arrivals, fair to any size of lumps.

    The window starts and ends at the longest pauses in its two ranges: just after a lump both
    times, so that every lump that is counted took its time inside the window.

    Example:
        A system that shows 100 outputs at the end of each second.

        >>> steady_rate([(float(second), 100 * second) for second in range(1, 21)])
        100.0
    """
    if len(arrivals) < 3:
        return 0.0
    total = arrivals[-1][1]
    start, end = (
        _after_longest_pause(arrivals, total, window) for window in (WINDOW_START, WINDOW_END)
    )
    if end[0] <= start[0]:
        start, end = arrivals[0], arrivals[-1]
    return (end[1] - start[1]) / (end[0] - start[0])


def _after_longest_pause(
    arrivals: Sequence[tuple[float, int]], total: int, window: tuple[float, float]
) -> tuple[float, int]:
    """Find the arrival in a window of shares that the longest pause follows."""
    candidates = [
        (later - now, (now, count))
        for (now, count), (later, _) in pairwise(arrivals)
        if window[0] * total <= count <= window[1] * total
    ]
    return max(candidates)[1] if candidates else arrivals[0 if window is WINDOW_START else -1]
