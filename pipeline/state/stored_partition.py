"""What the store says of a partition beside its states: somebody may have changed that, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from livestep.pipeline.types import Offset

#: Fields of a partition's hash that are no states; the last one is there within a save only.
FIELDS = ("applied", "start", "partitions", "saving")

#: Larger than any offset of Kafka's, which are int64.
_NUMBER_END = 1 << 63


@dataclass(frozen=True, slots=True)
class StoredPartition:
    """What the store holds of a partition, beside the states.

    Attributes:
        applied: Next offset whose effect is not yet in the store.
        start: Offset where the states begin.
        partitions: How many partitions the topic had when the states began.
        has_states: Whether any key has a state.
    """

    applied: Offset
    start: Offset
    partitions: int
    has_states: bool


@dataclass(frozen=True, slots=True)
class DamagedPartition:
    """A partition whose states are there, and no use: what is said of them can't be right.

    Attributes:
        applied: The bytes that stand there, for `Store.begin`; None if there are none.
        has_states: Whether there is anything beside the fields.
        detail: Which field, and what is wrong with it.
    """

    applied: bytes | None
    has_states: bool
    detail: str


def read_number(value: bytes | None) -> Offset | None:
    """Read a field as it was written: decimal, and nothing else; None if it is not that.

    Example:
        >>> read_number(b"12"), read_number(b" 12"), read_number(b"-1"), read_number(None)
        (12, None, None, None)
    """
    if value is None or len(value) > 19 or not value.isdigit():
        return None
    number = int(value)
    return Offset(number) if b"%d" % number == value and number < _NUMBER_END else None


def read_fields(
    values: Sequence[bytes | None], length: int
) -> StoredPartition | DamagedPartition | None:
    """Read what a partition's hash says.

    Args:
        values: Of `FIELDS`, None for one that is not there.
        length: Number of fields of the hash, states included.
    """
    if not length:
        return None
    has_states = length > sum(value is not None for value in values)
    numbers = [read_number(value) for value in values[:3]]
    for name, value, number in zip(FIELDS, values, numbers, strict=False):
        if number is None:
            what = "is missing" if value is None else f"is {value[:40]!r}, which is no offset"
            return DamagedPartition(values[0], has_states, f"field `{name}` {what}")
    applied, start, partitions = numbers
    assert applied is not None and start is not None and partitions is not None
    if start > applied:
        detail = (
            f"field `start` is {start}, and `applied` {applied}: no state ends before it begins"
        )
        return DamagedPartition(values[0], has_states, detail)
    return StoredPartition(applied, start, partitions, has_states)
