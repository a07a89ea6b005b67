"""The partitioners of common clients, to detect clients that use different ones.

A hidden state belongs to a key within its partition. Two clients with different partitioners cause
two states for one key, without any error. Livestep's own clients use murmur2.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kafka.partitioner.default import murmur2

from livestep.pipeline.guides import guide

#: Maximum number of example keys in a text.
_EXAMPLES_MAX = 3

#: Maximum characters of a key in a text.
_KEY_CHARS = 40

#: The sign bit of a 32-bit integer.
_SIGN_BIT = 1 << 31

Partitioner = Callable[[bytes, int], int]


def murmur2_partition(key: bytes, partitions: int) -> int:
    """Return a key's partition by Java's clients, kafka-python, franz-go, and Livestep's own.

    Example:
        >>> [murmur2_partition(key, 4) for key in (b"m-1", b"m-2", b"a")]
        [1, 1, 0]
    """
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


def crc32_partition(key: bytes, partitions: int) -> int:
    """Return a key's partition by librdkafka's default, `consistent_random`.

    Example:
        >>> [crc32_partition(key, 4) for key in (b"m-1", b"m-2", b"a")]
        [0, 2, 3]
    """
    return zlib.crc32(key) % partitions


def fnv1a_partition(key: bytes, partitions: int) -> int:
    """Return a key's partition by sarama's default.

    Example:
        >>> [fnv1a_partition(key, 4) for key in (b"m-1", b"m-2", b"a")]
        [2, 3, 0]
    """
    hashed = 0x811C9DC5
    for byte in key:
        hashed = ((hashed ^ byte) * 0x01000193) & 0xFFFFFFFF
    signed = hashed - 2 * _SIGN_BIT if hashed & _SIGN_BIT else hashed
    return abs(signed) % partitions  # Go's remainder has the sign of the dividend


#: Default partitioners of other clients, and how to configure murmur2 instead.
OTHERS: Mapping[str, tuple[Partitioner, str]] = {
    "CRC32, librdkafka's default": (crc32_partition, "set partitioner=murmur2_random there"),
    "FNV-1a, sarama's default": (fnv1a_partition, "configure a murmur2 partitioner there"),
}


@dataclass(frozen=True, slots=True)
class Placement:
    """The partitions of some records' keys, compared with those that murmur2 chooses.

    Attributes:
        records: Number of records with a key.
        keys: Number of different keys.
        misplaced_records: Number of records in another partition than murmur2's.
        misplaced: For each misplaced key, a partition where it is and should not be.
        split: Keys that are in several partitions.
        others: Names in `OTHERS` of the partitioners that explain all misplaced keys.
        is_uniform: Whether one of these explains all keys.
        partitions: Number of partitions of the topic.
    """

    records: int
    keys: int
    misplaced_records: int
    misplaced: Mapping[bytes, int]
    split: frozenset[bytes]
    others: tuple[str, ...]
    is_uniform: bool
    partitions: int

    @property
    def is_wrong(self) -> bool:
        """Whether clients disagree: a key is in two partitions, or two partitioners were used."""
        return bool(self.split) or (bool(self.others) and not self.is_uniform)

    def text(self) -> str:
        """Describe where the keys are, and what can be done."""
        if not self.misplaced:
            return (
                f"all {self.keys:,} keys of {self.records:,} recent records are where murmur2 puts "
                "them"
            )
        examples = ", ".join(
            f"{_shown(key)} is in partition {partition}, murmur2: "
            f"{murmur2_partition(key, self.partitions)}"
            for key, partition in list(self.misplaced.items())[:_EXAMPLES_MAX]
        )
        text = (
            f"{len(self.misplaced):,} of {self.keys:,} keys ({self.misplaced_records:,} of "
            f"{self.records:,} recent records) are not where murmur2 puts them: {examples}. "
        )
        if self.split:
            text += f"{len(self.split):,} keys are in several partitions, with a state in each. "
        if self.others:
            what = "All keys match" if self.is_uniform else "They match"
            text += f"{what} {self.others[0]}: {OTHERS[self.others[0]][1]}. "
        else:
            text += (
                "They match no common client's default, or the topic had fewer partitions before. "
            )
        records = guide("docs/records.md")
        return f"{text}All clients of a topic need the same partitioner, see {records}"


def judge_placement(records: Iterable[tuple[bytes, int]], partitions: int) -> Placement:
    """Compare the partitions of keys with those that the known partitioners choose.

    Args:
        records: Key and partition of each record that has a key.
        partitions: Number of partitions of the topic.

    Example:
        >>> placement = judge_placement([(b"m-1", 1), (b"a", 3)], partitions=4)
        >>> placement.misplaced, placement.others, placement.is_wrong
        ({b'a': 3}, ("CRC32, librdkafka's default",), True)
    """
    places = Counter(records)
    misplaced = {
        key: partition
        for key, partition in places
        if murmur2_partition(key, partitions) != partition
    }
    keys = Counter(key for key, _ in places)
    fitting = {
        name: sum(find(key, partitions) != partition for key, partition in places)
        for name, (find, _) in OTHERS.items()
        if all(find(key, partitions) == partition for key, partition in misplaced.items())
    }
    others = sorted(fitting, key=fitting.__getitem__) if misplaced else []
    return Placement(
        records=places.total(),
        keys=len(keys),
        misplaced_records=sum(
            count
            for (key, partition), count in places.items()
            if murmur2_partition(key, partitions) != partition
        ),
        misplaced=misplaced,
        split=frozenset(key for key, count in keys.items() if count > 1),
        others=tuple(others),
        is_uniform=bool(others) and fitting[others[0]] == 0,
        partitions=partitions,
    )


def _shown(key: bytes) -> str:
    """Return a printable form of a key, which may contain any bytes."""
    text = key.decode("utf-8", "backslashreplace")
    return ascii(text if len(text) <= _KEY_CHARS else text[:_KEY_CHARS] + "...")
