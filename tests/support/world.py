"""A whole pipeline in memory for tests: topics, states, a model; engines start and stop on it."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from livestep import GRU, LoadedModel, MemoryStore, Number, StepModel, memory_broker, run_to_end
from livestep.pipeline.audit.audit_report import AuditReport
from livestep.pipeline.audit.judge import Judge
from livestep.pipeline.audit.unrolled import unroll_log
from livestep.pipeline.engine.engine import Engine, build_engine
from livestep.pipeline.memory.memory_log import MemoryLog
from livestep.pipeline.memory.memory_workers import DEAD_LETTER_TOPIC, INPUT_TOPIC, OUTPUT_TOPIC
from livestep.pipeline.settings import Settings

#: As short as they are often named.
INPUT, OUTPUT, DEAD = INPUT_TOPIC, OUTPUT_TOPIC, DEAD_LETTER_TOPIC


def loaded(net: StepModel, *, fingerprint: str = "00000000000000aa", **changes: Any) -> LoadedModel:
    """Give a net the fields `x` and `y`, without a directory."""
    given = {
        "inputs": (Number("x", net.input_size),),
        "outputs": (Number("y", net.output_size),),
        "codec": "json",
        "name": "model",
        **changes,
    }
    return LoadedModel(net=net.eval().requires_grad_(False), fingerprint=fingerprint, **given)


def small_model(seed: int = 0, **changes: Any) -> LoadedModel:
    """Make a GRU 2 -> 4 -> 1."""
    torch.manual_seed(seed)
    return loaded(GRU(input_size=2, hidden_size=4, output_size=1), **changes)


class World:
    """What survives a crash, and what a test sees of it.

    Args:
        model: What predicts.
        partitions: Of the topics.
    """

    def __init__(self, model: LoadedModel | None = None, partitions: int = 2) -> None:
        self.model = model or small_model()
        self.broker = memory_broker(partitions)
        self.store = MemoryStore()
        self.published = 0

    def recreate(self, partitions: int | None = None, *, is_group_told: bool = True) -> None:
        """Delete the input topic and create it again; its states in the store have other names."""
        self.broker.recreate(INPUT, partitions, is_group_told=is_group_told)
        self.store = MemoryStore()
        self.published = 0

    def settings(self, **changes: Any) -> Settings:
        """Small limits, so that few events make many batches."""
        limits = {"batch_events_max": 8, "pool_slots": 16, **changes}
        return Settings(model="model", input_topic=INPUT, output_topic=OUTPUT, **limits)

    def start(
        self, log: MemoryLog | None = None, *, is_saving_behind: bool = False, **changes: Any
    ) -> Engine:
        """Put an engine on log and store, and join the group."""
        settings = self.settings(**changes)
        engine = build_engine(
            settings,
            self.model,
            log or MemoryLog(self.broker, settings),
            self.store,
            is_saving_behind=is_saving_behind,
        )
        engine.join()
        return engine

    def join(self, worker_id: str = "worker", **changes: Any) -> tuple[MemoryLog, Engine]:
        """Start an engine on a log of its own; the broker knows it by its id."""
        log = MemoryLog(self.broker, self.settings(**changes), worker_id)
        return log, self.start(log, **changes)

    def publish(self, key: str, event: Any, **options: Any) -> None:
        """Publish one event, or a value as it is."""
        value = event if isinstance(event, bytes | None) else json.dumps(event).encode()
        self.broker.publish(INPUT, key.encode(), value, **options)
        self.published += 1

    def publish_random(self, rng: random.Random, events: int, keys: int = 5) -> None:
        """Publish random events of random keys, in the model's codec."""
        for _ in range(events):
            numbers = [round(rng.gauss(0, 1), 3) for _ in range(self.model.net.input_size)]
            raw = np.array(numbers, "<f4").tobytes()
            event = {"x": numbers} if self.model.codec == "json" else raw
            self.publish(f"key-{rng.randrange(keys)}", event, timestamp_ms=rng.randrange(1_000))

    def run_to_end(self, **changes: Any) -> None:
        """Start an engine, run it to the end of the log, and let it leave."""
        engine = self.start(**changes)
        run_to_end(engine)
        engine.drain()

    def report(self) -> AuditReport:
        """Compare predictions and dead letters with the offline unroll, by the independent judge.

        It is the one that audits real topics.
        """
        judge = Judge(INPUT, self.broker.partition_counts[OUTPUT], self.model)
        for record in self.broker.records(DEAD):
            judge.take_dead_letter(plain(record))
        events = map(plain, self.broker.records(INPUT))
        judge.take_events(unroll_log(events, self.model, judge.dead, lambda *_: None))
        for record in self.broker.records(OUTPUT):
            judge.take_prediction(plain(record))
        return judge.report()

    def assert_truth(self) -> None:
        """Assert that each event was answered exactly once, in order, as its key's unroll says."""
        report = self.report()
        assert report.is_clean, report
        assert report.predictions + report.dead_letters == self.published, report

    def reasons(self) -> list[bytes]:
        """Return the reason of each dead letter."""
        return [dict(r.headers() or [])["dead-letter-reason"] for r in self.broker.records(DEAD)]


def plain(record: Any) -> SimpleNamespace:
    """Give a record in memory the attributes of kafka-python's."""
    return SimpleNamespace(
        topic=record.topic(),
        partition=record.partition(),
        offset=record.offset(),
        key=record.key(),
        value=record.value(),
        timestamp=record.timestamp()[1],
        headers=record.headers() or [],
    )
