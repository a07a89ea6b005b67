"""A whole pipeline for a test: topics, a model on disk, workers as processes or in this one."""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from confluent_kafka import Producer

from livestep import (
    GRU,
    LoadedModel,
    Prediction,
    PredictionReader,
    StepModel,
    load_model,
    save_model,
)
from livestep.deploy.local.child_process import ChildProcess
from livestep.deploy.local.services import LocalServices
from livestep.models.sequences.rules import Shape
from livestep.pipeline.app import run_worker
from livestep.pipeline.audit.audit_report import AuditReport
from livestep.pipeline.audit.output_audit import audit
from livestep.pipeline.audit.whole_log import read_whole_log
from livestep.pipeline.kafka.topic_setup import lag
from livestep.pipeline.settings import Settings
from tests.support.helpers import wait_until
from tests.support.rig.kafka_clients import make_topics
from tests.support.shaped import ShapedEvents, shaped_parts

PARTITIONS = 4

#: Short, so that a killed worker's partitions move within a test; the broker allows 1 s.
SESSION_TIMEOUT_MS = 2_000

#: For workers that nobody kills. It is also the time-out of a transaction and of what is sent in
#: it, and a busy machine takes its time.
PATIENT_SESSION_TIMEOUT_MS = 10_000

#: Where no Redis is: for models that keep nothing.
UNREACHABLE_REDIS = "redis://127.0.0.1:1/0"

_run_number = itertools.count()


