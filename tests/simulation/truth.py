"""The state of each key after each of its events, by the offline rules: one event after another."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from livestep import LoadedModel
from livestep.models.contract import state_tensors
from livestep.models.sequences.offline import SESSION_GAP, KeyReader, OfflineAnswer, OfflineEvent
from livestep.models.sequences.session_gaps import session_gaps
from livestep.pipeline.audit.input_events import InputEvent, read_events
from livestep.pipeline.records import Source
from tests.support.shaped import ShapedRecord

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class KeyState:
    """What is to be kept of a key.

    Attributes:
        timesteps: Events that its open sequence has stepped.
        tensors: As in its record, without the key's axis.
    """

    timesteps: int
    tensors: tuple[Floats, ...]


class _Reader(KeyReader):
    """Gives away what it keeps."""

    def state(self, model: LoadedModel, clock: int) -> KeyState | None:
        """Return the state of the open sequence; None if there is none."""
        sequence, rules = self._open, model.rules
        if sequence is None:
            return None
        state = model.net.initial_state(1) if sequence.state is None else sequence.state
        tensors = [tensor[0].numpy() for tensor in state_tensors(state)]
        if rules.is_feeding_events:
            width = sum(f.width for f in model.inputs if f.name in rules.fed_inputs)
            fed = np.zeros(width) if sequence.fed is None else np.concatenate(sequence.fed)
            tensors.append(fed)
        if rules.shape == "many-to-one":
            drawn = sum(link.temperature > 0 for link in rules.feedback)
            last = np.zeros(model.net.output_size + drawn)
            if sequence.values is not None and sequence.chosen is not None:
                last = np.concatenate([sequence.values, sequence.chosen])
            tensors.append(last)
        if rules.session_gap_ms is not None:
            tensors.append(np.array([clock], np.float64))
        return KeyState(sequence.timestep + 1, tuple(np.array(t) for t in tensors))

    def _generated(self, *_: object) -> list[OfflineAnswer]:
        """Generate nothing: it leaves no state."""
        return []


@dataclass
class PartitionTruth:
    """One partition.

    Attributes:
        states: Of each key, after each of its events and its ends: offset, state.
        clocks: Offset and clock after each event.
        ends: Offset after the last event that a reader can see.
    """

    states: dict[bytes, list[tuple[int, KeyState | None]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    clocks: list[tuple[int, int]] = field(default_factory=list)
    readers: dict[bytes, _Reader] = field(default_factory=dict)
    waiting: deque[tuple[bytes, int, bool]] = field(default_factory=deque)
    gaps: Iterator[list[bytes]] = iter(())

    def at(self, key: bytes, offset: int) -> tuple[int, KeyState | None] | None:
        """Return the last entry of a key up to an offset."""
        found = (
            [entry for entry in self.states[key] if entry[0] <= offset]
            if (key in self.states)
            else []
        )
        return found[-1] if found else None


class Truth:
    """All partitions; events are taken as they are published.

    Args:
        model: The model.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self.partitions: dict[int, PartitionTruth] = {}

    @torch.inference_mode()
    def take(self, source: Source, record: ShapedRecord) -> None:
        """Take the next event of a partition, one that can be used as far as its record says."""
        truth = self.partitions.get(source.partition)
        if truth is None:
            truth = self.partitions[source.partition] = PartitionTruth()
            if (gap_ms := self._model.rules.session_gap_ms) is not None:
                truth.gaps = session_gaps(gap_ms, _drained(truth.waiting))
        event, inputs = self._read(source, record)
        if event is None:
            return
        offset, key = source.offset, event.key
        clock = max(event.timestamp_ms, truth.clocks[-1][1] if truth.clocks else -1)
        truth.clocks.append((offset, clock))
        if self._model.rules.is_stateless:
            return
        if self._model.rules.session_gap_ms is not None:
            truth.waiting.append((key, event.timestamp_ms, event.leaves_open))
            for idle in next(truth.gaps):
                end = OfflineEvent(None, end=True, offset=offset, ended_by=SESSION_GAP)
                self._step(truth, idle, end, clock)
        marks = event.marks
        offline = OfflineEvent(
            inputs,
            start=marks.start,
            end=marks.end,
            is_tombstone=marks.is_tombstone,
            steps_max=marks.steps_max,
            timestamp_ms=event.timestamp_ms,
            offset=offset,
        )
        self._step(truth, key, offline, clock)

    def _step(self, truth: PartitionTruth, key: bytes, event: OfflineEvent, clock: int) -> None:
        reader = truth.readers.setdefault(key, _Reader(self._model, key))
        reader.take(event.offset, event)
        state = reader.state(self._model, clock)
        entries = truth.states[key]
        if entries and entries[-1][0] == event.offset:
            entries.pop()  # an end by a gap, and the key's own event, are one entry
        entries.append((event.offset, state))

    def _read(self, source: Source, record: ShapedRecord) -> tuple[InputEvent | None, Any]:
        plain = SimpleNamespace(
            partition=source.partition,
            offset=source.offset,
            key=record.key,
            value=record.value,
            timestamp=record.timestamp_ms,
            headers=record.headers,
        )
        topic = read_events([plain], self._model, {})
        event = next(iter(topic.events.values()))
        inputs = None if event is None or event.row is None else topic.inputs[event.row]
        return event, inputs


def _drained(waiting: deque[tuple[bytes, int, bool]]) -> Iterator[tuple[bytes, int, bool]]:
    while True:
        yield waiting.popleft()
