"""`livestep publish` on a real broker: exact counts, refusals, and going on where it ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from livestep.pipeline.kafka.topic_setup import end_offsets
from livestep.pipeline.publishing.columns import EventRecord
from livestep.pipeline.publishing.limits import batch_bytes
from livestep.pipeline.publishing.sender import DeliveryFailedError, RecordSender, SilenceError
from tests.conftest import CreateTopic, TopicNames

#: Generous: what is waited for comes at once.
WAIT_S = 60.0

Publish = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def publish(bootstrap_servers: str) -> Publish:
    """Run `livestep publish` as a process of its own."""

    def run(file: Path | str, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "livestep.pipeline.cli", "publish", str(file), *options],
            env={**os.environ, "LIVESTEP_BOOTSTRAP_SERVERS": bootstrap_servers, **settings},
            capture_output=True,
            text=True,
            timeout=WAIT_S * 3,
        )

    return run


@pytest.fixture
def topic(create_topic: CreateTopic, topic_names: TopicNames) -> str:
    # Kafka deletes by the records' own time.
    return create_topic(topic_names(), 4, retention_ms="-1")


#: Of records that test what the broker accepts.
PROBE = b"probe"


def reader(bootstrap_servers: str, topic: str) -> Consumer:
    """Make a consumer that begins at the start of each partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "never-commits"})
    partitions = consumer.list_topics(topic).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    return consumer


def wait_for(bootstrap_servers: str, topic: str, count: int) -> None:
    """Wait until a topic has so many records."""
    consumer = reader(bootstrap_servers, topic)
    try:
        for _ in range(count):
            message = consumer.poll(WAIT_S)
            assert message is not None and message.error() is None
    finally:
        consumer.close()


def read(bootstrap_servers: str, topic: str) -> dict[int, list[tuple[bytes, bytes]]]:
    """Read all that a topic has, but for probes: keys and values by partition, in order."""
    ends = end_offsets(bootstrap_servers, topic)
    found: dict[int, list[tuple[bytes, bytes]]] = {partition: [] for partition in ends}
    left = sum(ends.values())
    consumer = reader(bootstrap_servers, topic)
    try:
        while left:
            messages = consumer.consume(min(left, 10_000), WAIT_S)
            assert messages
            left -= len(messages)
            for message in messages:
                assert message.error() is None
                if message.key() != PROBE:
                    found[message.partition()].append((message.key(), message.value()))
    finally:
        consumer.close()
    return found


def count_of(bootstrap_servers: str, topic: str) -> int:
    return sum(map(len, read(bootstrap_servers, topic).values()))


def is_refused(bootstrap_servers: str, topic: str, size: int) -> bool:
    """Tell whether the broker refuses a record of so many bytes by now."""
    sender = RecordSender({"bootstrap.servers": bootstrap_servers}, topic)
    try:
        sender.send(EventRecord(1, 1, PROBE, b"x" * size))
        sender.flush()
    except DeliveryFailedError:
        return True
    return False


def alter(bootstrap_servers: str, topic: str, **settings: str) -> None:
    """Change settings of a topic."""
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in settings.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=entries)
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(WAIT_S)


def skip_of(stderr: str) -> str:
    """Take the --skip that a publish has named."""
    (skip,) = re.findall(r"--skip (\S+) continues", stderr)
    return str(skip)


def published_count(stderr: str) -> int:
    (count,) = re.findall(r"published ([\d,]+) events", stderr)
    return int(count.replace(",", ""))


# ---- what is known before anything is sent


def test_a_time_that_the_broker_would_refuse_is_named_with_line_and_key(
    publish: Publish, bootstrap_servers: str, topic: str, tmp_path: Path
) -> None:
    # Given the second of three rows with microseconds in the place of milliseconds
    file = tmp_path / "rows.csv"
    file.write_text("k,x,t\na,1,1700000000000\nb,2,1700000000000000\nc,3,1700000000000\n")
    options = ["--topic", topic, "--key", "k", "--timestamp", "t"]

    # When it is published, then the row before it is there, and the row is named
    done = publish(file, *options)
    assert done.returncode == 1
    assert "line 3 (key 'b'): the timestamp 1700000000000000 is in the future" in done.stderr
    assert "message.timestamp.after.max.ms" in done.stderr
    assert f"published 1 events to topic '{topic}'" in done.stderr
    assert count_of(bootstrap_servers, topic) == 1

    # When the row is corrected and published from there, then each row is there once
    file.write_text(file.read_text().replace("1700000000000000", "1700000000000"))
    again = publish(file, *options, "--skip", skip_of(done.stderr))
    assert again.returncode == 0, again.stderr
    assert "all 3 rows are done: --skip 3" in again.stderr
    records = [record for part in read(bootstrap_servers, topic).values() for record in part]
    assert sorted(records) == [(b"a", b'{"x":1}'), (b"b", b'{"x":2}'), (b"c", b'{"x":3}')]


