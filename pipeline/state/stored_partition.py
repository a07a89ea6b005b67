"""Metadata that the store keeps for each partition, validated because others could change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from livestep.pipeline.types import Offset

#: Fields of a partition's hash that are not states; the last one exists only during a save.
FIELDS = ("applied", "start", "partitions", "saving")

#: Larger than any Kafka offset, which are int64.
_NUMBER_END = 1 << 63


@dataclass(frozen=True, slots=True)
class StoredPartition:
    """A partition's metadata in the store.

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
    """A partition whose metadata is invalid, so that its states can't be used.

    Attributes:
        applied: The stored bytes, for `Store.begin`; None if the field is missing.
        has_states: Whether the hash has other fields than the metadata.
        detail: Which field is invalid, and why.
    """

    applied: bytes | None
    has_states: bool
    detail: str


def read_number(value: bytes | None) -> Offset | None:
    """Parse a decimal field; None if it is not exactly as a worker writes it.

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
    """Parse the metadata of a partition's hash; None if the hash is missing.

    Args:
        values: Values of `FIELDS`, None for a missing field.
        length: Number of fields in the hash, including states.
    """
    if not length:
        return None
    has_states = length > sum(value is not None for value in values)
    numbers = [read_number(value) for value in values[:3]]
    for name, value, number in zip(FIELDS, values, numbers, strict=False):
        if number is None:
            what = "is missing" if value is None else f"is {value[:40]!r}, not a valid number"
            return DamagedPartition(values[0], has_states, f"field `{name}` {what}")
    applied, start, partitions = numbers
    assert applied is not None and start is not None and partitions is not None
    if start > applied:
        detail = f"field `start` is {start}, larger than `applied`, which is {applied}"
        return DamagedPartition(values[0], has_states, detail)
    return StoredPartition(applied, start, partitions, has_states)
