"""One run: a load, a schedule of faults, healing, and the judge."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from livestep import GRU, load_model, save_model
from livestep.pipeline.audit.audit_report import AuditReport
from livestep.pipeline.audit.output_audit import audit
from livestep.pipeline.errors import BrokerError, ConfigError
from livestep.pipeline.kafka.topic_setup import lag
from tests.chaos.chaos_faults import FAULTS, Stage
from tests.chaos.crew import Crew
from tests.chaos.load import Load
from tests.chaos.place import Place
from tests.chaos.probe import Probe
from tests.chaos.report import ChaosReport, Happened, summarize
from tests.chaos.schedule import Fault, Kind, kinds_for, make_schedule
from tests.support.helpers import wait_until
from tests.support.rig.kafka_clients import make_topics
from tests.support.rig.machine import describe_machine
from tests.support.rig.progress import Progress

_log = logging.getLogger("tests.chaos")

INPUT, OUTPUT = "chaos.events", "chaos.predictions"
DEAD_LETTERS = "chaos.events.dead-letter"
GROUP = f"livestep.{OUTPUT}"

#: How long the workers may take to have all partitions, on a machine that is busy.
START_TIMEOUT_S = 180.0

#: How long nothing may be committed, when all is healed, before the run has failed.
STALL_TIMEOUT_S = 240.0

#: How long faults may take to heal: a broker that recovers its log is the slow case.
HEAL_TIMEOUT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run.

    Attributes:
        seed: Of all that is random.
        minutes: Of faults.
        interval_s: Between two faults on average.
        events_per_s: Of the load.
        keys: Of the load.
        workers: That run all the time.
        partitions: Of the topics.
        session_timeout_ms: Of the workers.
        is_cluster: Three brokers and a Redis Cluster, or one each.
        only: Names of the kinds of fault; none for all.
    """

    seed: int
    minutes: float
    interval_s: float = 4.0
    events_per_s: float = 3_000.0
    keys: int = 20_000
    workers: int = 3
    partitions: int = 6
    session_timeout_ms: int = 4_000
    is_cluster: bool = False
    only: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of fault that it has."""
        possible = kinds_for(is_cluster=self.is_cluster)
        return tuple(kind for kind in possible if not self.only or kind.name in self.only)


def run(plan: Plan, place: Place, progress: Progress) -> ChaosReport:
    """Run a plan at a place, and judge.

    Args:
        plan: What to run.
        place: Services of this run alone.
        progress: Told what is done.

    Raises:
        ServiceError: If a service can't be started again.
        TimeoutError: If the workers don't come up, or don't catch up.
    """
    with _logged(place.directory / "chaos.log"):
        return _Run(plan, place, progress).run()


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Log what happens when to a file, to be compared with the workers' logs."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        handler.close()


class _Run:
    def __init__(self, plan: Plan, place: Place, progress: Progress) -> None:
        self._plan = plan
        self._place = place
        self._progress = progress
        self._kinds = plan.kinds
        self._model = place.directory / "model"
        self._make_model_and_topics()
        self._crew = Crew(place, place.directory / "workers", self._flags(), plan.workers)
        self._stage = Stage(place, self._crew, plan.partitions)
        self._stop = threading.Event()
        self._happened: list[Happened] = []
        self._failures: list[str] = []
        self._threads: list[threading.Thread] = []

    def run(self) -> ChaosReport:
        """See `run`."""
        plan, bootstrap = self._plan, self._place.bootstrap_servers
        width = self._net().input_size
        load = Load(
            bootstrap,
            INPUT,
            self._place.directory,
            events_per_s=plan.events_per_s,
            keys=plan.keys,
            width=width,
            seed=plan.seed,
        )
        probe = Probe(bootstrap, OUTPUT, plan.partitions)
        with self._crew.running(), probe.running(), self._healed_at_the_end():
            load.start()
            try:
                wait_until(
                    lambda: len(probe.partitions) == plan.partitions,
                    START_TIMEOUT_S,
                    "predictions on each partition",
                )
                begin_s, begin_count = time.monotonic(), probe.count
                self._do_faults(begin_s)
                self._heal()
                rate = (probe.count - begin_count) / (time.monotonic() - begin_s)
                arrivals = probe.arrivals()
                acknowledged = load.finish()
            finally:
                load.kill()
            catch_up_s = self._catch_up()
            self._crew.leave()
        books = self._crew.books
        return ChaosReport(
            seed=plan.seed,
            is_cluster=plan.is_cluster,
            minutes=plan.minutes,
            workers=plan.workers,
            machine=describe_machine(),
            faults=summarize(self._kinds, self._happened, arrivals),
            kills=self._kill_count(),
            worker_starts=books.starts,
            exits={str(code): count for code, count in sorted(books.exits.items())},
            acknowledged=acknowledged,
            audit=self._audit(),
            longest_silence_s=round(arrivals.longest_silence_s, 3),
            catch_up_s=round(catch_up_s, 3),
            events_per_s=round(rate, 1),
            failures=[*self._failures, *books.failures],
        )

    def _net(self) -> GRU:
        torch.manual_seed(self._plan.seed)
        return GRU(input_size=3, hidden_size=8, output_size=2)

    def _make_model_and_topics(self) -> None:
        save_model(self._net(), self._model, codec="float32")
        topics = [INPUT, OUTPUT, DEAD_LETTERS]
        make_topics(self._place.bootstrap_servers, topics, self._plan.partitions)

    def _flags(self) -> list[str]:
        settings = {
            "model": self._model,
            "input-topic": INPUT,
            "output-topic": OUTPUT,
            "session-timeout-ms": self._plan.session_timeout_ms,
            # A pool that is smaller than the keys, so that states come and go.
            "pool-slots": max(self._plan.keys // 2, 200),
            "batch-events-max": max(self._plan.keys // 4, 100),
        }
        return [part for name, value in settings.items() for part in (f"--{name}", str(value))]

    def _do_faults(self, begin_s: float) -> None:
        """Begin each fault when its time has come; it heals itself."""
        plan = self._plan
        duration_s = plan.minutes * 60
        faults = make_schedule(
            plan.seed,
            self._kinds,
            duration_s=duration_s,
            interval_s=plan.interval_s,
            session_timeout_s=plan.session_timeout_ms / 1000,
        )
        texts = {kind.name: kind.text for kind in self._kinds}
        with self._progress.task("seconds of faults", int(duration_s)) as update:
            for fault in [*faults, None]:
                at_s = begin_s + (fault.at_s if fault else duration_s)
                while (left_s := at_s - time.monotonic()) > 0:
                    update(int(time.monotonic() - begin_s))
                    time.sleep(min(left_s, 0.25))
                    self._check_books()
                if fault is not None:
                    self._progress.say(f"{fault.at_s:6.1f} s  {fault.kind}: {texts[fault.kind]}")
                    self._begin(fault)

    def _begin(self, fault: Fault) -> None:
        thread = threading.Thread(
            target=self._do, args=[fault], name=f"fault-{fault.kind}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _do(self, fault: Fault) -> None:
        """Do one fault and heal it, in a thread of its own: others continue meanwhile."""
        name = f"{fault.kind} ({fault.at_s} s)"
        try:
            _log.info("%s begins", name)
            with FAULTS[fault.kind](self._stage, fault.target) as partitions:
                begin_s = time.monotonic()
                _log.info("%s is done to partitions %s", name, list(partitions))
                self._stop.wait(fault.lasts_s)
                _log.info("%s ends", name)
            _log.info("%s is healed", name)
            self._happened.append(Happened(fault.kind, begin_s, time.monotonic(), partitions))
        except Exception as error:
            # The thread's errors are the run's: `_check_books` ends it.
            self._failures.append(f"fault {fault.kind} at {fault.at_s} s failed: {error!r}")

    def _check_books(self) -> None:
        """End a run early that has failed already.

        Raises:
            RuntimeError: If a worker or a fault has.
        """
        failures = [*self._failures, *self._crew.books.failures]
        if failures:
            raise RuntimeError("; ".join(failures))

    def _heal(self) -> None:
        """End all faults, and wait until they are healed.

        Raises:
            TimeoutError: If one is not.
        """
        self._stop.set()
        deadline_s = time.monotonic() + HEAL_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
            if thread.is_alive():
                raise TimeoutError(f"{thread.name} is not healed after {HEAL_TIMEOUT_S:g} s")

    @contextlib.contextmanager
    def _healed_at_the_end(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._heal()

    def _catch_up(self) -> float:
        """Wait until every event is committed; return how long it took.

        Raises:
            TimeoutError: If nothing moves any more.
        """
        begin_s = moved_s = time.monotonic()
        first = least = self._lag()
        with self._progress.task("catching up", first or 0) as update:
            while (left := self._lag()) != 0:
                self._check_books()
                if left is not None and (least is None or left < least):
                    least, moved_s = left, time.monotonic()
                    update(max(0, (first or left) - left))
                if time.monotonic() - moved_s > STALL_TIMEOUT_S:
                    raise TimeoutError(
                        f"{least} events are left, and none was done in {STALL_TIMEOUT_S:g} s"
                    )
                time.sleep(0.2)
        return time.monotonic() - begin_s

    def _lag(self) -> int | None:
        """Events that aren't committed; None while the brokers elect who knows."""
        try:
            return sum(lag(self._place.bootstrap_servers, GROUP, INPUT).values())
        except (BrokerError, ConfigError):  # brokers that elect may not know the topic, either
            return None

    def _kill_count(self) -> int:
        kills = {kind.name for kind in self._kinds if kind.is_kill}
        return sum(one.kind in kills for one in self._happened)

    def _audit(self) -> AuditReport:
        self._progress.say("comparing all predictions with the unroll")
        servers = self._place.bootstrap_servers
        return audit(servers, INPUT, OUTPUT, load_model(self._model))