def test_rows_that_cant_be_sent_are_left_out_and_listed(
    publish: Publish, bootstrap_servers: str, topic: str, tmp_path: Path
) -> None:
    file, rejects = tmp_path / "rows.csv", tmp_path / "rejects.jsonl"
    file.write_text("k,x,t\na,1,5\nb,2,soon\nc,3,7\nd\ne,5,9\n")
    options = ["--topic", topic, "--key", "k", "--timestamp", "t", "--on-error", "skip"]
    done = publish(file, *options, "--rejects", str(rejects))
    assert done.returncode == 1
    assert "published 3 events" in done.stderr
    assert "2 rows left out; all 5 rows are done: --skip 5" in done.stderr
    assert "left out: line 3 (key 'b'): 't' is 'soon'" in done.stderr
    assert rejects.read_text() == (
        '{"row":2,"line":3,"key":"b","reason":"\'t\' is \'soon\', neither milliseconds since 1970 '
        'nor an ISO 8601 date and time"}\n'
        '{"row":4,"line":5,"key":null,"reason":"1 cells, but the header has 3 columns"}\n'
    )
    assert count_of(bootstrap_servers, topic) == 3


def test_many_rows_left_out_are_shown_in_part_and_listed_whole(
    publish: Publish, topic: str, tmp_path: Path
) -> None:
    file, rejects = tmp_path / "rows.jsonl", tmp_path / "rejects.jsonl"
    file.write_text("{\n" * 500 + '{"k":"a"}\n')
    options = ["--topic", topic, "--key", "k", "--on-error", "skip", "--rejects", str(rejects)]
    done = publish(file, *options)
    assert done.stderr.count("left out: line") == 20
    assert "published 1 events" in done.stderr
    assert "500 rows left out, 20 of them shown" in done.stderr
    assert len(rejects.read_text().splitlines()) == 500


def test_the_size_that_is_checked_is_the_one_that_the_broker_counts(
    bootstrap_servers: str, create_topic: CreateTopic, topic_names: TopicNames
) -> None:
    limit = 1_000
    small = create_topic(topic_names(), 1, max_message_bytes=str(limit))
    headers = [("sequence", b"end")]

    def record_of(size: int) -> EventRecord:
        record = EventRecord(size, size, b"key", b"", None, headers)
        filler = b"x" * (size - batch_bytes(record) - 2)  # two longer lengths
        return EventRecord(size, size, b"key", filler, None, headers)

    options = {"bootstrap.servers": bootstrap_servers}
    largest, too_large = record_of(limit), record_of(limit + 1)
    assert (batch_bytes(largest), batch_bytes(too_large)) == (limit, limit + 1)
    sender = RecordSender(options, small, limit)
    sender.send(largest)
    sender.flush()
    with pytest.raises(DeliveryFailedError):
        sender.send(too_large)
        sender.flush()
    assert sender.delivered_count == 1


def test_batches_keep_to_a_small_limit_of_the_topic(
    publish: Publish,
    bootstrap_servers: str,
    create_topic: CreateTopic,
    topic_names: TopicNames,
    tmp_path: Path,
) -> None:
    small = create_topic(topic_names(), 1, max_message_bytes="1000")
    file = tmp_path / "rows.csv"
    file.write_text("k,x\n" + "".join(f"a,{n}\n" for n in range(2_000)) + f"b,{'y' * 1000}\n")
    done = publish(file, "--topic", small, "--key", "k")
    assert done.returncode == 1
    assert "line 2002 (key 'b'): the record takes" in done.stderr
    assert "the topic's max.message.bytes is 1,000" in done.stderr
    assert "published 2,000 events" in done.stderr
    assert count_of(bootstrap_servers, small) == 2_000


# ---- what only the broker knows


@pytest.fixture
def refusing(
    bootstrap_servers: str, create_topic: CreateTopic, topic_names: TopicNames
) -> Callable[[int], tuple[str, RecordSender]]:
    """A maker of a topic and a sender that does not know what the topic refuses."""

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
        for number in range(1, count + 1):
            sender.send(record(number, is_good=number not in bad))
        sender.flush()
    except DeliveryFailedError:
        refusal = sender.recover()

    # Then the first one is named, and the count is what the topic has
    assert refusal is not None
    assert refusal.record.number == bad[0]
    assert refusal.is_of_the_record
    assert "timestamp" in refusal.reason
    found = read(bootstrap_servers, topic)
    assert sum(map(len, found.values())) == sender.delivered_count >= bad[0] - 1

    # And of each partition the first part is there, in order, with all that comes before the bad
    missing = {one.number for one in sender.undelivered}
    for records in found.values():
        numbers = [int(value) for _, value in records]
        assert numbers == sorted(set(numbers))
    there = {int(value) for records in found.values() for _, value in records}
    assert set(range(1, bad[0])) <= there
    assert not there & missing
    for number in missing:
        key = b"k%d" % (number % 50)
        assert max((n for n in there if b"k%d" % (n % 50) == key), default=0) < number


