"""The offline truth of an input topic, for keys without marks: the model's answer to each event.

Keys whose sequences begin and end, and those of models that feed back or generate, are left to
`key_truth.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import PackedSequence

from livestep.models.devices import device_of
from livestep.models.fields.encoding import activate
from livestep.models.fields.field_types import columns_of
from livestep.models.loaded_model import LoadedModel
from livestep.models.sequences.blocks import block_stepper
from livestep.models.sequences.offline import SESSION_GAP
from livestep.models.sequences.session_gaps import session_gaps
from livestep.pipeline.audit.input_events import (
    END_WITHOUT_BEGINNING,
    NO_MARKS,
    Floats,
    InputEvent,
    InputTopic,
    Marks,
    Place,
    read_events,
)
from livestep.pipeline.audit.output_values import categories_of
from livestep.pipeline.types import PartitionKey

#: Limits of one unroll: large enough for torch, small in memory.
_UNROLL_KEYS_MAX = 512
_UNROLL_STEPS_MAX = 200_000


class PlainAnswer(NamedTuple):
    """The answer to an event of a key without marks.

    Attributes:
        timestep: t, from 0.
        row: Index of its outputs in `Unrolled.outputs`.
    """

    timestep: int
    row: int


@dataclass(frozen=True, slots=True)
class Unrolled:
    """An input topic, and the outputs for those keys that could be unrolled together.

    Attributes:
        topic: The events.
        answers: By the event's place.
        outputs: (n, H_out) float32, activated.
        labels: (n, C) int64. The most probable label of each of the C categories.
        sequenced: The events of all other keys, in the order of the log.
        letters: Events of the unrolled keys that have to be dead letters, with the reason.
        key_count: Keys, counted per partition.
    """

    topic: InputTopic
    answers: Mapping[Place, PlainAnswer]
    outputs: Floats
    labels: npt.NDArray[np.int64]
    sequenced: Mapping[PartitionKey, list[InputEvent]] = field(default_factory=dict)
    letters: Mapping[Place, str] = field(default_factory=dict)
    key_count: int = 0


def nothing_unrolled() -> Unrolled:
    """Return an input topic without events."""
    nothing = np.zeros((0, 0), np.float32)
    return Unrolled(InputTopic({}, nothing), {}, nothing, nothing.astype(np.int64))


def unroll_log(
    records: Iterable[Any],
    model: LoadedModel,
    dead: Mapping[Place, str],
    on_progress: Callable[[int, int], None],
) -> Unrolled:
    """Unroll each key of each partition, from its first event, if it has no marks.

    Args:
        records: Of the input topic; kafka-python's ConsumerRecord.
        model: The model to unroll.
        dead: Reasons of the events that a worker sent to the dead-letter topic: they take no
            timestep.
        on_progress: Called with the events done and their total.
    """
    topic = read_events(records, model, dead)
    by_key: dict[PartitionKey, list[InputEvent]] = defaultdict(list)
    for event in _with_gaps([e for e in topic.events.values() if e is not None], model):
        by_key[event.place[0], event.key].append(event)
    letters: dict[Place, str] = {}
    sequences: list[list[InputEvent]] = []  # each begins at zeros
    sequenced: dict[PartitionKey, list[InputEvent]] = {}
    for key, events in by_key.items():
        if model.rules.shape == "one-to-one":
            sequences += [[event] for event in events if _is_stepped(event, dead)]
            letters.update(
                {e.place: END_WITHOUT_BEGINNING for e in events if e.marks.is_bare and e.marks.end}
            )
        elif _is_plain(model, events):
            sequences.append([event for event in events if event.place not in dead])
        else:
            sequenced[key] = events
    outputs = _unroll_together(sequences, topic.inputs, model, on_progress)
    answers = {
        event.place: PlainAnswer(timestep, event.row)
        for sequence in sequences
        for timestep, event in enumerate(sequence)
        if event.row is not None
    }
    blocks = [columns_of(model.outputs, field.name) for field in categories_of(model.outputs)]
    labels = [outputs[:, block].argmax(axis=1) for block in blocks]
    return Unrolled(
        topic,
        answers,
        activate(model.outputs, outputs),
        np.stack(labels, axis=1) if labels else np.zeros((len(outputs), 0), np.int64),
        sequenced,
        letters,
        len(by_key),
    )


def _with_gaps(events: list[InputEvent], model: LoadedModel) -> Iterator[InputEvent]:
    """Insert an end where a session gap ends a sequence, before the event that moves the clock."""
    gap_ms = model.rules.session_gap_ms
    if gap_ms is None:
        yield from events
        return
    by_partition: dict[int, list[InputEvent]] = defaultdict(list)
    for event in events:
        by_partition[event.place[0]].append(event)
    for log in by_partition.values():
        records = ((event.key, event.timestamp_ms, event.leaves_open) for event in log)
        for event, ended in zip(log, session_gaps(gap_ms, records), strict=True):
            for key in ended:
                end = Marks(end=True, is_bare=True)
                yield InputEvent(
                    event.place, key, event.timestamp_ms, end, row=None, ended_by=SESSION_GAP
                )
            yield event


def _is_stepped(event: InputEvent, dead: Mapping[Place, str]) -> bool:
    return event.row is not None and event.place not in dead


def _is_plain(model: LoadedModel, events: list[InputEvent]) -> bool:
    """Whether a key is one sequence that is answered event by event, and never ends."""
    rules = model.rules
    return (
        rules.shape == "synchronized"
        and not rules.feedback
        and rules.session_gap_ms is None
        and all(event.marks == NO_MARKS for event in events)
    )


@torch.inference_mode()
def _unroll_together(
    sequences: list[list[InputEvent]],
    inputs: Floats,
    model: LoadedModel,
    on_progress: Callable[[int, int], None],
) -> Floats:
    """Unroll sequences of about the same length together."""
    stepper, device = block_stepper(model.net, model.inputs), device_of(model.net)
    outputs = np.zeros((len(inputs), model.net.output_size), np.float32)
    rows_of = [[e.row for e in sequence if e.row is not None] for sequence in sequences]
    by_length = sorted(filter(None, rows_of), key=len, reverse=True)
    total = sum(map(len, by_length))
    done = begin = 0
    while begin < len(by_length):
        count = max(1, min(_UNROLL_KEYS_MAX, _UNROLL_STEPS_MAX // len(by_length[begin])))
        chosen = by_length[begin : begin + count]
        ranks = [[row for row in rank if row is not None] for rank in zip_longest(*chosen)]
        rows = list(chain.from_iterable(ranks))
        packed = PackedSequence(
            torch.from_numpy(inputs[rows]).to(device), torch.tensor([len(rank) for rank in ranks])
        )
        outputs[rows] = stepper.step_packed(packed)[0].cpu().numpy()  # (n, H_out)
        begin, done = begin + count, done + len(rows)
        on_progress(done, total)
    return outputs
