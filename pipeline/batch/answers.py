"""Decides which events of a batch get a prediction, and which a dead letter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from livestep.models.sequences.rules import SequenceRules
from livestep.pipeline.batch.generating import Generated
from livestep.pipeline.batch.marks import BARE, END, FORGET, GAP
from livestep.pipeline.batch.packing import Batch
from livestep.pipeline.batch.sequences import Sequences
from livestep.pipeline.types import BoolArray, FloatArray, IntArray

#: `Answers.step` of an answer that is not generated.
NOT_GENERATED = -1

#: An event that gets a dead letter instead of an answer: event, reason, detail.
Refusal = tuple[int, str, str]


@dataclass(slots=True)
class Outcome:
    """Result of stepping a batch's events, before the choice of what to answer.

    Attributes:
        sequences: The S sequences.
        events: (M,) int64.  The events that have features, ascending.
        outputs: (M, W) float32.  In the order of `events`; zeros for a skipped event.  W is H_out
            plus one column for each sampled label.
        is_finite: (M,) bool.  False for an event that would have made its sequence's state or its
            own output NaN or infinite: it was skipped, and the state is unchanged.
        timesteps: (M,) int64.  For each event, the number of earlier events of its sequence.
        tensors: The sequences' states after the batch, (S, ...) each.
        counts: (S,) int64.  Timesteps of each sequence, including those before the batch.
        last_outputs: (S, W) float32.  Last output of each sequence; many-to-one models only.
    """

    sequences: Sequences
    events: IntArray
    outputs: FloatArray
    is_finite: BoolArray
    timesteps: IntArray
    tensors: tuple[Tensor, ...]
    counts: IntArray
    last_outputs: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """The m records to send, in the order of their events.

    Attributes:
        event: (m,) int64.  The event of the batch that each record answers.
        outputs: (m, W) float32.
        timesteps: (m,) int64.
        step: (m,) int64.  Number in the generated sequence, or `NOT_GENERATED`.
        finish: (m,) uint8.  As in `Generated`.
    """

    event: IntArray
    outputs: FloatArray
    timesteps: IntArray
    step: IntArray
    finish: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, event: IntArray, outputs: FloatArray, timesteps: IntArray) -> Answers:
        """Create answers that are not generated."""
        step = np.full(len(event), NOT_GENERATED, dtype=np.int64)
        return cls(event, outputs, timesteps, step, np.zeros(len(event), dtype=np.uint8))

    def generated(self, generated: Generated) -> Answers:
        """Return the generated records in place of the answers that opened their sequences."""
        opening = generated.opening
        return Answers(
            self.event[opening],
            generated.outputs,
            self.timesteps[opening],
            generated.step,
            generated.finish,
        )


def answer(batch: Batch, outcome: Outcome, rules: SequenceRules) -> tuple[Answers, list[Refusal]]:
    """Choose the answers, according to the model's shape.

    Args:
        batch: n events.
        outcome: Result of their steps.
        rules: The model's rules; if it generates, each answer opens a generated sequence.

    Returns:
        answers: In the order of the events.
        refusals: Events whose step was skipped, and each `end` with no open sequence.
    """
    refusals: list[Refusal] = []
    for event in outcome.events[~outcome.is_finite].tolist():
        detail = "the step produced NaN or infinity; the key's state is unchanged"
        refusals.append((event, "not-finite-step", detail))
    ended = np.flatnonzero(outcome.sequences.closing >= 0)
    events = outcome.sequences.closing[ended]
    marks = batch.marks[events]
    is_empty = outcome.counts[ended] == 0
    is_by_mark = (marks & (END | BARE | GAP)) == (END | BARE)
    for event in events[is_empty & is_by_mark].tolist():
        refusals.append((event, "end-without-beginning", "the key has no open sequence"))
    if rules.shape in ("synchronized", "one-to-one"):
        good = outcome.is_finite
        return Answers.of(
            outcome.events[good], outcome.outputs[good], outcome.timesteps[good]
        ), refusals

    # A skipped closing event gets a dead letter; its sequence gets no other answer.
    is_left_out = np.zeros(len(batch.records), dtype=bool)
    is_left_out[outcome.events[~outcome.is_finite]] = True
    is_answered = ~is_empty & ((marks & FORGET) == 0) & ~is_left_out[events]
    ended, events = ended[is_answered], events[is_answered]
    in_order = np.argsort(events)
    ended, events = ended[in_order], events[in_order]
    if outcome.last_outputs is None:
        outputs = np.zeros((len(ended), 0), dtype=np.float32)
    else:
        outputs = outcome.last_outputs[ended]
    return Answers.of(events, outputs, outcome.counts[ended] - 1), refusals