def test_records_behind_those_that_the_broker_refuses_can_be_sent(
    refusing: Callable[[int], tuple[str, RecordSender]], bootstrap_servers: str
) -> None:
    topic, sender = refusing(2)
    bad = [300, 301, 900]
    left_out = []
    for number in range(1, 1_001):
        try:
            sender.send(record(number, is_good=number not in bad))
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


def test_a_publish_goes_on_after_a_refusal_without_loss_or_repetition(
    publish: Publish, bootstrap_servers: str, topic: str, tmp_path: Path
) -> None:
    """The topic's limit gets smaller while rows wait in standard input."""
    # Given a publish that has read the topic's settings
    rows = [
        f"m-{number % 40},{number},{'x' * (2_000 if number == 3_000 else 20)}\n"
        for number in range(1, 6_001)
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "livestep.pipeline.cli", "publish", "-", "--format", "csv"]
        + ["--topic", topic, "--key", "k"],
        env={**os.environ, "LIVESTEP_BOOTSTRAP_SERVERS": bootstrap_servers},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        process.stdin.write("k,n,text\n" + "".join(rows[:100]))
        process.stdin.flush()
        wait_for(bootstrap_servers, topic, 100)
        # When the broker begins to refuse one of the rows that follow
        alter(bootstrap_servers, topic, max_message_bytes="1500")
        while not is_refused(bootstrap_servers, topic, 2_000):
            pass
        _, stderr = process.communicate("".join(rows[100:]), WAIT_S)
        # Then the row is named, and the count is what the topic has
        assert process.returncode == 4, stderr
    assert "standard input, line 3001 (key 'm-0'): Kafka refused it" in stderr
    assert published_count(stderr) == count_of(bootstrap_servers, topic)

    # When the row is corrected and the rest published
    file = tmp_path / "rows.csv"
    file.write_text("k,n,text\n" + "".join(rows).replace("x" * 2_000, "x"))
    again = publish(file, "--topic", topic, "--key", "k", "--skip", skip_of(stderr))
    assert again.returncode == 0, again.stderr
    # Then each row is there once, and those of a key in their order
    by_key: dict[bytes, list[int]] = {}
    for records in read(bootstrap_servers, topic).values():
        for key, value in records:
            by_key.setdefault(key, []).append(int(re.findall(rb'"n":(\d+)', value)[0]))
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    everything = Counter(number for numbers in by_key.values() for number in numbers)
    assert everything == Counter(range(1, 6_001))


# ---- signals


