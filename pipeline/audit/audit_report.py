"""What an audit reports: counts, and the first faults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Fault(NamedTuple):
    """One record that is wrong, or missing.

    Attributes:
        kind: The count of `AuditReport` that it belongs to.
        topic: Of the record that is wrong; for a lost answer, of the event.
        partition: Likewise.
        offset: Likewise.
        key: Likewise; None if there is none, or it is unknown.
        detail: What is wrong.
    """

    kind: str
    topic: str
    partition: int
    offset: int
    key: str | None
    detail: str

    def __str__(self) -> str:
        key = "" if self.key is None else f", key {self.key!r}"
        place = f"{self.topic}/{self.partition}/{self.offset}"
        return f"{self.kind.replace('_', ' ')}: {place}{key}: {self.detail}"


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found.

    Attributes:
        events: Records in the input topic that were judged.
        dead_letters: Records in the dead-letter topic. Whether an event belongs there is judged
            only for the reasons `not-finite-step` and `end-without-beginning`, where a sequence
            depends on it: compare the count with the number of bad events that you expect.
        predictions: Records in the output topic.
        lost: Missing answers: to an event, or one record of a generated sequence; and missing dead
            letters.
        repeated: Records that answer what an earlier record has answered.
        out_of_order: Predictions that follow one of a later event or step of their key, or whose
            header has the wrong timestep.
        different: Predictions that differ from the offline result (with free rounding, by more than
            the tolerance), are malformed (key, partition, timestamp, headers, members), or answer
            something that asks for no answer.
        max_difference: Largest |prediction - offline result| of all well-formed predictions.
        keys: Keys of the events, counted per partition.
        not_judged: Records among them, and among the dead letters, whose events are not judged:
            the topic no longer has them, or the group has not committed them yet.
        may_repeat: Whether repeated records are allowed.
        examples: The first faults.
        notes: What limits the audit.
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
    not_judged: int = 0
    may_repeat: bool = False
    examples: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether every event has exactly the answers that it should have, in order."""
        repeated = 0 if self.may_repeat else self.repeated
        return not (self.lost or repeated or self.out_of_order or self.different)
