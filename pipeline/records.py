"""What stands in a record beside its value: header names, sources, and the two kinds of output.

The worker writes these records and the clients read them; both go through this file, so that a
name or a format stands here only.  It knows no Kafka client: headers are pairs of (name, bytes),
as confluent-kafka and kafka-python both have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from livestep.pipeline.errors import DecodeError

#: Topic, partition and offset of the event that a record is the answer to, as `Source` writes it.
SOURCE_HEADER = "source"

#: How many events of the key came before this one, as decimal text.
TIMESTEP_HEADER = "timestep"

#: Fingerprint of the model that made the prediction.
MODEL_HEADER = "model"

#: Of a generated record: its number within the generated sequence, from 0.
STEP_HEADER = "step"

#: Of a generated sequence's last record: how it came to its end.
FINISH_HEADER = "finish"

#: Values of `FINISH_HEADER`, in the order of `batch.generating`: the sequence goes on (and has
#: no such header); the model gave its stop label; the bound was reached.
FINISHES = (b"", b"stop", b"steps-max")

#: Of an answer to a sequence that no mark has ended: what did.
ENDED_BY_HEADER = "ended-by"

#: Value of `ENDED_BY_HEADER`: the source came so late that it begins a sequence of its own.
ENDED_BY_GAP = b"session-gap"

#: Of an event: `start`, `end` or `start,end`; what the members of these names say in JSON.
SEQUENCE_HEADER = "sequence"

#: Of an event: how many steps to generate at most, as decimal text.
STEPS_MAX_HEADER = "steps-max"

#: Code for why a record can't be used, such as `not-json`.
DEAD_LETTER_REASON_HEADER = "dead-letter-reason"

#: The same for people: one sentence.
DEAD_LETTER_DETAIL_HEADER = "dead-letter-detail"

#: The dead-letter topic of an input topic has its name and this.
DEAD_LETTER_SUFFIX = ".dead-letter"

Headers = Sequence[tuple[str, bytes | None]]


class Source(NamedTuple):
    """Where an event lies in the log: its name for good.

    Example:
        >>> Source("events", 3, 1041).to_bytes()
        b'events/3/1041'
        >>> Source.from_bytes(b"events/3/1041").offset
        1041
    """

    topic: str
    partition: int
    offset: int

    def to_bytes(self) -> bytes:
        """Write it as the header's value."""
        return b"%b/%d/%d" % (self.topic.encode(), self.partition, self.offset)

    @classmethod
    def from_bytes(cls, value: bytes) -> Source:
        """Read the header's value.

        Raises:
            DecodeError: If it isn't topic/partition/offset.
        """
        try:
            topic, partition, offset = value.decode().split("/")
            source = cls(topic, int(partition), int(offset))
        except ValueError:  # too many digits, too
            source = None
        # Back and forth, so that there is one spelling only: no spaces, signs or leading zeros.
        if source is None or not source.topic or min(source[1:]) < 0 or source.to_bytes() != value:
            raise DecodeError("bad-header", f"{value!r} is no topic/partition/offset")
        return source

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One output of a model.

    Attributes:
        key: Of the event, as text (`key_text`).
        value: What was predicted; a dict (codec json) or a tuple of floats (codec float32).
        timestep: t, from 0: how many events of the key's sequence came before this one.
        timestamp_ms: Event time, milliseconds since 1970 UTC.
        source: The event; of a whole sequence's answer, the event that has ended it.
        model: Fingerprint of the model.
        partition: Of the output topic.
        offset: In that partition.
        step: Number of a generated record in its sequence, from 0; None if it isn't generated.
        finish: Of a generated sequence's last record: "stop" or "steps-max".
        ended_by: "session-gap" if that has ended the sequence.
    """

    key: str
    value: Any
    timestep: int
    timestamp_ms: int
    source: Source
    model: str
    partition: int
    offset: int
    step: int | None = None
    finish: str | None = None
    ended_by: str | None = None


class PredictionHeaders(NamedTuple):
    """What the headers of a prediction say; see `Prediction`."""

    source: Source
    timestep: int
    model: str
    step: int | None
    finish: str | None
    ended_by: str | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record that could not be used, with the reason.

    Attributes:
        key: The record's key as text (`key_text`); None if it has none.
        value: The record's bytes, as they were; None if it has none.
        reason: A code, such as `not-json`.
        detail: One sentence for people.
        source: Where the record lies in the input topic.
        timestamp_ms: The record's own, milliseconds since 1970 UTC.
        headers: The record's own, in order.
        partition: Of the dead-letter topic.
        offset: In that partition.
    """

    key: str | None
    value: bytes | None
    reason: str
    detail: str
    source: Source
    timestamp_ms: int
    headers: tuple[tuple[str, bytes | None], ...]
    partition: int
    offset: int


def dead_letter_topic(input_topic: str) -> str:
    """Return the name of the topic that takes what can't be used.

    Example:
        >>> dead_letter_topic("events")
        'events.dead-letter'
    """
    return input_topic + DEAD_LETTER_SUFFIX


