"""What is right and what is wrong in the records of a worker; the topics are `audit.py`'s."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deploy.answers import labels_fit, read_outputs
from deploy.unrolled import InputEvent, Place, Unrolled
from models import TOLERANCE, LoadedModel
from pipeline.errors import DecodeError
from pipeline.records import Source, read_dead_letter_headers, read_prediction_headers

#: Predictions that are compared in one go.
_COMPARE_ROWS = 8192

#: Faults that a report has in words.
_EXAMPLES_MAX = 10


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was found.

    Attributes:
        events: Records in the input topic.
        dead_letters: Records in the dead-letter topic. Whether they are there rightly is not
            judged: whoever knows how many events are bad has to compare.
        predictions: Records in the output topic.
        lost: Events with neither prediction nor dead letter.
        repeated: Records that answer an event which another record has answered before.
        out_of_order: Predictions that stand behind one of a later event of their key, or whose
            header has another timestep than their event.
        different: Predictions that differ from the unroll by more than the tolerance, or whose
            form is not the one agreed on (key, partition, timestamp, headers, members), or whose
            event doesn't exist.
        max_difference: Largest |prediction - unroll| of all that have the right form.
        keys: Keys of the events, counted in each partition.
        examples: The first faults in words.
    """

    events: int
    dead_letters: int
    predictions: int
    lost: int
    repeated: int
    out_of_order: int
    different: int
    max_difference: float
    keys: int
    examples: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether each event was answered once, in order, and rightly."""
        return not (self.lost or self.repeated or self.out_of_order or self.different)


@dataclass
class Judge:
    """Takes dead letters, then the unrolled input, then predictions; then it reports.

    Args:
        input_topic: What the sources have to name.
        output_partition_count: Partitions of the output topic.
        model: The model that should have made the predictions.
    """

    input_topic: str
    output_partition_count: int
    model: LoadedModel
    unrolled: Unrolled = field(default_factory=lambda: Unrolled({}, np.zeros((0, 0), "f4"), 0))
    answered: set[Place] = field(default_factory=set)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("dead_letters", "predictions", "lost", "repeated", "out_of_order", "different"), 0
        )
    )
    max_difference: float = 0.0
    examples: list[str] = field(default_factory=list)
    _last_offsets: dict[tuple[int, bytes], int] = field(default_factory=dict)
    _waiting: list[tuple[Any, InputEvent, list[float], list[int]]] = field(default_factory=list)

    def take_dead_letter(self, record: Any) -> None:
        """Note which event was put aside."""
        self.counts["dead_letters"] += 1
        try:
            _, _, source, _ = read_dead_letter_headers(record.headers)
            self._answer(source, record)
        except DecodeError as error:
            self._fault("different", record, error.detail)

    def take_events(self, unrolled: Unrolled) -> None:
        """Take the truth; a dead letter whose event isn't there is a fault, too."""
        self.unrolled = unrolled
        for place in self.answered - unrolled.events.keys():
            self.counts["different"] += 1
            self._example(f"different: dead letter of {place}, where there is no event")

    def take_prediction(self, record: Any) -> None:
        """Check all but the numbers, which wait to be compared together."""
        self.counts["predictions"] += 1
        try:
            source, timestep, fingerprint = read_prediction_headers(record.headers)
            if not self._answer(source, record):
                return
            event = self._event(source, record, fingerprint)
            numbers, labels = read_outputs(record.value, self.model)
        except DecodeError as error:
            self._fault("different", record, error.detail)
            return
        self._check_order(source, event, timestep, record)
        self._waiting.append((record, event, numbers, labels))
        if len(self._waiting) >= _COMPARE_ROWS:
            self._compare()

    def report(self) -> AuditReport:
        """Compare what still waits, and count the events without an answer."""
        self._compare()
        for place in self.unrolled.events:
            if place not in self.answered:
                self.counts["lost"] += 1
                self._example(f"lost: event {Source(self.input_topic, *place)}")
        return AuditReport(
            events=len(self.unrolled.events),
            max_difference=self.max_difference,
            keys=self.unrolled.key_count,
            examples=tuple(self.examples),
            **self.counts,
        )

    def _answer(self, source: Source, record: Any) -> bool:
        """Note that an event is answered; False if it was before."""
        if source.topic != self.input_topic:
            raise DecodeError("bad-header", f"source {source} is of another topic")
        place = (source.partition, source.offset)
        if place in self.answered:
            self._fault("repeated", record, f"{source} was answered before")
            return False
        self.answered.add(place)
        return True

    def _event(self, source: Source, record: Any, fingerprint: str) -> InputEvent:
        """Find the event of a prediction, and compare all but the value.

        Raises:
            DecodeError: If something is not as agreed on.
        """
        place = (source.partition, source.offset)
        if place not in self.unrolled.events:
            raise DecodeError("source", f"{source} is not in the input topic, or no longer")
        event = self.unrolled.events[place]
        if event is None:
            raise DecodeError("source", f"source {source} is no event that the model can take")
        for what, found, expected in (
            ("key", record.key, event.key),
            ("timestamp", record.timestamp, event.timestamp_ms),
            ("partition", record.partition, source.partition % self.output_partition_count),
            ("model", fingerprint, self.model.fingerprint),
        ):
            if found != expected:
                raise DecodeError(what, f"{what} is {found!r}, not {expected!r}")
        return event

    def _check_order(self, source: Source, event: InputEvent, timestep: int, record: Any) -> None:
        last = self._last_offsets.get((source.partition, event.key), -1)
        self._last_offsets[source.partition, event.key] = max(last, source.offset)
        if source.offset < last:
            self._fault("out_of_order", record, f"{source} stands behind offset {last}")
        elif timestep != event.timestep:
            self._fault("out_of_order", record, f"timestep {timestep}, not {event.timestep}")

    def _compare(self) -> None:
        """Compare the numbers of the predictions that wait for it, all in one go."""
        if not self._waiting:
            return
        found = np.array([numbers for _, _, numbers, _ in self._waiting], np.float64)
        expected = self.unrolled.outputs[[event.row for _, event, _, _ in self._waiting]]
        differences = np.abs(found - expected)
        limit = TOLERANCE[next(self.model.net.parameters()).dtype]
        # The tolerance is meant for outputs of magnitude around 1; float32 rounds with magnitude.
        allowed = limit * np.maximum(1.0, np.abs(expected))
        worst = (differences / allowed).max(axis=1)
        for index, (record, _, _, labels) in enumerate(self._waiting):
            if not worst[index] <= 1:  # also true for NaN
                self._fault("different", record, f"differs by {differences[index].max():.3g}")
            elif not labels_fit(labels, expected[index], self.model.outputs, limit):
                self._fault("different", record, "the label is not the most probable value")
        self.max_difference = max(self.max_difference, float(differences.max(initial=0.0)))
        self._waiting.clear()

    def _fault(self, kind: str, record: Any, what: str) -> None:
        self.counts[kind] += 1
        self._example(f"{kind}: {record.topic}/{record.partition}/{record.offset}: {what}")

    def _example(self, text: str) -> None:
        if len(self.examples) < _EXAMPLES_MAX:
            self.examples.append(text)
