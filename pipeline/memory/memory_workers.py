"""Workers in memory: the real engine on a `MemoryLog` and a `MemoryStore`, driven by its caller."""

from __future__ import annotations

from typing import Any

from livestep.models.loaded_model import LoadedModel
from livestep.pipeline.engine.engine import Engine, build_engine
from livestep.pipeline.memory.memory_broker import MemoryBroker
from livestep.pipeline.memory.memory_log import MemoryLog
from livestep.pipeline.memory.memory_store import MemoryStore
from livestep.pipeline.settings import Settings

#: Topics of a broker that `memory_broker` makes.
INPUT_TOPIC, OUTPUT_TOPIC, DEAD_LETTER_TOPIC = "events", "predictions", "events.dead-letter"


def memory_broker(partitions: int = 1) -> MemoryBroker:
    """Make a broker with the topics `events`, `predictions` and `events.dead-letter`."""
    return MemoryBroker(dict.fromkeys((INPUT_TOPIC, OUTPUT_TOPIC, DEAD_LETTER_TOPIC), partitions))


def start_worker(
    model: LoadedModel,
    broker: MemoryBroker,
    store: MemoryStore,
    worker_id: str = "worker",
    **settings: Any,
) -> Engine:
    """Run the worker's engine on a broker and a store in memory, and join the group.

    It does nothing by itself: `engine.poll(0)` returns work, `engine.run(work)` does it, `drain`
    makes it leave; `run_to_end` does all there is. To simulate a crash, stop calling it.

    Args:
        model: What predicts.
        broker: With the topics of `memory_broker`.
        store: Holds the states; outlives the worker.
        worker_id: A second worker of the same name fences the first.
        settings: Of `Settings`, such as `batch_events_max`.
    """
    given = {"batch_events_max": 1_000, **settings}
    given.setdefault("pool_slots", max(2 * given["batch_events_max"], 100))
    made = Settings(
        model=model.name or "model", input_topic=INPUT_TOPIC, output_topic=OUTPUT_TOPIC, **given
    )
    engine = build_engine(
        made,
        model,
        MemoryLog(broker, made, worker_id),
        store,
        is_saving_behind=False,
    )
    engine.join()
    return engine


def run_to_end(engine: Engine) -> None:
    """Run an engine until the log holds nothing more for it."""
    # The first poll is the one that assigns.
    while (work := engine.poll(0)) is not None or not engine.is_at_end:
        if work is not None:
            engine.run(work)
