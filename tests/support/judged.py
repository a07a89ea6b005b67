"""Records of sequences as a faultless worker would write them, and a judge that looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import orjson
import torch
from torch import Tensor

from livestep import Category, Feedback, LoadedModel, Number, SequenceRules, StepModel
from livestep.models.fields.encoding import activate, decode
from livestep.models.rounding import Rounding
from livestep.models.sequences.offline import OfflineAnswer, OfflineEvent
from livestep.models.sequences.rules import Shape
from livestep.pipeline.audit.audit_report import AuditReport
from livestep.pipeline.audit.judge import Judge
from livestep.pipeline.audit.unrolled import unroll_log
from livestep.pipeline.records import FINISHES, Source, dead_letter_headers
from tests.support.prediction_headers import answer_headers, prediction_headers
from tests.support.worker_records import Answer
from tests.support.world import loaded

LETTERS = ("a", "b", "c", ".")
LETTER = Category("letter", LETTERS)

#: What the judge says of a run in which nothing was wrong.
CLEAN_AUDIT = AuditReport(
    events=100,
    dead_letters=0,
    predictions=100,
    lost=0,
    repeated=0,
    out_of_order=0,
    different=0,
    max_difference=1.5e-7,
    keys=4,
)


class Told(StepModel):
    """Gives as logits the sum of x so far, and 0.5 more for the letter after the one fed back."""

    def __init__(self) -> None:
        super().__init__(input_size=8, output_size=4)

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 4)

    def step(self, inputs: Tensor, prev_state: Any = None) -> tuple[Tensor, Tensor]:
        state = self.initial_state(len(inputs)) if prev_state is None else prev_state
        state = state + inputs[:, :4]
        return state + inputs[:, 4:].roll(1, dims=1) * 0.5, state


def told(shape: Shape, **rules: Any) -> LoadedModel:
    """Make a model of `Told` that feeds its letter back."""
    links = (Feedback("letter", "last", rules.pop("temperature", 0.0)),)
    return loaded(
        Told(),
        inputs=(Number("x", 4), Category("last", LETTERS, optional=True)),
        outputs=(LETTER,),
        rules=SequenceRules(shape, links, **rules),
    )


def event(
    offset: int,
    key: bytes | None = b"k",
    timestamp: int = 1_000,
    headers: Sequence[tuple[str, bytes]] = (),
    value: bytes | None = None,
    **members: Any,
) -> SimpleNamespace:
    """Make a record of the input topic: members are JSON, or a value as it is."""
    return SimpleNamespace(
        topic="events",
        partition=0,
        offset=offset,
        key=key,
        timestamp=timestamp,
        headers=list(headers),
        value=orjson.dumps(members) if members else value,
    )


def written(
    model: LoadedModel, record: Any, answer: OfflineAnswer, label: str | None = None
) -> Answer:
    """Make a prediction as a faultless worker writes it, or with another label."""
    headers = prediction_headers(
        Source("events", record.partition, record.offset).to_bytes(),
        answer.timestep,
        model.fingerprint.encode(),
    )
    step = -1 if answer.step is None else answer.step
    finish = 0 if answer.finish is None else FINISHES.index(answer.finish.encode())
    headers += answer_headers(step, finish, answer.ended_by is not None)
    if model.codec == "json":
        members = decode(model.outputs, answer.values[None])[0]
        drawn = [link.output for link in model.rules.feedback if link.temperature > 0]
        for name, index in zip(drawn, answer.chosen.tolist(), strict=False):
            members[name]["label"] = LETTERS[index]
        if label is not None:
            members["letter"]["label"] = label
        value = orjson.dumps(members)
    else:
        value = activate(model.outputs, answer.values[None])[0].astype("<f4").tobytes()
    return Answer(record.key, value, record.timestamp, headers, record.partition)


def letter(record: Any, reason: str) -> SimpleNamespace:
    """Make the dead letter of a record."""
    source = Source("events", record.partition, record.offset)
    headers = dead_letter_headers(record.headers, reason, "a detail", source)
    return SimpleNamespace(
        topic="events.dead-letter", partition=0, offset=0, key=record.key, headers=headers
    )


def judged(
    model: LoadedModel,
    records: Sequence[Any],
    answers: Sequence[Any],
    letters: Sequence[Any] = (),
    rounding: Rounding = "exact",
) -> AuditReport:
    """Judge a whole run."""
    judge = Judge("events", 1, model, rounding=rounding)
    for one in letters:
        judge.take_dead_letter(one)
    judge.take_events(unroll_log(records, model, judge.dead, lambda *_: None))
    for answer in answers:
        judge.take_prediction(answer)
    return judge.report()


def faults(report: AuditReport) -> tuple[int, int, int, int]:
    """Return the four counts that have to be 0."""
    return report.lost, report.repeated, report.out_of_order, report.different


def offline(x: Sequence[float] | None, offset: int, **marks: Any) -> OfflineEvent:
    """Make an event of `told` as the offline run takes it; None is a bare mark."""
    inputs = None
    if x is not None:
        inputs = torch.tensor([*x, *[torch.nan] * 4]).numpy()
    return OfflineEvent(inputs, offset=offset, **marks)
