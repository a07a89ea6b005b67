"""The offline truth of one key whose sequences begin, end or feed back, event by event.

With exact rounding, every answer has to be equal bit for bit. With free rounding, where rounding
decides between two labels, the model may continue from either of them, and both are right. So the
truth follows the label that the worker chose if it ties with its own within the tolerance;
everything after that has to be equal again. It can't follow a label that was not published: that of
an event in the middle of a many-to-one sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from livestep.models.fields.encoding import activate
from livestep.models.fields.field_types import Category, columns_of
from livestep.models.loaded_model import LoadedModel
from livestep.models.sequences.feedback import draws
from livestep.models.sequences.offline import Choice, KeyReader, OfflineAnswer, OfflineEvent
from livestep.pipeline.audit.input_events import Floats, InputEvent, Place
from livestep.pipeline.audit.output_values import (
    categories_of,
    fits,
    found_labels,
    is_drawable,
    is_most_probable,
    only_labels,
)


class AnswerName(NamedTuple):
    """What distinguishes an answer from all others.

    Attributes:
        place: Of the event.
        ended_by: What ended its sequence, if not a mark of the event.
        step: Index in a generated sequence.
        key: The key whose sequence a session gap ended, since another key's event triggers that;
            empty for all other answers.
    """

    place: Place
    ended_by: str | None
    step: int | None
    key: bytes = b""

    def __str__(self) -> str:
        step = "" if self.step is None else f"step {self.step} of "
        end = "" if self.ended_by is None else f", ended by {self.ended_by}"
        return f"{step}the answer to event {self.place[0]}/{self.place[1]}{end}"


class Found(NamedTuple):
    """A well-formed answer of a worker."""

    record: Any
    name: AnswerName
    timestep: int
    finish: str | None
    numbers: list[float]
    labels: list[int]


class Expected(NamedTuple):
    """An answer of the truth.

    Attributes:
        name: Which answer.
        timestep: As in `OfflineAnswer`.
        finish: As in `OfflineAnswer`.
        values: (H_out,) float32, activated.
        is_label: For each category of the outputs: (values,) bool, whether it may be the label.
    """

    name: AnswerName
    timestep: int
    finish: str | None
    values: Floats
    is_label: list[Any]


class KeyTruth(NamedTuple):
    """Answers in the order in which they are sent, and the events that get a dead letter."""

    answers: list[Expected]
    letters: Mapping[Place, str]


class _Truth:
    """One key's events offline.

    Args:
        model: The model.
        inputs: Of the whole topic.
        events: Of the key, in the log's order.
        limit: The tolerance; 0 for exact rounding.
    """

    def __init__(
        self, model: LoadedModel, inputs: Floats, events: Sequence[InputEvent], limit: float
    ) -> None:
        self._model = model
        self._events = events
        self._limit = limit
        self._offline = [_offline_event(event, inputs) for event in events]
        self._drawing = [link for link in model.rules.feedback if link.temperature > 0]
        self._dead: dict[int, str] = {}

    def answer(self, found: Mapping[AnswerName, Found]) -> KeyTruth:
        """Answer all events; where two labels tie, follow the one that was found."""
        followed: dict[Choice, Sequence[int]] = {}
        while True:
            reader = KeyReader(self._model, self._events[0].key, followed)
            answers = [
                answer
                for index, event in enumerate(self._offline)
                for answer in reader.take(index, event)
            ]
            self._dead = dict(reader.dead)
            fork = self._first_fork(answers, found, followed)
            if fork is None:
                break
            followed.update(fork)
        letters = {self._events[index].place: reason for index, reason in self._dead.items()}
        return KeyTruth([self._expected(answer) for answer in answers], letters)

    def _first_fork(
        self,
        answers: Sequence[OfflineAnswer],
        found: Mapping[AnswerName, Found],
        followed: Mapping[Choice, Sequence[int]],
    ) -> dict[Choice, Sequence[int]] | None:
        """Find the first answer whose label is another one than was found, both of them right."""
        if not self._model.rules.feedback or self._limit == 0:
            return None
        for answer in answers:
            choice = Choice(answer.event, answer.ended_by, answer.step or 0)
            one = found.get(self._name(answer))
            if one is None or choice in followed:
                continue
            theirs = found_labels(one.numbers, one.labels, self._model.outputs)
            labels = self._by_link(theirs)
            if labels != self._by_link(self._own_labels(answer)):
                if fits(theirs, self._expected(answer).is_label):
                    return {choice: labels}
        return None

    def _expected(self, answer: OfflineAnswer) -> Expected:
        values = activate(self._model.outputs, answer.values[None])[0]
        name = self._name(answer)
        if self._limit == 0:
            is_label = only_labels(self._own_labels(answer), self._model.outputs)
            return Expected(name, answer.timestep, answer.finish, values, is_label)
        is_label = []
        for field in categories_of(self._model.outputs):
            block = columns_of(self._model.outputs, field.name)
            link = self._link_drawing(field, answer)
            if link is None:
                is_label.append(is_most_probable(values[block], self._limit))
            else:
                u = self._draw(answer, link)
                temperature = self._drawing[link].temperature
                is_label.append(is_drawable(answer.values[block], temperature, u, self._limit))
        return Expected(name, answer.timestep, answer.finish, values, is_label)

    def _own_labels(self, answer: OfflineAnswer) -> list[int]:
        """Return the label of each output category, as the truth chose it."""
        labels = []
        for field in categories_of(self._model.outputs):
            link = self._link_drawing(field, answer)
            block = columns_of(self._model.outputs, field.name)
            chosen = answer.values[block].argmax() if link is None else answer.chosen[link]
            labels.append(int(chosen))
        return labels

    def _by_link(self, labels: Sequence[int]) -> list[int]:
        """Reorder labels from outputs to links; 0 for a number."""
        by_name = dict(
            zip([field.name for field in categories_of(self._model.outputs)], labels, strict=True)
        )
        return [by_name.get(link.output, 0) for link in self._model.rules.feedback]

    def _link_drawing(self, field: Category, answer: OfflineAnswer) -> int | None:
        """Return the index, among the links that draw, of the one that drew the label."""
        names = [link.output for link in self._drawing]
        is_drawn = field.name in names and len(answer.chosen) > 0
        return names.index(field.name) if is_drawn else None

    def _draw(self, answer: OfflineAnswer, link: int) -> float:
        """Return the number in [0, 1) that decided the label."""
        index = answer.event
        if answer.step is None:
            # It was drawn when the sequence's last event was stepped, which may be an earlier one.
            while self._events[index].row is None or index in self._dead:
                index -= 1
        event = self._events[index]
        return float(draws(event.key, event.place[1], answer.step or 0, link)[0])

    def _name(self, answer: OfflineAnswer) -> AnswerName:
        event = self._events[answer.event]
        key = b"" if answer.ended_by is None else event.key
        return AnswerName(event.place, answer.ended_by, answer.step, key)


def key_truth(
    model: LoadedModel,
    inputs: Floats,
    events: Sequence[InputEvent],
    found: Mapping[AnswerName, Found],
    limit: float,
) -> KeyTruth:
    """Answer one key's events offline.

    Args:
        model: The model.
        inputs: Of the whole topic.
        events: Of the key, in the log's order; at least one.
        found: The answers of a worker, for ties.
        limit: The tolerance; 0 for exact rounding.
    """
    return _Truth(model, inputs, events, limit).answer(found)


def _offline_event(event: InputEvent, inputs: Floats) -> OfflineEvent:
    marks = event.marks
    return OfflineEvent(
        None if event.row is None else inputs[event.row],
        start=marks.start,
        end=marks.end,
        is_tombstone=marks.is_tombstone,
        steps_max=marks.steps_max,
        timestamp_ms=event.timestamp_ms,
        offset=event.place[1],
        ended_by=event.ended_by,
    )
