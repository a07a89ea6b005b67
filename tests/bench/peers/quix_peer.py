"""Quix Streams: state in RocksDB with a changelog topic, one transaction a commit interval."""

from __future__ import annotations

from typing import Any

from peer import (
    BOOTSTRAP_SERVERS,
    COMMIT_INTERVAL_S,
    GROUP,
    INPUT_TOPIC,
    OUTPUT_TOPIC,
    STATE_DIRECTORY,
    step,
)
from quixstreams import Application, State


def predict(event: dict[str, Any], state: State) -> dict[str, Any]:
    """Step the key of this event."""
    outputs, hidden = step(event["x"], state.get_bytes("hidden"))
    state.set_bytes("hidden", hidden)
    return {"y": outputs}


application = Application(
    broker_address=BOOTSTRAP_SERVERS,
    consumer_group=GROUP,
    auto_offset_reset="earliest",
    state_dir=STATE_DIRECTORY,
    processing_guarantee="exactly-once",
    commit_interval=COMMIT_INTERVAL_S,
    loglevel="WARNING",
)
events = application.topic(INPUT_TOPIC, value_deserializer="json")
predictions = application.topic(OUTPUT_TOPIC, value_serializer="json")
application.dataframe(events).apply(predict, stateful=True).to_topic(predictions)

if __name__ == "__main__":
    application.run()
