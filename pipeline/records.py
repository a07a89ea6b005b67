"""Record metadata: header names, sources, predictions, and dead letters.

The worker writes these records and the clients read them; this module is the only one that defines
their names and formats.  It depends on no Kafka client: headers are (name, bytes) pairs, as in both
confluent-kafka and kafka-python.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from livestep.pipeline.errors import DecodeError

#: Topic, partition and offset of the event that a record answers, as `Source` formats it.
SOURCE_HEADER = "source"

#: How many events of the key came before this one, as decimal text.
TIMESTEP_HEADER = "timestep"

#: Fingerprint of the model that made the prediction.
MODEL_HEADER = "model"

#: On a generated record: its number within the generated sequence, from 0.
STEP_HEADER = "step"

#: On the last record of a generated sequence: why the sequence ended.
FINISH_HEADER = "finish"

#: Values of `FINISH_HEADER`, in the order of `batch.generating`: the sequence continues (no header
#: is written); the model produced its stop label; the limit was reached.
FINISHES = (b"", b"stop", b"steps-max")

#: On the answer to a sequence that was not ended by a mark: what ended it.
ENDED_BY_HEADER = "ended-by"

#: Value of `ENDED_BY_HEADER`: the clock moved more than the session gap past the last event.
ENDED_BY_GAP = b"session-gap"

#: On an event: `start`, `end` or `start,end`; same meaning as the JSON members of these names.
SEQUENCE_HEADER = "sequence"

#: On an event: the maximum number of steps to generate, as decimal text.
STEPS_MAX_HEADER = "steps-max"

#: On a dead letter: the reason code, such as `not-json`.
DEAD_LETTER_REASON_HEADER = "dead-letter-reason"

#: On a dead letter: the reason in one sentence, for people.
DEAD_LETTER_DETAIL_HEADER = "dead-letter-detail"

#: Appended to the name of an input topic, this is the name of its dead-letter topic.
DEAD_LETTER_SUFFIX = ".dead-letter"

Headers = Sequence[tuple[str, bytes | None]]


class Source(NamedTuple):
    """Position of an event in the log: its permanent, unique name.

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
        """Format it as a header value."""
        return b"%b/%d/%d" % (self.topic.encode(), self.partition, self.offset)

    @classmethod
    def from_bytes(cls, value: bytes) -> Source:
        """Parse a header value.

        Raises:
            DecodeError: If it isn't topic/partition/offset.
        """
        try:
            topic, partition, offset = value.decode().split("/")
            source = cls(topic, int(partition), int(offset))
        except ValueError:  # also raised for too many digits
            source = None
        # The round trip allows one spelling only: no spaces, signs or leading zeros.
        if source is None or not source.topic or min(source[1:]) < 0 or source.to_bytes() != value:
            raise DecodeError("bad-header", f"{value!r} is not topic/partition/offset")
        return source

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One output of a model.

    Attributes:
        key: Key of the event, as text (`key_text`).
        value: The prediction: a dict (codec json) or a tuple of floats (codec float32).
        timestep: t, from 0: how many events of the key's sequence came before this one.
        timestamp_ms: Event time, milliseconds since 1970 UTC.
        source: The event; if the answer is to a whole sequence, the event that ended it.
        model: Fingerprint of the model.
        partition: Partition of the output topic.
        offset: Offset in that partition.
        step: Number of a generated record in its sequence, from 0; None if it isn't generated.
        finish: "stop" or "steps-max" on the last record of a generated sequence, else None.
        ended_by: "session-gap" if a session gap ended the sequence, else None.
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
    """Parsed headers of a prediction; see `Prediction` for the fields."""

    source: Source
    timestep: int
    model: str
    step: int | None
    finish: str | None
    ended_by: str | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An input record that could not be processed, with the reason.

    Attributes:
        key: The record's key as text (`key_text`); None if it has none.
        value: The record's value, unchanged; None if it has none.
        reason: Code, such as `not-json`.
        detail: The reason in one sentence, for people.
        source: Position of the record in the input topic.
        timestamp_ms: The record's own timestamp, milliseconds since 1970 UTC.
        headers: The record's own headers, in order.
        partition: Partition of the dead-letter topic.
        offset: Offset in that partition.
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
    """Return the name of the dead-letter topic of an input topic.

    Example:
        >>> dead_letter_topic("events")
        'events.dead-letter'
    """
    return input_topic + DEAD_LETTER_SUFFIX


def key_text(key: bytes) -> str:
    r"""Decode a key to text; bytes that aren't UTF-8 become surrogates, so nothing is lost.

    Example:
        >>> key_text(b"flat-7"), key_text(b"\xff")
        ('flat-7', '\udcff')
    """
    return key.decode("utf-8", "surrogateescape")


def key_bytes(key: str | bytes) -> bytes:
    r"""Encode a key to bytes: the inverse of `key_text`; bytes are returned unchanged.

    Example:
        >>> key_bytes("flat-7"), key_bytes("\udcff")
        (b'flat-7', b'\xff')
    """
    return key if isinstance(key, bytes) else key.encode("utf-8", "surrogateescape")


def dead_letter_headers(
    headers: Iterable[tuple[str, Any]] | None, reason: str, detail: str, source: Source
) -> list[tuple[str, Any]]:
    """Build the headers of a dead letter: the record's own headers, then ours."""
    return [
        *(headers or ()),
        (DEAD_LETTER_REASON_HEADER, reason.encode()),
        (DEAD_LETTER_DETAIL_HEADER, detail.encode("utf-8", "replace")),
        (SOURCE_HEADER, source.to_bytes()),
    ]


def read_prediction_headers(headers: Headers) -> PredictionHeaders:
    """Parse the headers of a prediction.

    Raises:
        DecodeError: If a header is missing or invalid.
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
    """Parse the headers that `dead_letter_headers` built.

    Ours are the last ones of their names: the record may have headers of the same names itself.

    Returns:
        reason: Code.
        detail: One sentence.
        source: Position of the record in the input topic.
        headers: The record's own headers.

    Raises:
        DecodeError: If a header is missing or invalid.
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


#: Digits of the largest int64: offsets and timesteps are never longer.
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
        raise DecodeError("bad-header", f"header {name!r} is {text!r}, not a decimal number")
    return int(text)