@pytest.fixture
def waiting(bootstrap_servers: str, topic: str) -> Iterator[subprocess.Popen[str]]:
    """A publish that has sent three rows of a pipe and waits for more."""
    with subprocess.Popen(
        [sys.executable, "-m", "livestep.pipeline.cli", "publish", "-", "--format", "jsonl"]
        + ["--topic", topic, "--key", "k"],
        env={**os.environ, "LIVESTEP_BOOTSTRAP_SERVERS": bootstrap_servers},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        process.stdin.write('{"k":"a"}\n{"k":"b"}\n{"k":"c"}\n')
        process.stdin.flush()
        wait_for(bootstrap_servers, topic, 3)
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_a_publish_with_its_count(
    waiting: subprocess.Popen[str], topic: str, number: signal.Signals, code: int
) -> None:
    waiting.send_signal(number)
    assert waiting.wait(WAIT_S) == code
    assert waiting.stderr is not None
    stderr = waiting.stderr.read()
    assert f"published 3 events to topic '{topic}'" in stderr
    assert "not all rows are done: --skip 3 continues from here" in stderr
    assert f"stopped by {number.name}" in stderr
    assert "Traceback" not in stderr


def test_a_signal_in_a_large_file_leaves_neither_gap_nor_repetition(
    publish: Publish, bootstrap_servers: str, topic: str, tmp_path: Path
) -> None:
    # Given a publish of many rows
    file = tmp_path / "rows.csv"
    count = 200_000
    file.write_text("k,n\n" + "".join(f"m-{n % 40},{n}\n" for n in range(1, count + 1)))
    options = ["--topic", topic, "--key", "k"]
    with subprocess.Popen(
        [sys.executable, "-m", "livestep.pipeline.cli", "publish", str(file), *options],
        env={**os.environ, "LIVESTEP_BOOTSTRAP_SERVERS": bootstrap_servers},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        wait_for(bootstrap_servers, topic, 1_000)
        # When it is stopped in the middle
        process.send_signal(signal.SIGTERM)
        stderr = process.stderr.read()
        assert process.wait(WAIT_S) == 143, stderr
    first = published_count(stderr)
    assert first == count_of(bootstrap_servers, topic) < count
    assert skip_of(stderr) == str(first)
    # Then the rest can follow
    again = publish(file, *options, "--skip", skip_of(stderr))
    assert published_count(again.stderr) == count - first
    numbers: Counter[bytes] = Counter()
    for records in read(bootstrap_servers, topic).values():
        numbers.update(value for _, value in records)
    assert numbers == Counter(b'{"n":%d}' % n for n in range(1, count + 1))


def test_a_pace_can_be_interrupted(bootstrap_servers: str, topic: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("k,n\na,1\na,2\n")
    with subprocess.Popen(
        [sys.executable, "-m", "livestep.pipeline.cli", "publish", str(file)]
        + ["--topic", topic, "--key", "k", "--rate", "0.001"],
        env={**os.environ, "LIVESTEP_BOOTSTRAP_SERVERS": bootstrap_servers},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        wait_for(bootstrap_servers, topic, 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 130
        assert "published 1 events" in process.stderr.read()


# ---- going on


def test_what_was_ended_can_go_on_with_the_ends_of_its_keys(
    publish: Publish, bootstrap_servers: str, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("k,n\na,1\nb,2\n")
    options = ["--topic", topic, "--key", "k", "--end-each-key"]
    done = publish(file, *options)
    assert "published 4 events" in done.stderr
    assert "all 4 rows are done: --skip 4" in done.stderr
    again = publish(file, *options, "--skip", "3")
    assert "published 1 events" in again.stderr
    found = [record for records in read(bootstrap_servers, topic).values() for record in records]
    assert Counter(found) == Counter(
        {(b"a", b'{"n":1}'): 1, (b"b", b'{"n":2}'): 1, (b"a", b""): 1, (b"b", b""): 2}
    )


@pytest.mark.parametrize("skip", ["-1", "x", "3,9:1", "3,0:4", ""])
def test_a_skip_that_cant_be_read_is_wrong_usage(
    publish: Publish, topic: str, tmp_path: Path, skip: str
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("k,n\na,1\n")
    done = publish(file, "--topic", topic, "--key", "k", f"--skip={skip}")
    assert done.returncode == 2, done.stderr
    assert "--skip" in done.stderr


def test_a_skip_beyond_the_end_of_the_file_is_wrong_usage_and_names_the_end(
    publish: Publish, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("k,n\na,1\n")
    done = publish(file, "--topic", topic, "--key", "k", "--skip", "5")
    assert done.returncode == 2
    assert "rows.csv has only 1 row" in done.stderr
    assert "--skip 1 is after the last one" in done.stderr


def test_rejects_stay_until_rows_are_sent_and_are_added_to_by_a_skip(
    publish: Publish, topic: str, tmp_path: Path
) -> None:
    file, rejects = tmp_path / "rows.csv", tmp_path / "rejects.jsonl"
    file.write_text("k,n\na,1,2\nb,2\nc\n")
    rejects.write_text('{"row":1}\n')
    options = ["--key", "k", "--on-error", "skip", "--rejects", str(rejects)]
    done = publish(file, "--topic", f"{topic}-missing", *options)
    assert (done.returncode, rejects.read_text()) == (3, '{"row":1}\n')
    done = publish(file, "--topic", topic, *options, "--skip", "1")
    assert done.returncode == 1
    first, second = rejects.read_text().splitlines()
    assert first == '{"row":1}'
    assert second.startswith('{"row":3,')
    done = publish(file, "--topic", topic, *options)
    assert [line[:8] for line in rejects.read_text().splitlines()] == ['{"row":1', '{"row":3']


def test_a_broker_that_goes_away_ends_it_with_what_is_not_known(
    bootstrap_servers: str, topic: str
) -> None:
    """Seen from the sender, whose patience can be shorter than the command's."""
    is_hurried = threading.Event()
    sender = RecordSender({"bootstrap.servers": "127.0.0.1:1"}, topic, is_hurried=is_hurried.is_set)
    sender.send(record(1))
    is_hurried.set()
    with pytest.raises(SilenceError, match="Kafka does not answer"):
        sender.flush()
    assert [one.number for one in sender.unanswered] == [1]
    assert sender.delivered_count == 0
    with pytest.raises(SilenceError, match="Kafka does not answer"):
        sender.flush()
