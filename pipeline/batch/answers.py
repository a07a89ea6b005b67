"""What is answered to a batch: which events get a prediction, and which a dead letter."""

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

#: `Answers.step` of one that is not generated.
NOT_GENERATED = -1

#: An event that gets no answer but a dead letter: event, reason, detail.
Refusal = tuple[int, str, str]


@dataclass(slots=True)
class Outcome:
    """What the events' steps have given, before it is known what is answered.

    Attributes:
        sequences: The S sequences.
        events: (M,) int64.  The events that have features, ascending.
        outputs: (M, W) float32.  In their order; zeros for one left out.  W is H_out, and one more
            for each label that is drawn.
        is_finite: (M,) bool.  False for an event that would have made its sequence's state or its
            own output NaN or infinite: it was left out, the state is as it was before.
        timesteps: (M,) int64.  Count of its sequence's events before it.
        tensors: The sequences' states after the batch, (S, ...) each.
        counts: (S,) int64.  Timesteps of each sequence, the ones before the batch included.
        last_outputs: (S, W) float32.  Each sequence's last output, of a many-to-one model.
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
    """The m records to be sent, in the order of their events.

    Attributes:
        event: (m,) int64.  Event of the batch that each is the answer to.
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
        """Make answers that are not generated."""
        step = np.full(len(event), NOT_GENERATED, dtype=np.int64)
        return cls(event, outputs, timesteps, step, np.zeros(len(event), dtype=np.uint8))

    def generated(self, generated: Generated) -> Answers:
        """Put the generated records in the place of the answers that opened them."""
        opening = generated.opening
        return Answers(
            self.event[opening],
            generated.outputs,
            self.timesteps[opening],
            generated.step,
            generated.finish,
        )


def answer(batch: Batch, outcome: Outcome, rules: SequenceRules) -> tuple[Answers, list[Refusal]]:
    """Choose what is answered, by the model's shape.

    Args:
        batch: n events.
        outcome: Of their steps.
        rules: Of the model; where they generate, each answer opens a generated sequence.

    Returns:
        answers: In the order of the events.
        refusals: Events whose step was left out, and ends that end nothing.
    """
    refusals: list[Refusal] = []
    for event in outcome.events[~outcome.is_finite].tolist():
        detail = "the step gives NaN or infinity; the key's state is left as it was"
        refusals.append((event, "not-finite-step", detail))
    ended = np.flatnonzero(outcome.sequences.closing >= 0)
    events = outcome.sequences.closing[ended]
    marks = batch.marks[events]
    is_empty = outcome.counts[ended] == 0
    is_by_mark = (marks & (END | BARE | GAP)) == (END | BARE)
    for event in events[is_empty & is_by_mark].tolist():
        refusals.append((event, "end-without-beginning", "no sequence of the key is open"))
    if rules.shape in ("synchronized", "one-to-one"):
        good = outcome.is_finite
        return Answers.of(
            outcome.events[good], outcome.outputs[good], outcome.timesteps[good]
        ), refusals

    # A closing event that was left out has its dead letter; the sequence gets no other answer.
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
