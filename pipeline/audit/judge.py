"""Judges the records of a worker, one by one; `output_audit.py` reads them from the topics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from livestep.models.checks.agreement import TOLERANCE
from livestep.models.loaded_model import LoadedModel
from livestep.models.rounding import Rounding
from livestep.pipeline.audit.audit_report import AuditReport, Fault
from livestep.pipeline.audit.input_events import (
    END_WITHOUT_BEGINNING,
    READ_ALL_THE_SAME,
    InputEvent,
    Place,
)
from livestep.pipeline.audit.key_truth import AnswerName, Expected, Found, key_truth
from livestep.pipeline.audit.output_values import (
    fits,
    labels_allowed,
    only_labels,
    read_outputs,
)
from livestep.pipeline.audit.unrolled import Unrolled, nothing_unrolled
from livestep.pipeline.errors import DecodeError
from livestep.pipeline.records import (
    PredictionHeaders,
    Source,
    read_dead_letter_headers,
    read_prediction_headers,
)
from livestep.pipeline.types import PartitionKey

#: Predictions that are compared at once.
_COMPARE_ROWS = 8192

#: Faults that a report describes.
_EXAMPLES_MAX = 10


@dataclass
class Judge:
    """Accepts dead letters first, then the unrolled input, then predictions; then it reports.

    Answers to keys that could be unrolled are compared as they come; those of other keys wait for
    the report, since the truth may have to follow them (`key_truth.py`).

    Args:
        input_topic: The topic that the sources have to name.
        output_partition_count: Partitions of the output topic.
        model: The model that should have made the predictions.
        expected_from: The offset of each partition from which on it had to answer, if not from the
            first event on: a replay has seen earlier events, or another model has answered them.
        judged: Offsets of the events to judge, by partition; every event of a partition that is
            not in it.
        may_repeat: Whether repeated records are allowed.
        rounding: "exact" if the numbers must be equal bit for bit: predicted with exact rounding,
            on the same kind of processor and with the same version of torch. "free" compares within
            `TOLERANCE`.
    """

    input_topic: str
    output_partition_count: int
    model: LoadedModel
    expected_from: Mapping[int, int] = field(default_factory=dict)
    judged: Mapping[int, range] = field(default_factory=dict)
    may_repeat: bool = False
    rounding: Rounding = "exact"
    unrolled: Unrolled = field(default_factory=nothing_unrolled)
    dead: dict[Place, str] = field(default_factory=dict)
    answered: set[AnswerName] = field(default_factory=set)
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            (
                "dead_letters",
                "predictions",
                "lost",
                "repeated",
                "out_of_order",
                "different",
                "not_judged",
            ),
            0,
        )
    )
    max_difference: float = 0.0
    examples: list[Fault] = field(default_factory=list)
    _last_offsets: dict[PartitionKey, int] = field(default_factory=dict)
    _waiting: list[tuple[Found, int]] = field(default_factory=list)
    _found: dict[PartitionKey, list[Found]] = field(default_factory=lambda: defaultdict(list))

    def covers(self, place: Place) -> bool:
        """Whether an event is judged."""
        partition, offset = place
        return partition not in self.judged or offset in self.judged[partition]

    def take_dead_letter(self, record: Any) -> None:
        """Note which event is a dead letter."""
        self.counts["dead_letters"] += 1
        try:
            reason, _, source, _ = read_dead_letter_headers(record.headers)
            place = self._place(source)
        except DecodeError as error:
            self._fault("different", record, error.detail)
            return
        if not self.covers(place):
            self.counts["not_judged"] += 1
            return
        if place in self.dead:
            self._fault("repeated", record, f"{source} already has a dead letter")
        self.dead[place] = reason

    def take_events(self, unrolled: Unrolled) -> None:
        """Take the truth; a dead letter of a missing event is a fault, too."""
        self.unrolled = unrolled
        for place in self.dead.keys() - unrolled.topic.events.keys():
            what = "a dead letter names this event, which is not in the input topic"
            self._event_fault("different", place, what)

    def take_prediction(self, record: Any) -> None:
        """Check everything but the numbers, which are compared together."""
        self.counts["predictions"] += 1
        try:
            headers = read_prediction_headers(record.headers)
            source = headers.source
            key = b"" if headers.ended_by is None else record.key or b""
            name = AnswerName(self._place(source), headers.ended_by, headers.step, key)
            if not self.covers(name.place):
                self.counts["not_judged"] += 1
                return
            if name in self.answered or self._is_put_aside(name.place):
                self._fault("repeated", record, f"{source} was answered before")
                return
            self.answered.add(name)
            event = self._event(source, record, headers)
            numbers, labels = read_outputs(record.value, self.model)
        except DecodeError as error:
            self._fault("different", record, error.detail)
            return
        found = Found(record, name, headers.timestep, headers.finish, numbers, labels)
        owner = (source.partition, key or event.key)
        if owner in self.unrolled.sequenced:
            self._found[owner].append(found)
        else:
            self._take_plain(found, owner)

    def report(self) -> AuditReport:
        """Judge the answers that still wait, and count events without one."""
        self._compare()
        letters = dict(self.unrolled.letters)
        for key, events in self.unrolled.sequenced.items():
            for place, reason in self._judge_key(key, events).items():
                event = self.unrolled.topic.events[place]
                # One record gets one dead letter: its own before that of what a gap has ended.
                if place not in letters or (event is not None and event.key == key[1]):
                    letters[place] = reason
        self._judge_letters(letters)
        for place, event in self.unrolled.topic.events.items():
            is_missing = (
                place not in self.dead
                if event is None
                else place in self.unrolled.answers
                and AnswerName(place, None, None) not in self.answered
            )
            if is_missing:
                what = "its dead letter" if event is None else "the answer to this event"
                self._lost(place, f"{what} is missing")
        return AuditReport(
            events=len(self.unrolled.topic.events),
            max_difference=self.max_difference,
            may_repeat=self.may_repeat,
            keys=self.unrolled.key_count,
            examples=tuple(self.examples),
            notes=(),
            **self.counts,
        )

    def _place(self, source: Source) -> Place:
        if source.topic != self.input_topic:
            raise DecodeError("bad-header", f"source {source} is in another topic")
        return source.partition, source.offset

    def _is_put_aside(self, place: Place) -> bool:
        """Whether an event may get nothing but a dead letter."""
        if place not in self.dead:
            return False
        event = self.unrolled.topic.events.get(place)
        is_sequenced = event is not None and (place[0], event.key) in self.unrolled.sequenced
        return not (is_sequenced and self.dead[place] in READ_ALL_THE_SAME)

    def _event(self, source: Source, record: Any, headers: PredictionHeaders) -> InputEvent:
        """Find the event of a prediction, and compare everything but the value.

        Raises:
            DecodeError: If something is not as it should be.
        """
        place = (source.partition, source.offset)
        if place not in self.unrolled.topic.events:
            raise DecodeError("source", f"source {source} is not in the input topic")
        event = self.unrolled.topic.events[place]
        if event is None:
            raise DecodeError("source", f"source {source} is not a valid event of the model")
        # A session gap ends the sequence of another key, whose truth decides whether it does.
        key = event.key if headers.ended_by is None else record.key
        for what, found, expected in (
            ("key", record.key, key),
            ("timestamp", record.timestamp, event.timestamp_ms),
            ("partition", record.partition, source.partition % self.output_partition_count),
            ("model", headers.model, self.model.fingerprint),
        ):
            if found != expected:
                raise DecodeError(what, f"{what} is {found!r}, not {expected!r}")
        return event

    def _take_plain(self, found: Found, key: PartitionKey) -> None:
        """Check an answer to a key that was unrolled with others."""
        record, place = found.record, found.name.place
        expected = self.unrolled.answers.get(place)
        if (
            expected is None
            or found.name != AnswerName(place, None, None)
            or found.finish is not None
        ):
            self._fault("different", record, f"unexpected: {found.name}")
            return
        offset = place[1]
        last = self._last_offsets.get(key, -1)
        self._last_offsets[key] = max(last, offset)
        if offset < last:
            self._fault(
                "out_of_order", record, f"{found.name} comes after the one to offset {last}"
            )
        elif found.timestep != expected.timestep:
            what = f"timestep {found.timestep}, not {expected.timestep}"
            self._fault("out_of_order", record, what)
        self._waiting.append((found, expected.row))
        if len(self._waiting) >= _COMPARE_ROWS:
            self._compare()

    def _compare(self) -> None:
        """Compare the numbers of the waiting predictions, all at once."""
        if not self._waiting:
            return
        expected = self.unrolled.outputs[[row for _, row in self._waiting]]
        answers = [found for found, _ in self._waiting]
        is_right = self._are_close(answers, expected)
        for (found, row), is_close in zip(self._waiting, is_right, strict=True):
            if is_close and found.labels:
                self._check_labels(found, self._labels_allowed(row))
        self._waiting.clear()

    def _labels_allowed(self, row: int) -> Any:
        """Return for each category of an unrolled answer which labels are right."""
        outputs = self.model.outputs
        if self.rounding == "exact":
            return only_labels(self.unrolled.labels[row].tolist(), outputs)
        return labels_allowed(self.unrolled.outputs[row], outputs, self._limit())

    def _judge_key(self, key: PartitionKey, events: list[InputEvent]) -> Mapping[Place, str]:
        """Compare all answers to one key with its truth.

        Returns:
            letters: The dead letters that the truth asks for.
        """
        answers = self._found[key]
        by_name = {found.name: found for found in answers}
        inputs = self.unrolled.topic.inputs
        truth = key_truth(self.model, inputs, events, by_name, self._limit())
        ranks = {one.name: rank for rank, one in enumerate(truth.answers)}
        last = -1
        pairs: list[tuple[Found, Expected]] = []
        for found in answers:
            rank = ranks.get(found.name)
            if rank is None:
                what = f"unexpected: {found.name}"
                self._fault("different", found.record, what)
                continue
            self._check_rank(found, truth.answers[rank], is_behind=rank < last)
            last = max(last, rank)
            pairs.append((found, truth.answers[rank]))
        if pairs:
            rows = np.array([expected.values for _, expected in pairs])
            is_right = self._are_close([found for found, _ in pairs], rows)
            for (found, expected), is_close in zip(pairs, is_right, strict=True):
                if is_close:
                    self._check_labels(found, expected.is_label)
        for name in (name for name in ranks if name not in by_name):
            self._lost(name.place, f"{name} is missing")
        return truth.letters

    def _check_rank(self, found: Found, expected: Expected, *, is_behind: bool) -> None:
        if is_behind:
            what = f"{found.name} comes after a later one"
            self._fault("out_of_order", found.record, what)
        elif found.timestep != expected.timestep:
            what = f"timestep {found.timestep}, not {expected.timestep}"
            self._fault("out_of_order", found.record, what)
        if found.finish != expected.finish:
            what = f"finish {found.finish}, not {expected.finish}"
            self._fault("different", found.record, what)

    def _judge_letters(self, letters: Mapping[Place, str]) -> None:
        """Compare the dead letters that sequences ask for with those in the topic."""
        for place, reason in letters.items():
            if self.dead.get(place) != reason:
                self._lost(place, f"the dead letter ({reason}) of this event is missing")
        for place, reason in self.dead.items():
            event = self.unrolled.topic.events.get(place)
            if event is None or place in letters:
                continue
            is_sequenced = (place[0], event.key) in self.unrolled.sequenced
            if is_sequenced or reason == END_WITHOUT_BEGINNING:
                self._event_fault("different", place, f"should not be a dead letter ({reason})")

    def _are_close(self, answers: list[Found], expected: Any) -> Any:
        """Return for each answer whether its numbers are those of its row, (n, H_out)."""
        found = np.array([one.numbers for one in answers], np.float64)
        differences = np.abs(found - expected)
        if self.rounding == "exact":
            with np.errstate(over="ignore"):  # a number beyond float32 is wrong in any case
                bits = found.astype(np.float32).view(np.uint32)
            is_equal = bits == np.ascontiguousarray(expected, np.float32).view(np.uint32)
            differences[is_equal] = 0.0  # JSON has the shortest digits, not all of the float32
            is_close = is_equal.all(axis=1)
        else:
            # The tolerance is meant for outputs of magnitude around 1; float32 rounds with
            # magnitude.
            allowed = self._limit() * np.maximum(1.0, np.abs(expected))
            is_close = (differences <= allowed).all(axis=1)  # False for NaN
        for index in np.flatnonzero(~is_close).tolist():
            what = f"differs by {differences[index].max():.3g}"
            self._fault("different", answers[index].record, what)
        self.max_difference = max(self.max_difference, float(differences.max(initial=0.0)))
        return is_close

    def _check_labels(self, found: Found, allowed: Any) -> None:
        if not fits(found.labels, allowed):
            what = "the label is not the most probable value, or not the one drawn"
            self._fault("different", found.record, what)

    def _limit(self) -> float:
        if self.rounding == "exact":
            return 0.0
        dtype = next((one.dtype for one in self.model.net.parameters()), torch.float32)
        return TOLERANCE.get(dtype, TOLERANCE[torch.float32])

    def _lost(self, place: Place, what: str) -> None:
        if place[1] >= self.expected_from.get(place[0], 0):
            self._event_fault("lost", place, what)

    def _event_fault(self, kind: str, place: Place, what: str) -> None:
        event = self.unrolled.topic.events.get(place)
        key = None if event is None else event.key
        self._count_fault(Fault(kind, self.input_topic, *place, _printable(key), what))

    def _fault(self, kind: str, record: Any, what: str) -> None:
        place = (record.topic, record.partition, record.offset)
        self._count_fault(Fault(kind, *place, _printable(record.key), what))

    def _count_fault(self, fault: Fault) -> None:
        self.counts[fault.kind] += 1
        is_fault = not (self.may_repeat and fault.kind == "repeated")
        if is_fault and len(self.examples) < _EXAMPLES_MAX:
            self.examples.append(fault)


def _printable(key: bytes | None) -> str | None:
    return None if key is None else key.decode("utf-8", "backslashreplace")
