"""Read predictions and dead letters with kafka-python.

Any other Kafka client can do the same: `records.py` defines everything about the records. The
worker does not use these classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import orjson

from livestep.pipeline.clients.publisher import EventPublisher
from livestep.pipeline.clients.topic_reader import TopicReader
from livestep.pipeline.errors import DecodeError
from livestep.pipeline.records import (
    DeadLetter,
    Prediction,
    Source,
    dead_letter_topic,
    key_text,
    read_dead_letter_headers,
    read_prediction_headers,
)

__all__ = [
    "DeadLetter",
    "DeadLetterReader",
    "EventPublisher",
    "Prediction",
    "PredictionReader",
    "Source",
    "TopicReader",
]


class PredictionReader(TopicReader[Prediction]):
    """Read predictions as the worker commits them.

    Args:
        bootstrap_servers: host:port[,host:port...].
        topic: The worker's output topic.
        codec: As in the model's `model.json`: "json" returns dicts, "float32" tuples of floats.
        options: As for `TopicReader`.

    Example:
        >>> with PredictionReader("127.0.0.1:9092", "predictions") as reader:  # doctest: +SKIP
        ...     for prediction in reader:
        ...         print(prediction.key, prediction.timestep, prediction.value)
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        *,
        codec: Literal["json", "float32"] = "json",
        **options: Any,
    ) -> None:
        self._decode: Callable[[bytes], Any] = decode_json if codec == "json" else decode_float32
        super().__init__(bootstrap_servers, topic, **options)

    def _parse(self, record: Any) -> Prediction:
        headers = read_prediction_headers(record.headers)
        if record.key is None or record.value is None:
            raise DecodeError("no-key-or-value", "a prediction has a key and a value")
        return Prediction(
            key=key_text(record.key),
            value=self._decode(record.value),
            timestamp_ms=record.timestamp,
            partition=record.partition,
            offset=record.offset,
            **headers._asdict(),
        )


class DeadLetterReader(TopicReader[DeadLetter]):
    """Read the records that the worker could not use, with the reasons.

    Args:
        bootstrap_servers: host:port[,host:port...].
        topic: The **input** topic, whose dead-letter topic is read.
        options: As for `TopicReader`.

    Example:
        >>> with DeadLetterReader("127.0.0.1:9092", "events") as reader:  # doctest: +SKIP
        ...     for letter in reader.iterate(idle_timeout_s=5):
        ...         print(letter.source, letter.reason, letter.detail)
    """

    def __init__(self, bootstrap_servers: str, topic: str, **options: Any) -> None:
        super().__init__(bootstrap_servers, dead_letter_topic(topic), **options)

    def _parse(self, record: Any) -> DeadLetter:
        reason, detail, source, headers = read_dead_letter_headers(record.headers)
        return DeadLetter(
            key=None if record.key is None else key_text(record.key),
            value=record.value,
            reason=reason,
            detail=detail,
            source=source,
            timestamp_ms=record.timestamp,
            headers=headers,
            partition=record.partition,
            offset=record.offset,
        )


def decode_json(value: bytes) -> Any:
    """Decode a JSON value.

    Raises:
        DecodeError: If it is not JSON.
    """
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise DecodeError("not-json", f"{value[:40]!r} is not JSON: {error}") from None


def decode_float32(value: bytes) -> tuple[float, ...]:
    """Decode raw little-endian float32.

    Raises:
        DecodeError: If the length is not a multiple of four, or the value is a JSON object.

    Example:
        >>> decode_float32(bytes.fromhex("0000803f000000c0"))
        (1.0, -2.0)
    """
    if value.startswith(b'{"') and _is_json(value):
        raise DecodeError("not-float32", f"{value[:40]!r} is JSON, not float32")
    if len(value) % 4:
        raise DecodeError(
            "wrong-length", f"{len(value)} bytes are not a whole number of float32 values"
        )
    return tuple(np.frombuffer(value, "<f4").tolist())


def _is_json(value: bytes) -> bool:
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True
