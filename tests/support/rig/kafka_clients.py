"""Topics, producers and readers of runs that measure."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from livestep.deploy.local.threads import in_background
from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.topic_setup import create_topics

#: Of librdkafka: errors. It also warns of what a broker that has just started makes it retry.
LOG_LEVEL = 3

#: For runs in which brokers fail all the time: not worth a log line each.
QUIET: Mapping[str, Any] = {"log_level": 0, "reconnect.backoff.max.ms": 500}

#: How long the last records may take.
FLUSH_TIMEOUT_S = 120.0

#: Distinct values of random events.
VALUES = 1 << 16

#: Between two bursts of a steady load.
PACE_S = 0.01


def make_topics(bootstrap_servers: str, names: Sequence[str], partition_count: int) -> None:
    """Create topics.

    Raises:
        BrokerError: If one can't be created, or has another number of partitions.
    """
    for outcome in create_topics(bootstrap_servers, names, partition_count):
        if outcome.problem:
            raise BrokerError(f"topic {outcome.name}: {outcome.problem}")


def make_producer(bootstrap_servers: str, **options: Any) -> Producer:
    """Make an idempotent producer: no event is lost or repeated.

    Args:
        bootstrap_servers: host:port[,host:port...].
        options: Of librdkafka, dots as they are: `**{"linger.ms": 1}`.
    """
    settings = {
        "bootstrap.servers": bootstrap_servers,
        # Java's partitioner, so that a key is where Java clients would put it.
        "partitioner": "murmur2_random",
        "enable.idempotence": True,
        "linger.ms": 10,
        "batch.size": 1_000_000,
        "queue.buffering.max.messages": 1_000_000,
        "log_level": LOG_LEVEL,
    }
    return Producer({**settings, **options}, logger=logging.getLogger("tests.rdkafka"))


def flush(producer: Producer) -> None:
    """Wait until all events are in the log.

    Raises:
        RuntimeError: If some are not after FLUSH_TIMEOUT_S.
    """
    if left := producer.flush(FLUSH_TIMEOUT_S):
        raise RuntimeError(f"{left:,} events could not be published")


def make_reader(
    bootstrap_servers: str, topic: str, partition_count: int, *, offset: int = 0, **options: Any
) -> Consumer:
    """Make a reader of a topic's committed records, without a group.

    Args:
        bootstrap_servers: host:port[,host:port...].
        topic: Exists.
        partition_count: Of the topic.
        offset: Where to begin in each partition; -1 is its end.
        options: Of librdkafka, dots as they are.
    """
    settings = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": "rig-reader",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 50,
        "log_level": LOG_LEVEL,
    }
    reader = Consumer({**settings, **options}, logger=logging.getLogger("tests.rdkafka"))
    # By hand: no group, no rebalance.
    reader.assign([TopicPartition(topic, p, offset) for p in range(partition_count)])
    return reader


def paced(
    events_per_s: float, pace_s: float = PACE_S, stop: threading.Event | None = None
) -> Iterator[int]:
    """Yield how many events are due, every `pace_s` until `stop` is set.

    What a slow consumer of this iterator has missed is due at the next turn.
    """
    stop = stop or threading.Event()
    begin_s, count = time.monotonic(), 0
    while not stop.wait(pace_s):
        due = int((time.monotonic() - begin_s) * events_per_s) - count
        yield due
        count += due


class RandomFeed:
    """Publishes random vectors (codec float32).

    Args:
        bootstrap_servers: host:port[,host:port...].
        topic: Exists.
        width: Numbers of an event.
        seed: Of keys and values.
        on_publish: Called with the number of events of each burst.
        options: Of librdkafka, see `make_producer`.

    Attributes:
        published: Events so far.
        failed: Of these, events that the broker has refused.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        width: int,
        seed: int = 0,
        on_publish: Callable[[int], None] = lambda count: None,
        **options: Any,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        vectors = self._rng.standard_normal((VALUES, width)).astype("<f4")
        self._values = [vector.tobytes() for vector in vectors]
        self._topic = topic
        self._on_publish = on_publish
        self.published = self.failed = 0
        self._producer = make_producer(
            bootstrap_servers,
            **{"delivery.report.only.error": True, "on_delivery": self._note_failure, **options},
        )

    def publish(self, keys: Iterable[bytes]) -> None:
        """Publish one event for each key; they are on their way when this returns."""
        produce, topic, values = self._producer.produce, self._topic, self._values
        drawn = self._rng.integers(VALUES, size=VALUES).tolist()
        count = 0
        for count, key in enumerate(keys, start=1):
            while True:
                try:
                    produce(topic, values[drawn[count % VALUES]], key)
                    break
                except BufferError:
                    self._producer.poll(0.1)
            if count % 1_000 == 0:
                self._producer.poll(0)
        self._producer.poll(0)
        self.published += count
        self._on_publish(count)

    def random_keys(self, events: int, keys: int) -> list[bytes]:
        """Draw keys."""
        return [b"key-%d" % number for number in self._rng.integers(keys, size=events).tolist()]

    def publish_steadily(self, events_per_s: float, keys: int, stop: threading.Event) -> None:
        """Publish at a rate until `stop` is set."""
        for due in paced(events_per_s, stop=stop):
            self.publish(self.random_keys(due, keys))

    @contextlib.contextmanager
    def steady(self, events_per_s: float, keys: int) -> Iterator[None]:
        """Publish at a rate while the block runs."""

        def run(stop: threading.Event) -> None:
            self.publish_steadily(events_per_s, keys, stop)
            self.flush()

        with in_background(run, "load"):
            yield

    def flush(self) -> None:
        """Wait until all events are in the log.

        Raises:
            RuntimeError: If some are not.
        """
        flush(self._producer)
        if self.failed:
            raise RuntimeError(f"the broker has refused {self.failed:,} events")

    def close(self) -> None:
        """Flush and end."""
        self.flush()
        self._producer.close()

    def _note_failure(self, error: object, message: object) -> None:
        self.failed += 1
