"""The type of a model's plain events, which msgspec checks in C.

It is sound, not complete: what it accepts, `check_event` accepts, too, and needs no conversion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from livestep.models.fields.event_checks import FLOAT32_LIMIT
from livestep.models.fields.field_types import Category, Field, Number

_FLOAT = Annotated[float, msgspec.Meta(gt=-FLOAT32_LIMIT, lt=FLOAT32_LIMIT)]

#: An integer of 64 bits is never beyond float32.
_NUMBER: Any = int | _FLOAT


def plain_event_type(fields: Sequence[Field]) -> Any:
    """Return the type of events with these inputs, in their order; other members are ignored.

    Returns:
        type: For `msgspec.convert`; None if an input is of a kind that msgspec doesn't check.
    """
    if not all(isinstance(field, Number | Category) for field in fields):
        return None
    members: list[Any] = []
    for place, field in enumerate(fields):
        kind: Any = _kind(field)
        if field.optional:
            members.append((f"f{place}", kind | None | msgspec.UnsetType, msgspec.UNSET))
        else:
            members.append((f"f{place}", kind))
    return msgspec.defstruct(
        "PlainEvent",
        members,
        rename={f"f{place}": field.name for place, field in enumerate(fields)},
        kw_only=True,
        gc=False,
    )


def _kind(field: Field) -> Any:
    if isinstance(field, Category):
        return Literal[field.values]
    if isinstance(field, Number) and field.size > 1:
        length = msgspec.Meta(min_length=field.size, max_length=field.size)
        return Annotated[list[_NUMBER], length]
    return _NUMBER
