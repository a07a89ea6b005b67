"""What a JSON event of a model looks like: for msgspec, and for the native decoder."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from livestep.models.fields.field_types import (
    NO_INDEX,
    Category,
    Field,
    Text,
    is_index,
    is_int_text,
)

#: Vectors up to this length are read as fixed-length tuples, the fastest way in msgspec; longer
#: ones as lists whose length is checked.
_TUPLE_LENGTH_MAX = 64

_SURROGATE = re.compile("[\ud800-\udfff]")


def event_type(fields: Sequence[Field], steps_limit: int) -> type[msgspec.Struct]:
    """Define the struct of one event: f0, f1, ... for the fields, in order, plus the marks.

    Args:
        fields: The model's inputs.
        steps_limit: Maximum steps that an event may request; 0 if the model does not generate.
    """
    members: list[Any] = [("start", bool, False), ("end", bool, False)]
    if steps_limit:
        limits = msgspec.Meta(ge=1, le=steps_limit)
        members.append(("steps_max", Annotated[int, limits] | None, None))
    for i, field in enumerate(fields):
        if isinstance(field, Category):
            # An integer is equivalent to its decimal text: dish 1 and dish "1" are the same.
            numbers = tuple(int(v) for v in field.values if is_int_text(v))
            kind: Any = Literal[field.values + numbers]
        elif isinstance(field, Text):
            limits = msgspec.Meta(max_length=field.length, pattern=_pattern(field))
            kind = Annotated[str, limits]
        elif field.size == 1:
            kind = float
        elif field.size <= _TUPLE_LENGTH_MAX:
            kind = tuple[(float,) * field.size]  # type: ignore[misc]
        else:
            limits = msgspec.Meta(min_length=field.size, max_length=field.size)
            kind = Annotated[list[float], limits]
        members.append((f"f{i}", kind | None, None) if field.optional else (f"f{i}", kind))
    return msgspec.defstruct(
        "Event",
        members,
        rename={f"f{i}": field.name for i, field in enumerate(fields)},
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def native_fields(fields: Sequence[Field], fed: Collection[str]) -> list[dict[str, Any]]:
    """Describe the fields to the native decoder: `FieldSpec` in `pipeline/native`.

    Args:
        fields: The model's inputs.
        fed: Names of the inputs that are NaN if absent.
    """
    return [_native_field(field, fed) for field in fields]


def _native_field(field: Field, fed: Collection[str]) -> dict[str, Any]:
    absent = None
    if field.optional:
        absent = np.nan if field.name in fed else NO_INDEX if is_index(field) else 0.0
    common = {"name": field.name, "absent": absent}
    if isinstance(field, Category):
        return common | {
            "values": list(field.values),
            "is_integer": [is_int_text(value) for value in field.values],
            "is_one_hot": not is_index(field),
        }
    if isinstance(field, Text):
        # Neither a lone surrogate nor a raw NUL can be in valid JSON.
        alphabet = _SURROGATE.sub("\0", field.alphabet)
        return common | {"alphabet": alphabet, "length": field.length}
    return common | {"size": field.size}


def _pattern(field: Text) -> str:
    """Return a regex for texts of the alphabet; with `$` it would accept a trailing newline."""
    return "^[" + "".join(map(re.escape, field.alphabet)) + r"]*\Z"
