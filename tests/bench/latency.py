"""One run at a steady rate: how long an event takes from the producer's call to the reader's hands.

Outputs are matched to events by key and order, so that systems which drop the event's timestamp
are measured like the others, and to better than Kafka's milliseconds.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer

from livestep.deploy.local.child_process import ChildProcess
from tests.bench.bench import Bench, Contest, ContestantError
from tests.bench.bench_topics import PARTITIONS
from tests.bench.contestants import REPOSITORY, Contestant
from tests.bench.dataset import Codec, EventLog, values_of
from tests.bench.reader import OutputReader, Outputs

#: The rate of the fast systems; slower ones get a quarter of what they can do.
EVENTS_PER_S_MAX = 20_000

#: This share of the events comes first and is not counted: just-in-time compilers, caches, groups.
WARM_UP_SHARE = 0.5

#: How long a contestant may take until it answers, and for the last outputs.
READY_TIMEOUT_S = 60.0

#: A median above this is a queue that a slow start has left (a cold virtual machine, say), and
#: says nothing of the system at that rate.
SETTLED_MS_MAX = 1_000.0

REST_TIMEOUT_S = 20.0

#: Resolution of arrival times; without it the reader wakes for every record.
READER_PAUSE_S = 0.001

#: Between two tries to get an answer, one event for each partition.
PING_INTERVAL_S = 1.0
PING = b"ping-"


class NotSettledError(Exception):
    """Raised if a contestant has not caught up with the feed when the counting begins."""


FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Latency:
    """What one run gave.

    Attributes:
        events_per_s: The rate asked for.
        p50_ms: Median.
        p99_ms: 99 of 100 events were faster.
    """

    events_per_s: int
    p50_ms: float
    p99_ms: float


def measure(
    bench: Bench, contestant: Contestant, rate: int, duration_s: float, title: str
) -> Latency:
    """Feed a contestant at a steady rate.

    Raises:
        ContestantError: If it gives no answer, or not all outputs in time.
        NotSettledError: If it has not caught up when the counting begins: no figure is honest.
    """
    log = bench.logs[-1]
    log = log.head(min(int(rate * duration_s), len(log)))
    topic = f"latency-{contestant.row}"
    bench.create_input(topic)
    feed, times_path = make_feed(bench, topic, log, contestant.codec, rate)
    with (
        bench.contest(contestant, topic) as contest,
        OutputReader(
            contest.run.bootstrap_servers, contest.run.output_topic, READER_PAUSE_S
        ) as reader,
        bench.progress.task(title, len(log)) as update,
    ):
        wait_until_ready(bench, contestant, contest, reader)
        feed.start()
        # A collection in the reader would look like a slow contestant.
        gc.disable()
        try:
            outputs = read_fed(reader, len(log), len(log) / rate + REST_TIMEOUT_S, update)
            feed.wait(REST_TIMEOUT_S)
        finally:
            gc.enable()
            feed.kill()
    if feed.exit_code:
        raise ContestantError(f"{contestant.row}: {feed.log_tail()}")
    latencies_s = match(log, outputs, np.load(times_path))
    p50, p99 = np.percentile(latencies_s[int(WARM_UP_SHARE * len(log)) :], [50, 99]) * 1e3
    if p50 > SETTLED_MS_MAX:
        raise NotSettledError(f"half of the events waited for more than {p50:,.0f} ms")
    return Latency(rate, round(float(p50), 1), round(float(p99), 1))


def make_feed(
    bench: Bench, topic: str, log: EventLog, codec: Codec, rate: int
) -> tuple[ChildProcess, Path]:
    """Prepare the process that publishes; return it and the file that will have the times."""
    paths = [bench.directory / f"{topic}.{suffix}" for suffix in ("msgpack", "npy", "log")]
    records_path, times_path, log_path = paths
    records_path.write_bytes(msgspec.msgpack.encode(list(log.records(codec))))
    places = [bench.services.bootstrap_servers, topic, str(records_path)]
    command = [sys.executable, "-m", "tests.bench.bench_feed", *places, str(rate), str(times_path)]
    feed = ChildProcess("feed", command, log_path, {"PYTHONPATH": str(REPOSITORY)})
    return feed, times_path


def wait_until_ready(
    bench: Bench, contestant: Contestant, contest: Contest, reader: OutputReader
) -> None:
    """Send events of keys that don't count until every partition has answered."""
    value = values_of(bench.logs[0].utterances.features[:1], contestant.codec)[0]
    producer = Producer({"bootstrap.servers": contest.run.bootstrap_servers})
    outputs = Outputs()
    deadline = time.monotonic() + READY_TIMEOUT_S
    while len(set(outputs.keys)) < PARTITIONS:
        if time.monotonic() > deadline or not contest.child.is_running:
            raise ContestantError(f"{contestant.row} gives no answer:\n{contest.child.log_tail()}")
        for partition in range(PARTITIONS):
            key = b"%s%d" % (PING, partition)
            producer.produce(contest.run.input_topic, value, key, partition)
        producer.flush()
        next_ping = time.monotonic() + PING_INTERVAL_S
        while len(set(outputs.keys)) < PARTITIONS and time.monotonic() < next_ping:
            reader.look(outputs)


def read_fed(
    reader: OutputReader, expected: int, timeout_s: float, on_look: Callable[[int], None]
) -> Outputs:
    """Read until all events of the feed have their outputs.

    Raises:
        ContestantError: If some are missing after the time-out.
    """
    outputs = Outputs()
    deadline = time.monotonic() + timeout_s
    ping_count = 0
    while len(outputs) - ping_count < expected:
        if time.monotonic() > deadline:
            raise ContestantError(f"{len(outputs) - ping_count} of {expected} outputs in time")
        seen = len(outputs)
        reader.look(outputs)
        # Late answers to pings come first.
        ping_count += sum(key.startswith(PING) for key in outputs.keys[seen:])
        on_look(len(outputs) - ping_count)
    return outputs


def match(log: EventLog, outputs: Outputs, sent_at: FloatArray) -> FloatArray:
    """Return the latency of each event in seconds, in the order of sending.

    Example:
        The n-th output of a key belongs to the n-th event of the key.

        >>> from tests.bench.dataset import Utterances
        >>> utterances = Utterances(np.zeros((2, 12), np.float32), np.array([0, 2]))
        >>> index = np.array([0, 1])
        >>> log = EventLog(index, np.array([0, 0]), index, [b"a"], utterances)
        >>> outputs = Outputs([b"a", b"a"], [b"", b""], [(5.0, 1), (7.0, 2)])
        >>> match(log, outputs, np.array([4.0, 4.5])).tolist()
        [1.0, 2.5]
    """
    times, counts = zip(*outputs.arrivals, strict=True)
    arrived_at = np.repeat(times, np.diff(counts, prepend=0))
    events_of: dict[bytes, list[int]] = {}
    for event, key in enumerate(log.keys.tolist()):
        events_of.setdefault(log.key_names[key], []).append(event)
    remaining = {key: iter(events) for key, events in events_of.items()}
    latencies_s = np.full(len(log), np.nan)
    for at, key in zip(arrived_at.tolist(), outputs.keys, strict=True):
        index = next(remaining.get(key, iter(())), None)
        if index is not None:
            latencies_s[index] = at - sent_at[index]
    return latencies_s
