"""Where a publish continues, what a broker would refuse, and signals between rows."""

import os
import signal
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.publishing.columns import BadRow
from livestep.pipeline.publishing.interrupts import Interrupted, Interrupts
from livestep.pipeline.publishing.limits import TopicLimits
from livestep.pipeline.publishing.position import Position

KEYS = [b"k%d" % number for number in range(12)]


def record(number, key=b"k", timestamp_ms=None, value=b"1"):
    return EventRecord(number, number + 1, key, value, timestamp_ms)


# ---- positions


def partition_of(key, partition_count):
    """Find a key's partition with the positions themselves."""
    (found,) = (
        partition
        for partition in range(partition_count)
        if not Position(1, {partition: 0}, partition_count).has_done(record(1, key))
    )
    return found


def publish_once(records, position, row_count, broken_at, partition_count):
    """Deliver as the sender does: in a partition, nothing after an undelivered record.

    Returns:
        delivered: Numbers.
        position: Where to continue.
    """
    delivered, undelivered, broken = [], [], set()
    for one in records[:row_count]:
        if position.has_done(one):
            continue
        partition = partition_of(one.key, partition_count)
        if one.number in broken_at:
            broken.add(partition)
        (undelivered if partition in broken else delivered).append(one)
    numbers = [one.number for one in delivered]
    return numbers, position.after(row_count, undelivered, max(numbers, default=0))


@given(
    keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=60),
    partition_count=st.integers(1, 5),
    runs=st.lists(st.tuples(st.integers(0, 60), st.sets(st.integers(1, 60))), max_size=5),
)
def test_any_number_of_interrupted_publishes_loses_and_repeats_nothing(keys, partition_count, runs):
    # Given rows, and publishes that end anywhere with undelivered records
    records = [record(number, key) for number, key in enumerate(keys, start=1)]
    position = Position(partition_count=partition_count)
    delivered = []
    # When each continues where the previous one ended, and the last one runs to the end
    for row_count_max, broken_at in [*runs, (len(records), set())]:
        row_count = min(row_count_max, len(records))
        numbers, position = publish_once(records, position, row_count, broken_at, partition_count)
        delivered += numbers
        position = Position.parse(str(position), partition_count)
    # Then each row was delivered once, and the rows of a key in order
    assert sorted(delivered) == [one.number for one in records]
    by_key = defaultdict(list)
    for number in delivered:
        by_key[keys[number - 1]].append(number)
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    assert str(position) == str(len(records))


def test_one_number_is_enough_if_nothing_was_delivered_after_it():
    waiting = [record(5, b"k1"), record(6, b"k2"), record(7, b"k3")]
    assert str(Position(partition_count=4).after(7, waiting, 4)) == "4"


def test_a_bad_row_counts_as_done_with_the_rows_around_it():
    position = Position(5, {0: 1}, 1)
    assert position.has_done(BadRow(5, 6, None, "bad"))
    assert not position.has_done(BadRow(6, 7, None, "bad"))


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1,", "1,2", "1,0:2", "3,4:1", "٣", "1 "])
def test_an_invalid_position_is_refused(text):
    with pytest.raises(ValueError, match="rows|partitions"):
        Position.parse(text, partition_count=4)


# ---- limits

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


def limits(**settings):
    names = {name.replace("_", "."): value for name, value in settings.items()}
    found = TopicLimits.of({"max.message.bytes": "1000", **names})
    return TopicLimits(
        found.max_message_bytes, found.after_max_ms, found.before_max_ms, lambda: NOW_MS
    )


AFTER = {"message_timestamp_after_max_ms": "3600000"}
BEFORE = {"message_timestamp_before_max_ms": str(DAY_MS)}


@pytest.mark.parametrize(
    ("settings", "timestamp_ms", "reason"),
    [
        (AFTER, NOW_MS + 3_600_001, r"1700003600001 \(2023-11-14T23:13:20\+00:00\) is in the fut"),
        (AFTER, NOW_MS * 1000, "in the future: .*after.max.ms is 3,600,000"),
        (BEFORE, NOW_MS - DAY_MS - 1, "too old: .*before.max.ms is 86,400,000"),
        ({}, 2**63, "has more than 64 bits"),
        ({}, -1, "the timestamp is -1: Kafka needs times after 1970"),
        ({}, 0, "the timestamp is 0"),
        ({"message_timestamp_type": "LogAppendTime"}, -1, "the timestamp is -1"),
    ],
)
def test_a_time_that_the_broker_would_refuse_is_reported(settings, timestamp_ms, reason):
    with pytest.raises(ValueError, match=reason):
        limits(**settings).check(record(1, timestamp_ms=timestamp_ms))


@pytest.mark.parametrize(
    ("settings", "timestamp_ms"),
    [
        (AFTER, NOW_MS + 3_600_000),
        (BEFORE, NOW_MS - DAY_MS),
        ({}, 2**63 - 1),
        ({}, 1),
        (AFTER, None),
        ({**AFTER, "message_timestamp_type": "LogAppendTime"}, NOW_MS * 2),
        ({"message_timestamp_after_max_ms": str(2**63 - 1)}, NOW_MS * 1000),
    ],
)
def test_a_time_that_the_broker_accepts_passes(settings, timestamp_ms):
    limits(**settings).check(record(1, timestamp_ms=timestamp_ms))


def test_a_record_that_is_too_large_is_reported_with_the_limit():
    with pytest.raises(
        ValueError, match="has 1,0.. bytes, but the topic's max.message.bytes is 1,0"
    ):
        limits().check(record(1, value=b"x" * 1_000))
    compressed = TopicLimits.of({"max.message.bytes": "1000"}, is_compressed=True)
    compressed.check(record(1, value=b"x" * 1_000))


# ---- signals


def test_a_signal_between_rows_waits_until_it_is_checked():
    interrupts = Interrupts()
    with interrupts.caught():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM") as caught:
            interrupts.check()
    assert caught.value.number == signal.SIGTERM
    assert interrupts.count == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_waiting_for_a_line(number):
    interrupts = Interrupts()

    def lines():
        yield b"first"
        os.kill(os.getpid(), number)
        raise AssertionError("the signal should have come first")

    taken = []
    with interrupts.caught(), pytest.raises(Interrupted):
        for line in interrupts.each(lines()):
            taken.append(line)
    assert taken == [b"first"]


def test_handlers_are_restored_and_an_ignored_signal_remains_ignored():
    before = signal.getsignal(signal.SIGTERM)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interrupts = Interrupts()
        with interrupts.caught():
            assert signal.getsignal(signal.SIGTERM) is not before
            os.kill(os.getpid(), signal.SIGHUP)
            interrupts.check()
        assert signal.getsignal(signal.SIGTERM) is before
        assert interrupts.count == 0
    finally:
        signal.signal(signal.SIGHUP, hangup)
