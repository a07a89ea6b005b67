"""Bytewax: state in the worker, snapshots of it in SQLite; outputs may repeat after a crash."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kafka_op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from peer import (
    BOOTSTRAP_SERVERS,
    COMMIT_INTERVAL_S,
    INPUT_TOPIC,
    OUTPUT_TOPIC,
    STATE_DIRECTORY,
    step,
)


def to_event(record: KafkaSourceMessage) -> tuple[str, dict[str, Any]]:
    """Read a record: its key as text, as Bytewax wants it, and its features."""
    return record.key.decode(), orjson.loads(record.value)


def predict(state: bytes | None, event: dict[str, Any]) -> tuple[bytes, list[float]]:
    """Step the key of this event."""
    outputs, hidden = step(event["x"], state)
    return hidden, outputs


def to_record(prediction: tuple[str, list[float]]) -> KafkaSinkMessage:
    """Write a prediction."""
    key, outputs = prediction
    return KafkaSinkMessage(key.encode(), orjson.dumps({"y": outputs}))


flow = Dataflow("bench")
source = kafka_op.input(
    "events", flow, brokers=[BOOTSTRAP_SERVERS], topics=[INPUT_TOPIC], tail=True
)
predictions = op.stateful_map("predict", op.map("decode", source.oks, to_event), predict)
records = op.map("encode", predictions, to_record)
kafka_op.output("predictions", records, brokers=[BOOTSTRAP_SERVERS], topic=OUTPUT_TOPIC)

if __name__ == "__main__":
    init_db_dir(Path(STATE_DIRECTORY), 1)
    cli_main(
        flow,
        epoch_interval=timedelta(seconds=COMMIT_INTERVAL_S),
        recovery_config=RecoveryConfig(STATE_DIRECTORY),
    )
