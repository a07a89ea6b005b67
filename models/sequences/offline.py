"""Answer the events of keys offline: the reference that a stream is compared with.

One key, one event after another: the rules of `rules.py`, as simple as possible. The engine does
the same for many keys at once. Both step in the same blocks, so the answers are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from livestep.models.contract import State, StepModel
from livestep.models.fields.field_types import Field, columns_of
from livestep.models.sequences.blocks import block_stepper
from livestep.models.sequences.generation import (
    Finish,
    FloatRow,
    choose_labels,
    drawn_labels,
    feed_back,
    generate,
    is_finite,
    step_row,
)
from livestep.models.sequences.rules import SequenceRules
from livestep.models.sequences.session_gaps import session_gaps

#: `OfflineAnswer.ended_by` of a sequence that a session gap ended.
SESSION_GAP = "session-gap"


class NetWithRules(Protocol):
    """What answering needs to know about a model: `LoadedModel` and anything like it."""

    @property
    def net(self) -> StepModel:
        """The model itself, not wrapped in a `FedBack`."""

    @property
    def inputs(self) -> Sequence[Field]:
        """What the H_in columns mean."""

    @property
    def outputs(self) -> Sequence[Field]:
        """What the H_out columns mean."""

    @property
    def rules(self) -> SequenceRules:
        """How events form sequences, and what is answered."""


@dataclass(frozen=True, slots=True)
class OfflineEvent:
    """One record of a key.

    Attributes:
        inputs: (H_in,) float32; None for a mark without an event and for a tombstone. An absent
            feedback input has NaN in all its columns.
        start: Whether its key restarts from zeros before it.
        end: Whether its sequence ends with it.
        is_tombstone: Whether its value is null: the key is forgotten.
        steps_max: Limit of the sequence that it generates; None for that of the rules.
        timestamp_ms: Event time.
        offset: Determines, with the key, which labels are drawn.
        ended_by: `SESSION_GAP` if this is an end that a session gap inserted before the event of
            this offset, which may be of any key.
    """

    inputs: FloatRow | None
    start: bool = False
    end: bool = False
    is_tombstone: bool = False
    steps_max: int | None = None
    timestamp_ms: int = 0
    offset: int = 0
    ended_by: str | None = None

    @property
    def leaves_open(self) -> bool:
        """Whether its key has an open sequence after it."""
        return self.inputs is not None and not self.end


class Choice(NamedTuple):
    """Where labels are chosen: at which event, after which end of its sequence, at which step.

    In the shapes that don't generate, this is the step of the event itself, (event, None, 0).
    """

    event: int
    ended_by: str | None
    step: int


@dataclass(frozen=True, slots=True)
class OfflineAnswer:
    """One answer.

    Attributes:
        event: Position of the event that it answers; if a session gap ended the sequence, that of
            the event that advanced the clock.
        timestep: t of the last event of its sequence.
        step: Number of a generated record in its sequence, from 0; None if it isn't generated.
        finish: Of a generated sequence's last record: "stop" or "steps-max".
        ended_by: "session-gap" if that ended the sequence.
        values: (H_out,) float32. Outputs of the net: logits for a category, not yet activated.
        chosen: (S,) int64. Index of the label of each link that draws, in their order.
    """

    event: int
    timestep: int
    step: int | None
    finish: Finish | None
    ended_by: str | None
    values: FloatRow
    chosen: npt.NDArray[np.int64]


def answers_offline(
    model: NetWithRules, key: bytes, events: Sequence[OfflineEvent]
) -> list[OfflineAnswer]:
    """Answer all events of one key, from its first, as if no other key shared its partition.

    Args:
        model: The model.
        key: The key's bytes; matters only if labels are drawn.
        events: In the log's order.

    Returns:
        answers: As from `answers_to_log`.
    """
    return [answer for _, answer in answers_to_log(model, [(key, event) for event in events])]


def answers_to_log(
    model: NetWithRules, log: Sequence[tuple[bytes, OfflineEvent]]
) -> list[tuple[bytes, OfflineAnswer]]:
    """Answer all events of one partition, from its first.

    What goes to the dead-letter topic is not answered: an `end` with no open sequence, a limit
    that exceeds that of the rules, a step that isn't finite.

    Args:
        model: The model.
        log: Key and event, in order; with a session gap, of all keys, as each advances the clock.

    Returns:
        answers: Key and answer; those of one key are in the order in which they are sent.
    """
    readers: dict[bytes, KeyReader] = {}
    answers: list[tuple[bytes, OfflineAnswer]] = []
    for index, key, event in with_gaps(model.rules, log):
        reader = readers.setdefault(key, KeyReader(model, key))
        answers += [(key, answer) for answer in reader.take(index, event)]
    return answers


def with_gaps(
    rules: SequenceRules, log: Sequence[tuple[bytes, OfflineEvent]]
) -> list[tuple[int, bytes, OfflineEvent]]:
    """Insert an end wherever a session gap ends a sequence.

    Args:
        rules: Of the model.
        log: Key and event of one partition, in order.

    Returns:
        events: Position in the log, key, event; an end comes before the event of the same position.
    """
    if rules.session_gap_ms is None:
        return [(index, key, event) for index, (key, event) in enumerate(log)]
    records = ((key, event.timestamp_ms, event.leaves_open) for key, event in log)
    found: list[tuple[int, bytes, OfflineEvent]] = []
    for index, ended in enumerate(session_gaps(rules.session_gap_ms, records)):
        key, event = log[index]
        for idle in ended:
            end = OfflineEvent(None, end=True, offset=event.offset, ended_by=SESSION_GAP)
            found.append((index, idle, end))
        found.append((index, key, event))
    return found


@dataclass(slots=True)
class _OpenSequence:
    """What is kept of an open sequence.

    Attributes:
        state: After the last event that was stepped; None before the first.
        fed: What each link feeds into the next event; None before the first.
        timestep: Of the last event that was stepped; -1 before the first.
        values: Outputs of the net for that event.
        chosen: The labels that were drawn for that event.
    """

    state: State | None = None
    fed: list[FloatRow] | None = None
    timestep: int = -1
    values: FloatRow | None = None
    chosen: npt.NDArray[np.int64] | None = None


class KeyReader:
    """Answers one key's events, one after another.

    Args:
        model: The model.
        key: The key's bytes.
        labels: Labels to feed back, one index per link, instead of those that the model would
            choose: to follow a stream with free rounding on a tie, where it may continue from
            either label.

    Attributes:
        dead: Positions of invalid events, with the reason in the dead-letter topic.
    """

    def __init__(
        self, model: NetWithRules, key: bytes, labels: Mapping[Choice, Sequence[int]] | None = None
    ) -> None:
        self._model = model
        self._rules = model.rules
        self._key = key
        self._stepper = block_stepper(model.net, model.inputs)
        self._labels = labels or {}
        self._open: _OpenSequence | None = None
        self.dead: list[tuple[int, str]] = []

    def take(self, index: int, event: OfflineEvent) -> list[OfflineAnswer]:
        """Step the next event and return its answers."""
        if not is_bound_good(self._rules, event.steps_max):
            self.dead.append((index, "bad-steps-max"))
            return []
        if self._rules.is_stateless:
            return self._take_alone(index, event)
        answers: list[OfflineAnswer] = []
        if event.is_tombstone or event.start:
            self._open = None  # dropped without an answer
        if event.is_tombstone:
            return answers
        is_stepped = True
        if event.inputs is not None:
            is_stepped = self._step(index, event)
            if is_stepped and self._rules.shape == "synchronized":
                answers.append(self._answer(index, None))
        elif event.end and event.ended_by is None and not self._has_stepped:
            self.dead.append((index, "end-without-beginning"))
        if event.end and is_stepped:
            answers += self._close(index, event)
        if event.end:
            self._open = None
        return answers

    @property
    def _has_stepped(self) -> bool:
        return self._open is not None and self._open.values is not None

    def _take_alone(self, index: int, event: OfflineEvent) -> list[OfflineAnswer]:
        """Answer an event that is a sequence of its own."""
        self._open = None
        if event.inputs is None and event.end:
            self.dead.append((index, "end-without-beginning"))
        if event.inputs is None or event.is_tombstone or not self._step(index, event):
            return []
        if self._rules.shape == "one-to-one":
            return [self._answer(index, None)]
        return self._close(index, event)

    @torch.inference_mode()
    def _step(self, index: int, event: OfflineEvent) -> bool:
        """Step an event; return whether that was finite. If not, the event is ignored."""
        assert event.inputs is not None
        rules, model = self._rules, self._model
        if self._open is None:
            self._open = _OpenSequence()
        sequence = self._open
        row = np.array(event.inputs, np.float32)
        for number, link in enumerate(rules.feedback):
            columns = columns_of(model.inputs, link.input)
            if np.isnan(row[columns]).all():
                row[columns] = 0 if sequence.fed is None else sequence.fed[number]
        values, state = step_row(self._stepper, row, sequence.state)
        if not is_finite(values, state):
            self.dead.append((index, "not-finite-step"))
            return False
        sequence.state, sequence.values = state, values
        sequence.timestep += 1
        sequence.chosen = np.zeros(0, np.int64)
        if rules.is_feeding_events:
            labels = self._labels.get(Choice(index, None, 0)) or choose_labels(
                rules.feedback, model.outputs, values, self._key, event.offset, step=0
            )
            sequence.fed = feed_back(rules.feedback, model.outputs, values, labels)
            sequence.chosen = drawn_labels(rules.feedback, labels)
        return True

    def _close(self, index: int, event: OfflineEvent) -> list[OfflineAnswer]:
        """End the open sequence, if any, and return the answers for the whole of it."""
        sequence, rules = self._open, self._rules
        if sequence is None or sequence.values is None or rules.shape == "synchronized":
            self._open = None
            return []
        if not rules.is_generating:
            answers = [self._answer(index, event.ended_by)]
        else:
            answers = self._generated(index, event.offset, event.steps_max, event.ended_by)
        self._open = None
        return answers

    def _generated(
        self, index: int, offset: int, steps_max: int | None, ended_by: str | None
    ) -> list[OfflineAnswer]:
        sequence, model = self._open, self._model
        assert sequence is not None
        try:
            values, chosen, finish = generate(
                model.net,
                model.rules,
                model.inputs,
                model.outputs,
                sequence.state,
                steps_max=steps_max,
                key=self._key,
                offset=offset,
                labels={
                    choice.step: labels
                    for choice, labels in self._labels.items()
                    if (choice.event, choice.ended_by) == (index, ended_by)
                },
            )
        except FloatingPointError:
            self.dead.append((index, "not-finite-step"))
            return []
        last = len(values) - 1
        return [
            OfflineAnswer(
                event=index,
                timestep=sequence.timestep,
                step=step,
                finish=finish if step == last else None,
                ended_by=ended_by,
                values=values[step],
                chosen=chosen[step],
            )
            for step in range(len(values))
        ]

    def _answer(self, index: int, ended_by: str | None) -> OfflineAnswer:
        """Answer with the output of the open sequence's last event."""
        sequence = self._open
        assert sequence is not None
        assert sequence.values is not None and sequence.chosen is not None
        return OfflineAnswer(
            event=index,
            timestep=sequence.timestep,
            step=None,
            finish=None,
            ended_by=ended_by,
            values=sequence.values,
            chosen=sequence.chosen,
        )


def is_bound_good(rules: SequenceRules, steps_max: int | None) -> bool:
    """Return whether an event may request this many steps; None requests nothing."""
    if steps_max is None:
        return True
    return rules.generation is not None and 1 <= steps_max <= rules.generation.steps_max
