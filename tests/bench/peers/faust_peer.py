"""Faust: state in a table (memory, with a changelog topic); at least once.

Run by `python faust_peer.py worker`.
"""

from __future__ import annotations

from typing import Any

import faust
from peer import BOOTSTRAP_SERVERS, GROUP, INPUT_TOPIC, OUTPUT_TOPIC, STATE_DIRECTORY, step

app = faust.App(
    GROUP,
    broker=f"kafka://{BOOTSTRAP_SERVERS}",
    topic_partitions=4,
    topic_replication_factor=1,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    producer_linger=0.005,
    datadir=STATE_DIRECTORY,
)
events = app.topic(INPUT_TOPIC, key_type=bytes, key_serializer="raw", value_serializer="json")
predictions = app.topic(OUTPUT_TOPIC, key_serializer="raw", value_serializer="json")
hidden_states = app.Table("hidden", key_type=bytes, value_type=bytes, partitions=4)


@app.agent(events)
async def predict(stream: faust.StreamT[Any]) -> None:
    """Step the key of each event."""
    async for key, event in stream.items():
        outputs, hidden = step(event["x"], hidden_states.get(key))
        hidden_states[key] = hidden
        await predictions.send(key=key, value={"y": outputs})


if __name__ == "__main__":
    app.main()
