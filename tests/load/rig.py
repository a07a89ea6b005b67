"""What every scenario has: services, a pipeline with raw vectors, a place for logs, progress."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from livestep import GRU
from livestep.deploy.local.child_process import ChildProcess
from livestep.deploy.local.services import LocalServices, local_services
from livestep.pipeline.audit.whole_log import read_whole_log
from tests.services.running import Running, make_running
from tests.support.helpers import wait_until
from tests.support.rig.kafka_clients import RandomFeed
from tests.support.rig.progress import Progress
from tests.support.rig.runs import run_folder
from tests.support.rig.status_lines import statuses

#: Of the net: small, so that it is the engine, Kafka and Redis that are measured.
INPUT_SIZE, HIDDEN_SIZE, OUTPUT_SIZE = 4, 16, 1

#: The unroll of more takes longer than the run.
AUDIT_EVENTS_MAX = 3_000_000

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
    def pipeline(self, name: str, **options: Any) -> Iterator[tuple[Running, RandomFeed]]:
        """Make topics and a model; what still runs of the workers is killed at the end."""
        number = next(self._numbers)
        folder = self.directory / f"{name}-{number}"
        net = GRU(INPUT_SIZE, HIDDEN_SIZE, OUTPUT_SIZE)
        running = make_running(
            self.services, folder, f"{name}-{number}", net=net, codec="float32", **options
        )
        feed = feed_for(running)
        try:
            yield running, feed
        finally:
            running.close()
            feed.close()

    def wait(self, look: Callable[[], T], timeout_s: float, what: str, *workers: ChildProcess) -> T:
        """Wait until a look gives something true.

        Raises:
            ScenarioError: If one of the workers has ended.
            TimeoutError: If it takes too long.
        """

        def look_alive() -> T:
            for worker in workers:
                if not worker.is_running:
                    raise ScenarioError(f"{worker.name} has ended: {worker.log_tail()}")
            return look()

        return wait_until(look_alive, timeout_s, what)

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
        """Return the median rate of the status lines in which a backlog was worked on."""
        lines = statuses(worker)[first_line:]
        rates = sorted(s.events_per_s for s in lines if s.lag and s.events_per_s)
        return float(rates[len(rates) // 2]) if rates else 0.0

    def audit(self, running: Running) -> dict[str, int]:
        """Compare all with the unroll, or only count them if there are too many for that."""
        if running.published > AUDIT_EVENTS_MAX:
            self.progress.say("counting all predictions")
            where = (running.services.bootstrap_servers, running.output_topic)
            count = sum(1 for _ in read_whole_log(*where))
            if count != running.published:
                self.progress.fail(f"{count:,} predictions of {running.published:,} events")
            return {"events": running.published, "predictions_counted": count}
        self.progress.say("comparing all predictions with the unroll")
        report = running.audit()
        if not report.is_clean or report.events != running.published:
            self.progress.fail(f"not the truth: {report}")
        return {"events": report.events, "predictions": report.predictions}


def feed_for(running: Running) -> RandomFeed:
    """Make a feed of a pipeline's input topic, whose events the pipeline counts."""

    def count(events: int) -> None:
        running.published += events

    return RandomFeed(
        running.services.bootstrap_servers,
        running.input_topic,
        running.model.net.input_size,
        on_publish=count,
    )


@contextlib.contextmanager
def make_rig(progress: Progress) -> Iterator[Rig]:
    """Start the services; all is gone at the end."""
    with run_folder("load") as folder:
        progress.say("starting Kafka and Redis")
        with local_services() as services:
            yield Rig(services, folder.path, progress)
