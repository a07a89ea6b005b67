"""A steady load, in a process of its own: events of random keys until SIGTERM, none of them lost.

    python -m tests.chaos.load BOOTSTRAP_SERVERS TOPIC EVENTS_PER_S KEYS WIDTH SEED

Its last line is a JSON object: how many events were published, acknowledged and failed.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from livestep.deploy.local.child_process import ChildProcess

#: Between two bursts.
PACE_S = 0.01

#: Distinct events; keys are drawn freely, so no key sees the same sequence as another.
EVENTS = 1 << 16

#: How long the end may take: a broker may be on its way back.
FLUSH_TIMEOUT_S = 120.0


class Load(ChildProcess):
    """The load as a process.

    Args:
        bootstrap_servers: host:port[,host:port...].
        topic: Where to.
        directory: For its log.
        events_per_s: The rate; what a broker that was away has missed follows.
        keys: How many.
        width: Features of an event.
        seed: Of keys and features.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        directory: Path,
        *,
        events_per_s: float,
        keys: int,
        width: int,
        seed: int,
    ) -> None:
        numbers = [events_per_s, keys, width, seed]
        root = str(Path(__file__).resolve().parents[2])
        super().__init__(
            "load",
            [sys.executable, "-m", "tests.chaos.load", bootstrap_servers, topic]
            + [str(number) for number in numbers],
            directory / "load.log",
            {"PYTHONPATH": root},
        )

    def finish(self) -> int:
        """Let it end, and return how many events the broker has acknowledged.

        Raises:
            RuntimeError: If it failed, or an event did.
        """
        self.stop(FLUSH_TIMEOUT_S + 10)
        if self.exit_code != 0:
            raise RuntimeError(f"the load ended with {self.exit_code}: {self.log_tail()}")
        counts = json.loads(self.log_tail(1))
        if counts["published"] != counts["acknowledged"]:
            raise RuntimeError(f"the load could not publish all its events: {counts}")
        return int(counts["acknowledged"])


def main(
    bootstrap_servers: str, topic: str, events_per_s: str, keys: str, width: str, seed: str
) -> None:
    """Publish until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    rng = np.random.default_rng(int(seed))
    vectors = rng.standard_normal((EVENTS, int(width))).astype("<f4")
    values = [vector.tobytes() for vector in vectors]
    names = [f"key-{number}".encode() for number in range(int(keys))]
    counts = {"published": 0, "acknowledged": 0, "failed": 0}

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        counts["acknowledged" if error is None else "failed"] += 1

    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "linger.ms": 10,
            "queue.buffering.max.messages": 2_000_000,
            # Until it is there: a broker that is away for long is what this is about.
            "message.timeout.ms": 0,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        },
        logger=logging.getLogger("tests.chaos.rdkafka"),
    )
    begin_s = time.monotonic()
    while not stop.wait(PACE_S):
        due = int((time.monotonic() - begin_s) * float(events_per_s)) - counts["published"]
        for key, value in rng.integers([len(names), EVENTS], size=(due, 2)).tolist():
            producer.produce(topic, values[value], names[key], on_delivery=on_delivery)
        counts["published"] += due
        producer.poll(0)
    producer.flush(FLUSH_TIMEOUT_S)
    producer.close()
    print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
