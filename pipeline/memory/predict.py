"""The real engine over the log and the store in memory, in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from livestep.models.loaded_model import LoadedModel
from livestep.models.model_errors import FieldError
from livestep.models.sequences.offline_json import read_event
from livestep.pipeline.clients.event_encoding import mark_headers
from livestep.pipeline.clients.readers import decode_float32, decode_json
from livestep.pipeline.errors import DecodeError
from livestep.pipeline.memory.memory_broker import MemoryRecord
from livestep.pipeline.memory.memory_store import MemoryStore
from livestep.pipeline.memory.memory_workers import (
    DEAD_LETTER_TOPIC,
    INPUT_TOPIC,
    OUTPUT_TOPIC,
    memory_broker,
    run_to_end,
    start_worker,
)
from livestep.pipeline.records import (
    Prediction,
    key_bytes,
    key_text,
    read_dead_letter_headers,
    read_prediction_headers,
)
from livestep.pipeline.types import Headers

Event = Mapping[str, Any] | bytes


def predict_in_memory(
    model: LoadedModel,
    events: Iterable[tuple[str | bytes, Event | None]],
    *,
    partitions: int = 1,
    batch_events_max: int = 1_000,
) -> list[Prediction]:
    """Predict as a worker would, without Kafka and Redis: for tests of your own model.

    The engine is the worker's, codec, batches and transactions included; its log and store are
    discarded afterwards.

    Args:
        model: Any model, also one built in code: `LoadedModel(net=..., ...)`.
        events: Key and event, as a publisher sends them: a mapping with its marks as members (in
            either codec), the record's bytes, or None for a tombstone.
        partitions: Of the topics in memory.
        batch_events_max: Events of one batch; the predictions are the same whatever it is.

    Returns:
        predictions: In the order of the events; one for each, or what the model's shape answers.

    Raises:
        DecodeError: If a worker would send an event to the dead-letter topic; names the first.

    Example:
        >>> import tempfile
        >>> from livestep import GRU, load_model, save_model
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     save_model(GRU(input_size=1, hidden_size=4, output_size=1), directory)
        ...     model = load_model(directory)
        >>> events = [("a", {"x": 0.5}), ("b", {"x": 2}), ("a", {"x": 1})]
        >>> predictions = predict_in_memory(model, events)
        >>> [(prediction.key, prediction.timestep) for prediction in predictions]
        [('a', 0), ('b', 0), ('a', 1)]
    """
    broker = memory_broker(partitions)
    places = [
        broker.publish(INPUT_TOPIC, key_bytes(key), value, headers=headers)
        for key, event in events
        for value, headers in [_record(model, event)]
    ]
    engine = start_worker(model, broker, MemoryStore(), batch_events_max=batch_events_max)
    run_to_end(engine)
    engine.drain()

    letters = broker.records(DEAD_LETTER_TOPIC)
    found = [read_dead_letter_headers(letter.headers() or []) for letter in letters]
    if found:
        reason, detail, source, _ = min(found, key=lambda one: places.index(one[2]))
        raise DecodeError(reason, f"event {places.index(source)}: {detail}")
    answers = [_prediction(model, record) for record in broker.records(OUTPUT_TOPIC)]
    order = {place: index for index, place in enumerate(places)}
    return sorted(
        answers, key=lambda one: order[one.source]
    )  # stable: the answers to one event keep their order


def _record(model: LoadedModel, event: Event | None) -> tuple[bytes | None, Headers]:
    """Write an event by the model's codec: its value, and its headers."""
    if event is None or isinstance(event, bytes):
        return event, []
    if model.codec == "json":
        return orjson.dumps(event, option=orjson.OPT_SERIALIZE_NUMPY), []
    try:
        read = read_event(model, event)
    except FieldError as error:
        raise DecodeError(error.reason, error.detail) from error
    headers: Headers = [*mark_headers(start=read.start, end=read.end, steps_max=read.steps_max)]
    return b"" if read.inputs is None else read.inputs.astype("<f4").tobytes(), headers


def _prediction(model: LoadedModel, record: MemoryRecord) -> Prediction:
    headers = read_prediction_headers(record.headers() or [])
    decode = decode_json if model.codec == "json" else decode_float32
    return Prediction(
        key=key_text(record.key() or b""),
        value=decode(record.value() or b""),
        timestamp_ms=record.timestamp()[1],
        partition=record.partition(),
        offset=record.offset(),
        **headers._asdict(),
    )
