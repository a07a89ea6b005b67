"""Raw events as fast as they go, or at a rate, to the topic of a running pipeline."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator

import numpy as np
from confluent_kafka import Producer

from livestep.deploy.local.threads import in_background
from tests.services.running import Running

#: Distinct values; which key gets which is drawn.
VALUES = 4_096

#: Between two bursts of a steady load.
PACE_S = 0.01

FLUSH_TIMEOUT_S = 120.0


class Feed:
    """Publishes events of a model with codec float32.

    Args:
        running: Where to.
        seed: Of values.
    """

    def __init__(self, running: Running, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        width = running.model.net.input_size
        table = rng.standard_normal((VALUES, width)).astype("<f4")
        self._values = [row.tobytes() for row in table]
        self._rng = rng
        self._running = running
        self._producer = Producer(
            {
                "bootstrap.servers": running.services.bootstrap_servers,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 10,
                "queue.buffering.max.messages": 500_000,
                "log_level": 3,
            }
        )

    def publish(self, keys: Iterable[bytes]) -> None:
        """Publish one event for each key; they are on their way when this returns."""
        produce, topic, values = self._producer.produce, self._running.input_topic, self._values
        drawn = self._rng.integers(VALUES, size=1 << 16).tolist()
        for count, key in enumerate(keys):
            while True:
                try:
                    produce(topic, values[drawn[count & 0xFFFF]], key)
                    break
                except BufferError:
                    self._producer.poll(0.1)
            self._running.published += 1
            if count % 1_000 == 0:
                self._producer.poll(0)

    def random_keys(self, events: int, keys: int) -> list[bytes]:
        """Draw keys."""
        return [b"key-%d" % number for number in self._rng.integers(keys, size=events).tolist()]

    def flush(self) -> None:
        """Wait until all is in the log."""
        if self._producer.flush(FLUSH_TIMEOUT_S):
            raise RuntimeError("not all events could be published")

    @contextlib.contextmanager
    def steady(self, events_per_s: float, keys: int) -> Iterator[None]:
        """Publish at a rate while the block runs."""

        def run(stop: threading.Event) -> None:
            begin_s, sent = time.monotonic(), 0
            while not stop.is_set():
                due = int((time.monotonic() - begin_s) * events_per_s) - sent
                self.publish(self.random_keys(due, keys))
                sent += due
                self._producer.poll(0)
                time.sleep(PACE_S)
            self.flush()

        with in_background(run, "load"):
            yield

    def close(self) -> None:
        """Flush and end."""
        self.flush()
        self._producer.close()
