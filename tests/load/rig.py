"""What every scenario has: services, a pipeline with raw vectors, a place for logs, progress."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, TopicPartition

from livestep import GRU
from livestep.deploy.local.child_process import ChildProcess
from livestep.deploy.local.jars import DATA_ROOT
from livestep.deploy.local.services import LocalServices, local_services
from tests.bench.progress import Progress
from tests.load.load_feed import Feed
from tests.load.measures import statuses
from tests.services.running import PARTITIONS, Running, make_running

#: Of the net: small, so that it is the engine, Kafka and Redis that are measured.
INPUT_SIZE, HIDDEN_SIZE, OUTPUT_SIZE = 4, 16, 1

#: The unroll of more takes longer than the run.
AUDIT_EVENTS_MAX = 3_000_000

#: Between two looks at something that takes long.
LOOK_S = 0.1

T = TypeVar("T")


class ScenarioError(RuntimeError):
    """Raised if a worker does not do what a scenario needs of it; has the end of its log."""


@dataclass
class Rig:
    """Services for all scenarios of a run, and pipelines on them.

    Attributes:
        services: Kafka and Redis.
        directory: For models and logs; removed at the end.
        progress: Says how far it is.
    """

    services: LocalServices
    directory: Path
    progress: Progress
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @contextlib.contextmanager
    def pipeline(self, name: str, **options: Any) -> Iterator[tuple[Running, Feed]]:
        """Make topics and a model; what still runs of the workers is killed at the end."""
        number = next(self._numbers)
        folder = self.directory / f"{name}-{number}"
        net = GRU(INPUT_SIZE, HIDDEN_SIZE, OUTPUT_SIZE)
        running = make_running(
            self.services, folder, f"{name}-{number}", net=net, codec="float32", **options
        )
        feed = Feed(running)
        try:
            yield running, feed
        finally:
            running.close()
            feed.close()

    def wait(self, look: Callable[[], T], timeout_s: float, what: str, *workers: ChildProcess) -> T:
        """Wait until a look gives something true.

        Raises:
            ScenarioError: If it takes too long, or one of the workers has ended.
        """
        deadline_s = time.monotonic() + timeout_s
        while not (found := look()):
            for worker in workers:
                if not worker.is_running:
                    raise ScenarioError(f"{worker.name} has ended: {worker.log_tail()}")
            if time.monotonic() > deadline_s:
                raise ScenarioError(f"waited {timeout_s:g} s for {what}")
            time.sleep(LOOK_S)
        return found

    def wait_until_done(self, running: Running, what: str, timeout_s: float = 3_600) -> None:
        """Wait until all events are committed, and say how far it is."""
        first = max(running.lag(), 1)
        with self.progress.task(what, first) as update:

            def look() -> bool:
                left = running.lag()
                update(first - left)
                return left == 0

            self.wait(look, timeout_s, what, *(w for w in running.workers if w.is_running))

    def live_rate(self, worker: ChildProcess, first_line: int = 0) -> float:
        """Give the median rate of the status lines in which a backlog was worked on."""
        lines = statuses(worker)[first_line:]
        rates = sorted(s.events_per_s for s in lines if s.lag and s.events_per_s)
        return float(rates[len(rates) // 2]) if rates else 0.0

    def audit(self, running: Running) -> dict[str, int]:
        """Compare all with the unroll, or only count them if there are too many for that."""
        if running.published > AUDIT_EVENTS_MAX:
            self.progress.say("counting all predictions")
            count = count_records(running)
            if count != running.published:
                self.progress.fail(f"{count:,} predictions of {running.published:,} events")
            return {"events": running.published, "predictions_counted": count}
        self.progress.say("comparing all predictions with the unroll")
        report = running.audit()
        if not report.is_clean or report.events != running.published:
            self.progress.fail(f"not the truth: {report}")
        return {"events": report.events, "predictions": report.predictions}


def count_records(running: Running) -> int:
    """Count the committed records of the output topic, from its first to its end."""
    reader = Consumer(
        {
            "bootstrap.servers": running.services.bootstrap_servers,
            "group.id": "load-counter",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    count, ended = 0, set()
    try:
        reader.assign([TopicPartition(running.output_topic, p, 0) for p in range(PARTITIONS)])
        while len(ended) < PARTITIONS:
            for message in reader.consume(10_000, 1.0):
                if (error := message.error()) is None:
                    count += 1
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                    ended.add(message.partition())
                else:
                    raise ScenarioError(f"counting: {error}")
    finally:
        reader.close()
    return count


@contextlib.contextmanager
def make_rig(progress: Progress) -> Iterator[Rig]:
    """Start the services; all is gone at the end."""
    DATA_ROOT.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="load-", dir=DATA_ROOT))
        progress.say("starting Kafka and Redis")
        services = stack.enter_context(local_services())
        yield Rig(services, Path(directory).resolve(), progress)
