"""A steady load, in a process of its own: events of random keys until SIGTERM, none of them lost.

    python -m tests.chaos.load BOOTSTRAP_SERVERS TOPIC EVENTS_PER_S KEYS WIDTH SEED

Its last line is the number of events, all of them acknowledged; it fails if one was not.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from livestep.deploy.local.child_process import ChildProcess
from tests.support.rig.kafka_clients import FLUSH_TIMEOUT_S, QUIET, RandomFeed


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
            RuntimeError: If it failed, or an event did; has the end of its log.
        """
        self.stop(FLUSH_TIMEOUT_S + 10)
        if self.exit_code != 0:
            raise RuntimeError(f"the load ended with {self.exit_code}: {self.log_tail()}")
        return int(self.log_tail(1))


def main(
    bootstrap_servers: str, topic: str, events_per_s: str, keys: str, width: str, seed: str
) -> None:
    """Publish until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    # Time-out 0: until the event is in the log; a broker that is away for long is the point here.
    feed = RandomFeed(
        bootstrap_servers, topic, int(width), int(seed), **{**QUIET, "message.timeout.ms": 0}
    )
    feed.publish_steadily(float(events_per_s), int(keys), stop)
    feed.close()
    print(feed.published, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
