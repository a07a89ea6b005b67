"""Where keys are, and whose partitioner put them there."""

from __future__ import annotations

from collections.abc import Iterable

from livestep.pipeline.kafka.partitioners import (
    Partitioner,
    crc32_partition,
    fnv1a_partition,
    judge_placement,
    murmur2_partition,
)

PARTITIONS = 6
KEYS = [f"machine-{number}".encode() for number in range(60)]


def placed(keys: Iterable[bytes], partitioner: Partitioner) -> list[tuple[bytes, int]]:
    return [(key, partitioner(key, PARTITIONS)) for key in keys]


def test_keys_of_our_own_clients_are_where_they_belong() -> None:
    placement = judge_placement(placed(KEYS * 2, murmur2_partition), PARTITIONS)
    assert (placement.records, placement.keys, placement.misplaced) == (120, 60, {})
    assert not placement.is_wrong
    assert placement.text() == "all 60 keys of 120 recent records are where murmur2 puts them"


def test_two_clients_with_different_partitioners_are_found_by_keys_in_two_partitions() -> None:
    # Given each key written by a Java client and by one on librdkafka
    records = placed(KEYS, murmur2_partition) + placed(KEYS, crc32_partition)
    placement = judge_placement(records, PARTITIONS)

    # Then the keys on which they differ have two states
    differing = {
        key
        for key in KEYS
        if murmur2_partition(key, PARTITIONS) != crc32_partition(key, PARTITIONS)
    }
    assert placement.split == differing == set(placement.misplaced)
    assert placement.is_wrong
    text = placement.text()
    assert f"{len(differing)} of 60 keys ({len(differing)} of 120 recent records)" in text
    assert "They match CRC32, librdkafka's default: set partitioner=murmur2_random there" in text
    key = next(iter(placement.misplaced))
    crc32, murmur2 = (find(key, PARTITIONS) for find in (crc32_partition, murmur2_partition))
    assert f"{key.decode()!r} is in partition {crc32}, murmur2: {murmur2}" in text


def test_two_clients_are_found_even_if_no_key_is_seen_twice() -> None:
    records = placed(KEYS[:30], murmur2_partition) + placed(KEYS[30:], fnv1a_partition)
    placement = judge_placement(records, PARTITIONS)
    assert placement.split == frozenset()
    assert placement.is_wrong
    assert placement.others == ("FNV-1a, sarama's default",)


def test_one_other_partitioner_for_all_is_named_and_not_wrong() -> None:
    placement = judge_placement(placed(KEYS, crc32_partition), PARTITIONS)
    assert placement.misplaced
    assert not placement.is_wrong
    assert "All keys match CRC32, librdkafka's default" in placement.text()


def test_a_partitioner_of_ones_own_fits_none() -> None:
    placement = judge_placement(placed(KEYS, lambda key, count: key[-1] % count), PARTITIONS)
    assert placement.others == ()
    assert not placement.is_wrong
    assert "They match no common client's default" in placement.text()


def test_a_client_that_ignores_keys_is_found() -> None:
    records = [(key, number % PARTITIONS) for number, key in enumerate(KEYS[:10] * 7)]
    placement = judge_placement(records, PARTITIONS)
    assert placement.split == set(KEYS[:10])
    assert placement.is_wrong


def test_a_key_of_any_bytes_is_shown_in_ascii() -> None:
    key = b"\xff\n" + b"x" * 1_000
    other = (murmur2_partition(key, PARTITIONS) + 1) % PARTITIONS
    text = judge_placement([(key, other)], PARTITIONS).text()
    assert "\\xff\\nxxx" in text
    assert len(text) < 500
