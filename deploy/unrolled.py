"""The offline truth of an input topic: what a model says to each of its events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import torch

from models import LoadedModel, activate, encode

Floats = npt.NDArray[np.float32]

#: Where an event lies in the input topic: partition and offset.
Place = tuple[int, int]

#: Keys and timesteps of one unroll, padding included: large enough for torch, small in memory.
_UNROLL_KEYS_MAX = 512
_UNROLL_STEPS_MAX = 200_000


@dataclass(frozen=True, slots=True)
class InputEvent:
    """What the answer to an event has to repeat.

    Attributes:
        key: As in the record.
        timestamp_ms: As in the record.
        timestep: t, from 0.
        row: Of its outputs in `Unrolled.outputs`.
    """

    key: bytes
    timestamp_ms: int
    timestep: int
    row: int


@dataclass(frozen=True, slots=True)
class Unrolled:
    """An input topic and the outputs to it.

    Attributes:
        events: By place; None for a record that the model can't take.
        outputs: (n, H_out) float32, activated; one row for each event that the model can take.
        key_count: Keys, counted in each partition.
    """

    events: Mapping[Place, InputEvent | None]
    outputs: Floats
    key_count: int


def unroll_log(
    records: Iterable[Any],
    model: LoadedModel,
    dead: Collection[Place],
    on_progress: Callable[[int, int], None],
) -> Unrolled:
    """Unroll each key of each partition, from its first event.

    Args:
        records: Of the input topic; kafka-python's ConsumerRecord.
        model: What to unroll.
        dead: Places of the events that a worker has put aside: no timestep is theirs.
        on_progress: Called with events done and events in all.
    """
    places: list[Place] = []
    taken: list[tuple[Place, bytes, int]] = []
    values: list[bytes] = []
    for record in records:
        place = (record.partition, record.offset)
        places.append(place)
        if place not in dead and record.key is not None and record.value is not None:
            taken.append((place, record.key, record.timestamp))
            values.append(record.value)
    inputs, is_good = _encode(values, model)
    rows_by_key: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    events: dict[Place, InputEvent | None] = dict.fromkeys(places)
    for row, (place, key, timestamp_ms) in enumerate(taken):
        if is_good[row]:
            rows = rows_by_key[place[0], key]
            events[place] = InputEvent(key, timestamp_ms, len(rows), row)
            rows.append(row)
    outputs = _unroll_keys(list(rows_by_key.values()), inputs, model, on_progress)
    return Unrolled(events, activate(model.outputs, outputs), len(rows_by_key))


def _encode(values: Sequence[bytes], model: LoadedModel) -> tuple[Floats, list[bool]]:
    """Turn values into rows; a bad value has a row of zeros, and False beside it."""
    is_json = model.codec == "json"
    decode: Callable[[bytes], Any] = orjson.loads if is_json else _floats(model.net.input_size)
    try:
        events = [decode(value) for value in values]
        rows = encode(model.inputs, events) if is_json else np.array(events)
        if np.isfinite(rows).all():
            return rows.reshape(len(values), model.net.input_size), [True] * len(values)
    except ValueError:
        pass
    # One is bad: look at each by itself to see which.
    rows = np.zeros((len(values), model.net.input_size), np.float32)
    is_good = [False] * len(values)
    for index, value in enumerate(values):
        try:
            event = decode(value)
            row = encode(model.inputs, [event])[0] if is_json else event
        except ValueError:
            continue
        if np.isfinite(row).all():
            rows[index] = row
            is_good[index] = True
    return rows, is_good


def _floats(count: int) -> Callable[[bytes], Floats]:
    """Make a reader of raw float32 vectors of one length."""

    def read(value: bytes) -> Floats:
        vector = np.frombuffer(value, "<f4")
        if len(vector) != count:
            raise ValueError(f"{len(vector)} numbers instead of {count}")
        return vector

    return read


@torch.inference_mode()
def _unroll_keys(
    rows_by_key: list[list[int]],
    inputs: Floats,
    model: LoadedModel,
    on_progress: Callable[[int, int], None],
) -> Floats:
    """Unroll keys of about the same length together.

    Padding stands behind the end of the shorter ones, where it can't change what came before.
    """
    device = next(model.net.parameters()).device
    outputs = np.zeros((len(inputs), model.net.output_size), np.float32)
    by_length = sorted(rows_by_key, key=len, reverse=True)
    done = begin = 0
    while begin < len(by_length):
        length = len(by_length[begin])
        count = max(1, min(_UNROLL_KEYS_MAX, _UNROLL_STEPS_MAX // length))
        keys = by_length[begin : begin + count]
        padded = np.zeros((length, len(keys), inputs.shape[1]), np.float32)  # (L, N, H_in)
        for column, rows in enumerate(keys):
            padded[: len(rows), column] = inputs[rows]
        unrolled = model.net.unroll(torch.from_numpy(padded).to(device)).cpu().numpy()
        for column, rows in enumerate(keys):
            outputs[rows] = unrolled[: len(rows), column]  # (L, H_out)
            done += len(rows)
        begin += count
        on_progress(done, len(inputs))
    return outputs
