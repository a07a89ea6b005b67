"""Records as a faultless worker would write them, for tests of those who read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from livestep import LoadedModel, activate, encode
from livestep.pipeline.records import Source
from tests.support.prediction_headers import prediction_headers


@dataclass(frozen=True)
class Answer:
    """One record of an output topic; the names are those of kafka-python's ConsumerRecord."""

    key: bytes
    value: bytes
    timestamp: int
    headers: list[tuple[str, bytes]]
    partition: int = 0
    offset: int = 0
    topic: str = "predictions"

    def but(self, **changes: Any) -> Answer:
        """Return a copy that is wrong somewhere."""
        return replace(self, **changes)


def event_value(event: dict[str, Any], model: LoadedModel) -> bytes:
    """Write an event by the model's codec."""
    if model.codec == "json":
        return orjson.dumps(event)
    return encode(model.inputs, [event])[0].astype("<f4").tobytes()


def answers_to(
    key: bytes,
    places: Sequence[tuple[str, int, int]],
    events: Sequence[dict[str, Any]],
    model: LoadedModel,
    timestamp_ms: int = 1_000,
) -> list[Answer]:
    """Answer all events of one key.

    Args:
        key: Whose events.
        places: Topic, partition and offset of each.
        events: From the key's first.
        model: Who answers.
        timestamp_ms: Of the events.
    """
    if model.codec == "json":
        values = [orjson.dumps(prediction) for prediction in model.unroll_events(events)]
    else:
        outputs = activate(model.outputs, model.unroll_rows(encode(model.inputs, list(events))))
        values = [row.astype("<f4").tobytes() for row in np.asarray(outputs)]
    return [
        Answer(
            key=key,
            value=value,
            timestamp=timestamp_ms,
            headers=prediction_headers(
                Source(*place).to_bytes(), timestep, model.fingerprint.encode()
            ),
            partition=place[1],
        )
        for timestep, (place, value) in enumerate(zip(places, values, strict=True))
    ]
