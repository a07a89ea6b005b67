"""`livestep publish` on a real broker that refuses records: exact counts, and what is left out."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.clients.record_sender import DeliveryFailedError, RecordSender, SilenceError
from tests.conftest import CreateTopic, TopicNames
from tests.support.published import (
    WAIT_S,
    Publish,
    alter,
    count_of,
    is_refused,
    published_count,
    read,
    skip_of,
    start_publish,
    wait_for,
)

#: Neither a divisor of the counts nor a multiple of a batch.
SENT_AT_ONCE = 997


@pytest.fixture
def topic(create_topic: CreateTopic, topic_names: TopicNames) -> str:
    """A topic that keeps old events: Kafka deletes by the records' own time."""
    return create_topic(topic_names(), 4, retention_ms="-1")


@pytest.fixture
def refusing(
    bootstrap_servers: str, create_topic: CreateTopic, topic_names: TopicNames
) -> Callable[[int], tuple[str, RecordSender]]:
    """A maker of a topic, and of a sender that does not know what the topic refuses."""

    def make(partitions: int) -> tuple[str, RecordSender]:
        name = create_topic(topic_names(), partitions, retention_ms="-1")
        return name, RecordSender({"bootstrap.servers": bootstrap_servers}, name)

    return make


def record(number: int, *, is_good: bool = True) -> EventRecord:
    timestamp_ms = 1_700_000_000_000 if is_good else 1_700_000_000_000_000
    return EventRecord(number, number + 1, b"k%d" % (number % 50), b"%d" % number, timestamp_ms)


@pytest.mark.parametrize(
    ("partitions", "count", "bad"),
    [
        (4, 200_000, [100_000]),
        (1, 20_000, [10_000]),
        (4, 20_000, [10_000, 10_002, 10_150]),
        (4, 20_000, [1]),
        (4, 20_000, [20_000]),
    ],
)
def test_a_record_that_the_broker_refuses_is_found_and_the_count_is_exact(
    refusing: Callable[[int], tuple[str, RecordSender]],
    bootstrap_servers: str,
    partitions: int,
    count: int,
    bad: list[int],
) -> None:
    # Given records of 50 keys, some of which the broker will refuse
    topic, sender = refusing(partitions)

    # When they are sent
    refusal = None
    try:
        for start in range(1, count + 1, SENT_AT_ONCE):
            numbers = range(start, min(start + SENT_AT_ONCE, count + 1))
            sender.send([record(number, is_good=number not in bad) for number in numbers])
        sender.flush()
    except DeliveryFailedError:
        refusal = sender.recover()

    # Then the first one is reported, and the count is that of the topic
    assert refusal is not None
    assert refusal.record.number == bad[0]
    assert refusal.is_of_the_record
    assert "timestamp" in refusal.reason
    found = read(bootstrap_servers, topic)
    assert sum(map(len, found.values())) == sender.delivered_count >= bad[0] - 1

    # And the topic has the first records of each partition, in order, with all before the bad one
    missing = {one.number for one in sender.undelivered}
    for records in found.values():
        numbers = [int(value) for _, value in records]
        assert numbers == sorted(set(numbers))
    there = {int(value) for records in found.values() for _, value in records}
    assert set(range(1, bad[0])) <= there
    assert not there & missing
    last_of_key = {number % 50: number for number in sorted(there)}
    assert all(last_of_key.get(number % 50, 0) < number for number in missing)


def test_records_after_refused_ones_can_be_sent(
    refusing: Callable[[int], tuple[str, RecordSender]], bootstrap_servers: str
) -> None:
    topic, sender = refusing(2)
    bad = [300, 301, 900]
    left_out = []
    for number in range(1, 1_001):
        try:
            sender.send([record(number, is_good=number not in bad)])
            if number == 1_000:
                sender.flush()
        except DeliveryFailedError:
            while (refusal := sender.recover()) is not None:
                left_out.append(refusal.record.number)
                sender.leave_out(refusal.record)
    assert left_out == bad
    assert sender.delivered_count == 997
    found = read(bootstrap_servers, topic)
    assert sum(map(len, found.values())) == 997
    for records in found.values():
        numbers = [int(value) for _, value in records]
        assert numbers == sorted(set(numbers))


def test_a_publish_continues_after_a_refusal_without_loss_or_repetition(
    publish: Publish, bootstrap_servers: str, topic: str, tmp_path: Path
) -> None:
    """The limit of the topic is lowered while rows wait in standard input."""
    # Given a publish that has read the topic's settings
    rows = [
        f"m-{number % 40},{number},{'x' * (2_000 if number == 3_000 else 20)}\n"
        for number in range(1, 6_001)
    ]
    options = ("--format", "csv", "--topic", topic, "--key", "k")
    with start_publish(bootstrap_servers, "-", *options) as process:
        assert process.stdin is not None
        process.stdin.write("k,n,text\n" + "".join(rows[:100]))
        process.stdin.flush()
        wait_for(bootstrap_servers, topic, 100)
        # When the broker starts to refuse one of the next rows
        alter(bootstrap_servers, topic, max_message_bytes="1500")
        while not is_refused(bootstrap_servers, topic, 2_000):
            pass
        _, stderr = process.communicate("".join(rows[100:]), WAIT_S)
        # Then the row is reported, and the count is that of the topic
        assert process.returncode == 4, stderr
    assert "standard input, line 3001 (key 'm-0'): Kafka refused it" in stderr
    assert published_count(stderr) == count_of(bootstrap_servers, topic)

    # When the row is corrected and the rest published
    file = tmp_path / "rows.csv"
    file.write_text("k,n,text\n" + "".join(rows).replace("x" * 2_000, "x"))
    again = publish(file, "--topic", topic, "--key", "k", "--skip", skip_of(stderr))
    assert again.returncode == 0, again.stderr
    # Then each row is in the topic once, and the rows of a key are in order
    by_key: dict[bytes, list[int]] = {}
    for records in read(bootstrap_servers, topic).values():
        for key, value in records:
            by_key.setdefault(key, []).append(int(re.findall(rb'"n":(\d+)', value)[0]))
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    everything = Counter(number for numbers in by_key.values() for number in numbers)
    assert everything == Counter(range(1, 6_001))


def test_a_broker_that_does_not_respond_leaves_unanswered_records(
    bootstrap_servers: str, topic: str
) -> None:
    """At the sender, whose time limit can be shorter than the command's."""
    is_hurried = threading.Event()
    sender = RecordSender({"bootstrap.servers": "127.0.0.1:1"}, topic, is_hurried=is_hurried.is_set)
    sender.send([record(1)])
    is_hurried.set()
    with pytest.raises(SilenceError, match="Kafka does not respond"):
        sender.flush()
    assert [one.number for one in sender.unanswered] == [1]
    assert sender.delivered_count == 0
    with pytest.raises(SilenceError, match="Kafka does not respond"):
        sender.flush()
