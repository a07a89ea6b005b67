"""Answer events offline that are JSON objects, with their marks as members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from livestep.models.fields.encoding import decode, encode
from livestep.models.model_errors import FieldError
from livestep.models.sequences.generation import FloatRow
from livestep.models.sequences.offline import (
    NetWithRules,
    OfflineAnswer,
    OfflineEvent,
    answers_to_log,
    is_bound_good,
)
from livestep.models.sequences.rules import MARKS


def answer_log(
    model: NetWithRules,
    log: Sequence[tuple[str, Mapping[str, Any] | None]],
    timestamps_ms: Sequence[int] | None = None,
    offsets: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Answer all events of one partition offline, by all rules.

    Args:
        model: The model.
        log: Key and event, in order. None is a tombstone. An object with `start` or `end` whose
            features are all absent or null is a mark without an event.
        timestamps_ms: Event times; needed only for a session gap.
        offsets: Of the events in their partition; by default 0, 1, 2... Matter only if labels are
            drawn.

    Returns:
        answers: `{"key": key, "event": index, "timestep": t, "value": prediction}` each, with
            `step`, `finish` and `ended_by` where they apply.

    Raises:
        FieldError: If an event doesn't fit the inputs, or a mark is invalid.
    """
    times = timestamps_ms if timestamps_ms is not None else [0] * len(log)
    numbers = offsets if offsets is not None else range(len(log))
    read = [
        (key.encode(), read_event(model, event, index, time, offset))
        for index, ((key, event), time, offset) in enumerate(zip(log, times, numbers, strict=True))
    ]
    return [
        {"key": key.decode(), **_written(model, answer)}
        for key, answer in answers_to_log(model, read)
    ]


def read_event(
    model: NetWithRules,
    event: Mapping[str, Any] | None,
    index: int = 0,
    timestamp_ms: int = 0,
    offset: int = 0,
) -> OfflineEvent:
    """Separate an event's marks from its features.

    Args:
        model: The model.
        event: As in `answer_log`.
        index: Its position in the call, for errors.
        timestamp_ms: Event time.
        offset: In its partition.

    Raises:
        FieldError: If it doesn't fit the inputs, or a mark is invalid.
    """
    if event is None:
        return OfflineEvent(None, is_tombstone=True, timestamp_ms=timestamp_ms, offset=offset)
    if not isinstance(event, Mapping):
        raise FieldError("not-an-object", "an event must be an object, or null", index)
    features = {name: value for name, value in event.items() if name not in MARKS}
    start, end, steps_max = event.get("start", False), event.get("end", False), None
    for name, mark in (("start", start), ("end", end)):
        if not isinstance(mark, bool):
            raise FieldError(
                "wrong-kind", f"mark {name!r} must be true or false, not {mark!r}", index
            )
    if event.get("steps_max") is not None:
        steps_max = event["steps_max"]
        if type(steps_max) is not int or not is_bound_good(model.rules, steps_max):
            detail = f"mark 'steps_max' must not exceed the limit of the rules; found {steps_max!r}"
            raise FieldError("wrong-kind", detail, index)
    row: FloatRow | None = None
    optional = {field.name for field in model.inputs if field.optional}
    is_bare = (start or end) and all(
        value is None and name in optional for name, value in features.items()
    )
    if not is_bare:
        row = _encode_one(model, features, index)
    return OfflineEvent(
        row, start=start, end=end, steps_max=steps_max, timestamp_ms=timestamp_ms, offset=offset
    )


def _encode_one(model: NetWithRules, features: Mapping[str, Any], index: int) -> FloatRow:
    """Encode one event, with NaN for a feedback input that it omits."""
    try:
        row: FloatRow = encode(model.inputs, [features], model.rules.fed_inputs)[0]
    except FieldError as error:
        raise FieldError(error.reason, error.detail, index) from None
    return row


def _written(model: NetWithRules, answer: OfflineAnswer) -> dict[str, Any]:
    """Return an answer as an object; a drawn label replaces the most probable one."""
    value = decode(model.outputs, answer.values[None])[0]
    drawing = [link for link in model.rules.feedback if link.temperature > 0]
    for link, label in zip(drawing, answer.chosen.tolist(), strict=True):
        value[link.output]["label"] = list(value[link.output]["probabilities"])[label]
    written = {"event": answer.event, "timestep": answer.timestep, "value": value}
    for name in ("step", "finish", "ended_by"):
        if getattr(answer, name) is not None:
            written[name] = getattr(answer, name)
    return written