@dataclass
class Running:
    """Topics and a model, and the workers that a test starts on them."""

    services: LocalServices
    folder: Path
    input_topic: str
    output_topic: str
    model: LoadedModel
    workers: list[ChildProcess] = field(default_factory=list)
    published: int = 0

    @property
    def group(self) -> str:
        """Consumer group of the workers."""
        return f"livestep.{self.output_topic}"

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Settings of a worker."""
        return {
            "model": str(self.folder / "model"),
            "input_topic": self.input_topic,
            "output_topic": self.output_topic,
            "bootstrap_servers": self.services.bootstrap_servers,
            "redis_url": self.services.redis_url,
            "session_timeout_ms": SESSION_TIMEOUT_MS,
            "status_interval_s": 0.5,
            **changes,
        }

    def burst(self, **changes: Any) -> None:
        """Run one worker in this process, to the end of the log."""
        environment = changes.pop("environment", {})
        changes = {"session_timeout_ms": PATIENT_SESSION_TIMEOUT_MS, **changes}
        run_worker(Settings.from_environment(environment, burst=True, **self.settings(**changes)))

    def start(
        self,
        *,
        crash: str | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
        **changes: Any,
    ) -> ChildProcess:
        """Start a worker as a process; `crash` names where it kills itself (`crashing_worker`)."""
        program = (
            ["livestep.pipeline.cli"]
            if crash is None
            else ["tests.services.crashing_worker", crash]
        )
        arguments = [sys.executable, "-m", *program, "worker"]
        for name, value in self.settings(**changes).items():
            flag = "--" + name.replace("_", "-")
            arguments += [flag] if value is True else [] if value is False else [flag, str(value)]
        number = next(_run_number)
        worker = ChildProcess(
            f"worker {number}",
            arguments,
            self.folder / f"worker-{number}.log",
            {"PYTHONPATH": str(Path(__file__).parents[2]), **environment},
        )
        worker.start()
        self.workers.append(worker)
        return worker

    def publish(self, events: int, *, keys: int = 50, seed: int = 0) -> None:
        """Publish random events of random keys; more of the same keys with each call."""
        rng = random.Random(f"{seed}/{self.published}")
        width = self.model.net.input_size
        records: list[tuple[bytes | None, bytes | None]] = []
        for _ in range(events):
            x = [round(rng.gauss(0, 1), 3) for _ in range(width)]
            value = json.dumps({"x": x if width > 1 else x[0]})
            records.append((f"key-{rng.randrange(keys)}".encode(), value.encode()))
        self.publish_raw(records)

    def publish_raw(self, records: Sequence[tuple[bytes | None, bytes | None]]) -> None:
        """Publish records as they are, at the time of now."""
        self._produce((key, value, [], 0) for key, value in records)

    def publish_shaped(self, events: ShapedEvents, count: int) -> None:
        """Publish the next random events of a shape, with their marks and times."""
        self._produce(record[:4] for record in events.take(count))

    def _produce(self, records: Iterable[tuple[Any, Any, Any, int]]) -> None:
        """Publish keys, values, headers and times; 0 is now."""
        producer = Producer(
            {
                "bootstrap.servers": self.services.bootstrap_servers,
                "partitioner": "murmur2_random",
                "linger.ms": 5,
            }
        )
        for key, value, headers, timestamp_ms in records:
            producer.produce(self.input_topic, value, key, headers=headers, timestamp=timestamp_ms)
            producer.poll(0)
            self.published += 1
        assert producer.flush(30) == 0
        producer.close()

    def another_topic(self, suffix: str) -> str:
        """Create an output topic next to the first one."""
        name = f"{self.output_topic}.{suffix}"
        make_topics(self.services.bootstrap_servers, [name], PARTITIONS)
        return name

    def lag(self) -> int:
        """Events that the group has not committed."""
        found = lag(self.services.bootstrap_servers, self.group, self.input_topic)
        return sum(found.values()) if isinstance(found, dict) else found

    def wait_until_done(self, timeout_s: float = 120.0) -> None:
        """Wait until every event is committed."""
        wait_until(lambda: self.lag() == 0, timeout_s, "all events committed")

    def wait_for_log(self, worker: ChildProcess, text: str, timeout_s: float = 90.0) -> None:
        """Wait until a worker has logged a text."""
        wait_until(lambda: text in worker.log_tail(10_000), timeout_s, f"{text!r} in the log")

    def predictions(self) -> list[Prediction]:
        """Read all predictions, in the order of their events.

        How many there are is known beforehand: the end of a transaction may reach a busy broker's
        partitions some time after its commit, so that no silence means the end.
        """
        where = (self.services.bootstrap_servers, self.output_topic)
        count = sum(1 for _ in read_whole_log(*where))
        with PredictionReader(*where, codec=self.model.codec, from_beginning=True) as reader:
            found = reader.read(timeout_s=60, max_count=count)
        assert len(found) == count
        return sorted(found, key=lambda p: (p.timestamp_ms, p.source))

    def audit(self) -> AuditReport:
        """Compare all predictions with the offline unroll, by the independent judge."""
        return audit(
            self.services.bootstrap_servers, self.input_topic, self.output_topic, self.model
        )

    def assert_sequences(self) -> AuditReport:
        """Each answer of each sequence there exactly once, in order, equal to the offline truth."""
        report = self.audit()
        assert report.is_clean, report
        assert report.events == self.published, report
        assert report.predictions > 0, report
        return report

    def assert_truth(self) -> None:
        """Each event predicted exactly once, in order, equal to the unroll."""
        report = self.audit()
        assert report.is_clean, report
        assert report.events == self.published, report
        assert report.predictions + report.dead_letters == self.published, report

    def close(self) -> None:
        """Kill what still runs."""
        for worker in self.workers:
            worker.kill()


def make_running(
    services: LocalServices,
    folder: Path,
    name: str,
    *,
    net: StepModel | None = None,
    seed: int = 0,
    partitions: int = PARTITIONS,
    **save_options: Any,
) -> Running:
    """Create topics and a model for a test."""
    torch.manual_seed(seed)
    model = folder / "model"
    save_model(net or GRU(input_size=3, hidden_size=8, output_size=2), model, **save_options)
    topics = [f"{name}.events", f"{name}.events.dead-letter", f"{name}.predictions"]
    make_topics(services.bootstrap_servers, topics, partitions)
    return Running(services, folder, topics[0], topics[2], load_model(model))


def shaped_running(
    make: Callable[..., Running], shape: Shape, seed: object
) -> tuple[Running, ShapedEvents, dict[str, Any]]:
    """Create topics, a random model of a shape, and random events for it.

    Returns:
        running: Topics and model.
        events: Of some keys, with marks and bad ones among them.
        options: Settings that its workers need: no Redis if the shape keeps nothing.
    """
    rng = random.Random(f"{shape}/{seed}")
    net, parts = shaped_parts(rng, shape)
    running = make(net=net, **parts)
    # Kafka deletes by the records' own time, so theirs is now.
    now_ms = int(time.time() * 1000)
    events = ShapedEvents(running.model, rng, keys=20, is_fragile=False, begin_ms=now_ms)
    options = {"redis_url": UNREACHABLE_REDIS} if parts["rules"].is_stateless else {}
    return running, events, options
