"""Reads the events of an input topic for the offline truth: features, marks, tombstones.

Independent of the worker's codec, so that a mistake in one of them shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from livestep.models.fields.encoding import encode
from livestep.models.fields.field_types import columns_of
from livestep.models.loaded_model import LoadedModel
from livestep.models.sequences.rules import MARKS
from livestep.pipeline.records import SEQUENCE_HEADER, STEPS_MAX_HEADER

Floats = npt.NDArray[np.float32]

#: An event's partition and offset in the input topic.
Place = tuple[int, int]

#: Reasons of dead letters whose events are read anyway: their marks count, or the offline truth has
#: to reject them, too.
NOT_FINITE_STEP, END_WITHOUT_BEGINNING = "not-finite-step", "end-without-beginning"
READ_ALL_THE_SAME = (NOT_FINITE_STEP, END_WITHOUT_BEGINNING)

_MARK_NAMES = frozenset(MARKS)


class Marks(NamedTuple):
    """The marks of an event; `is_bare` if it has nothing else."""

    start: bool = False
    end: bool = False
    steps_max: int | None = None
    is_bare: bool = False
    is_tombstone: bool = False


NO_MARKS = Marks()


class InputEvent(NamedTuple):
    """A valid event of the model.

    Attributes:
        place: Its partition and offset.
        key: As in the record.
        timestamp_ms: As in the record.
        marks: Of the sequence.
        row: Of its features in `InputTopic.inputs`; None if it has none.
        ended_by: For an end that a session gap inserts before the event of this place.
    """

    place: Place
    key: bytes
    timestamp_ms: int
    marks: Marks
    row: int | None
    ended_by: str | None = None

    @property
    def leaves_open(self) -> bool:
        """Whether its key has an open sequence after it."""
        return self.row is not None and not self.marks.end


@dataclass(frozen=True, slots=True)
class InputTopic:
    """An input topic.

    Attributes:
        events: By place, in the order of the log; None for an invalid record, and for one that a
            worker sent to the dead-letter topic.
        inputs: (n, H_in) float32. NaN in all columns of a feedback input means absent.
    """

    events: Mapping[Place, InputEvent | None]
    inputs: Floats


def read_events(
    records: Iterable[Any], model: LoadedModel, dead: Mapping[Place, str]
) -> InputTopic:
    """Read all records of an input topic.

    Args:
        records: kafka-python's ConsumerRecord.
        model: Defines what an event is.
        dead: Reasons of the dead letters, by the places of their events.
    """
    events: dict[Place, InputEvent | None] = {}
    read = _read_float32 if model.codec == "float32" else _read_json
    features: list[Any] = []
    for record in records:
        place = (record.partition, record.offset)
        events[place] = None
        if not record.key or (place in dead and dead[place] not in READ_ALL_THE_SAME):
            continue
        try:
            marks, values = _read_record(record, model, read)
        except ValueError:
            continue
        row = None
        if values is not None:
            row = len(features)
            features.append(values)
        events[place] = InputEvent(place, record.key, record.timestamp, marks, row)
    inputs, is_good = _encode(features, model)
    if not is_good.all():
        for place, event in events.items():
            if event is not None and event.row is not None and not is_good[event.row]:
                events[place] = None
    return InputTopic(events, inputs)


def _read_record(
    record: Any, model: LoadedModel, read: Callable[[bytes], tuple[Marks, Any]]
) -> tuple[Marks, Any]:
    """Split a record into marks and features, which are None if it has none.

    Raises:
        ValueError: If it is invalid, as far as can be seen without encoding.
    """
    by_header = _header_marks(record.headers) if record.headers else NO_MARKS
    if by_header.steps_max is not None:
        _check_bound(by_header.steps_max, model)
    if record.value is None:
        return Marks(is_tombstone=True), None
    if not record.value:
        if not (by_header.start or by_header.end):
            raise ValueError("an empty value without a mark")
        return by_header._replace(is_bare=True), None
    marks, values = read(record.value)
    if marks.steps_max is not None:
        _check_bound(marks.steps_max, model)
    if by_header is not NO_MARKS:
        marks = Marks(
            start=marks.start or by_header.start,
            end=marks.end or by_header.end,
            steps_max=marks.steps_max if by_header.steps_max is None else by_header.steps_max,
        )
    if (marks.start or marks.end) and _has_no_feature(values, model):
        return marks._replace(is_bare=True), None
    return marks, values


def _has_no_feature(values: Any, model: LoadedModel) -> bool:
    """Whether all features are absent or null, and may be."""
    if isinstance(values, dict):
        optional = [field.name for field in model.inputs if field.optional]
        return all(value is None and name in optional for name, value in values.items())
    fed = {link.input for link in model.rules.feedback}
    return all(field.name in fed for field in model.inputs) and bool(np.isnan(values).all())


def _header_marks(headers: Sequence[tuple[str, bytes | None]]) -> Marks:
    found = dict(headers)
    parts = (found[SEQUENCE_HEADER] or b"?").split(b",") if SEQUENCE_HEADER in found else []
    if parts not in ([], [b"start"], [b"end"], [b"start", b"end"]):
        raise ValueError(f"header {SEQUENCE_HEADER} is {found[SEQUENCE_HEADER]!r}")
    steps_max = None
    if STEPS_MAX_HEADER in found:
        steps_max = int((found[STEPS_MAX_HEADER] or b"").decode("ascii"))
    marks = Marks(b"start" in parts, b"end" in parts, steps_max)
    return NO_MARKS if marks == NO_MARKS else marks


def _check_bound(steps_max: Any, model: LoadedModel) -> None:
    generation = model.rules.generation
    if generation is None or type(steps_max) is not int:
        raise ValueError(f"invalid steps_max: {steps_max!r}")
    if not 1 <= steps_max <= generation.steps_max:
        raise ValueError(f"steps_max is {steps_max}")


def _read_json(value: bytes) -> tuple[Marks, Any]:
    members = orjson.loads(value)
    if not isinstance(members, dict):
        raise ValueError("not an object")
    if _MARK_NAMES.isdisjoint(members):
        return NO_MARKS, members
    start, end, steps_max = members.pop("start", False), members.pop("end", False), None
    if not isinstance(start, bool) or not isinstance(end, bool):
        raise ValueError("a mark is neither true nor false")
    steps_max = members.pop("steps_max", None)
    return Marks(start, end, steps_max), members


def _read_float32(value: bytes) -> tuple[Marks, Any]:
    return NO_MARKS, np.frombuffer(value, "<f4")


def _encode(features: list[Any], model: LoadedModel) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Turn features into rows, and return which are good; bad ones are a row of zeros."""
    try:
        rows = _encode_together(features, model)
        is_usable = _are_usable(rows, model)
        return rows, is_usable
    except ValueError:
        pass
    # One is bad: encode each on its own to see which.
    rows = np.zeros((len(features), model.net.input_size), np.float32)
    is_good = np.zeros(len(features), bool)
    for index, one in enumerate(features):
        try:
            rows[index] = _encode_together([one], model)[0]
            is_good[index] = True
        except ValueError:
            continue
    return rows, is_good & _are_usable(rows, model)


def _encode_together(features: list[Any], model: LoadedModel) -> Floats:
    """Turn features into (n, H_in).

    Raises:
        ValueError: If one of them is invalid.
    """
    if not features:
        return np.zeros((0, model.net.input_size), np.float32)
    if model.codec == "float32":
        for vector in features:
            if len(vector) != model.net.input_size:
                raise ValueError(f"{len(vector)} numbers instead of {model.net.input_size}")
        return np.array(features, np.float32)
    return encode(model.inputs, features, model.rules.fed_inputs)


def _are_usable(rows: Floats, model: LoadedModel) -> npt.NDArray[np.bool_]:
    """Return for each row whether it is finite where it isn't left to the feedback."""
    is_finite = np.isfinite(rows)
    for link in model.rules.feedback:
        block = columns_of(model.inputs, link.input)
        is_absent = np.isnan(rows[:, block]).all(axis=1)
        is_finite[is_absent, block] = True
    return np.asarray(is_finite.all(axis=1))