def key_text(key: bytes) -> str:
    r"""Write a key as text; bytes that aren't UTF-8 become surrogates, so that nothing is lost.

    Example:
        >>> key_text(b"flat-7"), key_text(b"\xff")
        ('flat-7', '\udcff')
    """
    return key.decode("utf-8", "surrogateescape")


def key_bytes(key: str | bytes) -> bytes:
    r"""Write a key as bytes: the inverse of `key_text`; bytes stay as they are.

    Example:
        >>> key_bytes("flat-7"), key_bytes("\udcff")
        (b'flat-7', b'\xff')
    """
    return key if isinstance(key, bytes) else key.encode("utf-8", "surrogateescape")


def prediction_headers(
    source: bytes, timestep: int, model: bytes
) -> list[tuple[str, str | bytes | None]]:
    """Make the headers that every prediction has.

    Args:
        source: The event, as `Source.to_bytes` gives it.
        timestep: t, from 0.
        model: Fingerprint, already as bytes: it is the same for millions of records.
    """
    return [
        (SOURCE_HEADER, source),
        (TIMESTEP_HEADER, b"%d" % timestep),
        (MODEL_HEADER, model),
    ]


def answer_headers(step: int, finish: int, is_by_gap: bool) -> list[tuple[str, str | bytes | None]]:
    """Make the headers that only some predictions have.

    Args:
        step: Number of a generated record in its sequence; negative if it isn't generated.
        finish: Index in `FINISHES`.
        is_by_gap: Whether a session gap has ended the sequence.
    """
    headers: list[tuple[str, str | bytes | None]] = []
    if step >= 0:
        headers.append((STEP_HEADER, b"%d" % step))
    if finish:
        headers.append((FINISH_HEADER, FINISHES[finish]))
    if is_by_gap:
        headers.append((ENDED_BY_HEADER, ENDED_BY_GAP))
    return headers


def dead_letter_headers(
    headers: Iterable[tuple[str, Any]] | None, reason: str, detail: str, source: Source
) -> list[tuple[str, Any]]:
    """Make the headers of a dead letter: the record's own ones, then ours."""
    return [
        *(headers or ()),
        (DEAD_LETTER_REASON_HEADER, reason.encode()),
        (DEAD_LETTER_DETAIL_HEADER, detail.encode("utf-8", "replace")),
        (SOURCE_HEADER, source.to_bytes()),
    ]


def read_prediction_headers(headers: Headers) -> PredictionHeaders:
    """Read the headers of a prediction.

    Raises:
        DecodeError: If one is missing or can't be read.
    """
    found = dict(headers)
    finish, ended_by = found.get(FINISH_HEADER), found.get(ENDED_BY_HEADER)
    return PredictionHeaders(
        source=Source.from_bytes(_header(found, SOURCE_HEADER)),
        timestep=_number(found, TIMESTEP_HEADER),
        model=_header(found, MODEL_HEADER).decode("ascii", "replace"),
        step=_number(found, STEP_HEADER) if STEP_HEADER in found else None,
        finish=None if finish is None else finish.decode("ascii", "replace"),
        ended_by=None if ended_by is None else ended_by.decode("ascii", "replace"),
    )


def read_dead_letter_headers(
    headers: Headers,
) -> tuple[str, str, Source, tuple[tuple[str, bytes | None], ...]]:
    """Read what `dead_letter_headers` made.

    Ours are the last of their names: the record may have headers of the same names itself.

    Returns:
        reason: Code.
        detail: One sentence.
        source: The record.
        headers: The record's own.

    Raises:
        DecodeError: If one is missing or can't be read.
    """
    ours: dict[str, bytes | None] = {}
    own = []
    for name, value in reversed(headers):
        if name in _DEAD_LETTER_HEADERS and name not in ours:
            ours[name] = value
        else:
            own.append((name, value))
    return (
        _header(ours, DEAD_LETTER_REASON_HEADER).decode("utf-8", "replace"),
        _header(ours, DEAD_LETTER_DETAIL_HEADER).decode("utf-8", "replace"),
        Source.from_bytes(_header(ours, SOURCE_HEADER)),
        tuple(reversed(own)),
    )


#: Digits of the largest int64: no offset and no timestep is longer.
_DIGITS_MAX = 19

_DEAD_LETTER_HEADERS = (DEAD_LETTER_REASON_HEADER, DEAD_LETTER_DETAIL_HEADER, SOURCE_HEADER)


def _header(headers: dict[str, bytes | None], name: str) -> bytes:
    value = headers.get(name)
    if value is None:
        raise DecodeError("bad-header", f"header {name!r} is missing")
    return value


def _number(headers: dict[str, bytes | None], name: str) -> int:
    text = _header(headers, name)
    if not text.isdigit() or len(text) > _DIGITS_MAX:
        raise DecodeError("bad-header", f"{name} {text!r} is no decimal number")
    return int(text)
