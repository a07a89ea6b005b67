"""`livestep publish` on a real broker: bad rows, rejects, and where a publish continues."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.clients.record_sender import DeliveryFailedError, RecordSender
from livestep.pipeline.publishing.limits import batch_bytes
from tests.conftest import CreateTopic, TopicNames
from tests.support.published import Publish, count_of, read, skip_of


@pytest.fixture
def topic(create_topic: CreateTopic, topic_names: TopicNames) -> str:
    """A topic that keeps old events: Kafka deletes by the records' own time."""
    return create_topic(topic_names(), 4, retention_ms="-1")


# ---- what is found before anything is sent


def test_a_time_that_the_broker_would_refuse_is_reported_with_line_and_key(
    publish: Publish, bootstrap_servers: str, topic: str, tmp_path: Path
) -> None:
    # Given the second of three rows with microseconds instead of milliseconds
    file = tmp_path / "rows.csv"
    file.write_text("k,x,t\na,1,1700000000000\nb,2,1700000000000000\nc,3,1700000000000\n")
    options = ["--topic", topic, "--key", "k", "--timestamp", "t"]

    # When the file is published, then the row before it is in the topic, and the row is reported
    done = publish(file, *options)
    assert done.returncode == 1
    assert "line 3 (key 'b'): the timestamp 1700000000000000 is in the future" in done.stderr
    assert "message.timestamp.after.max.ms" in done.stderr
    assert f"published 1 events to topic '{topic}'" in done.stderr
    assert count_of(bootstrap_servers, topic) == 1

    # When the row is corrected and the publish continued, then each row is in the topic once
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


def test_of_many_rows_left_out_some_are_shown_and_all_are_listed(
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


def test_the_checked_size_is_the_one_that_the_broker_counts(
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
    sender.send([largest])
    sender.flush()
    with pytest.raises(DeliveryFailedError):
        sender.send([too_large])
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
    assert "line 2002 (key 'b'): the record has" in done.stderr
    assert "the topic's max.message.bytes is 1,000" in done.stderr
    assert "published 2,000 events" in done.stderr
    assert count_of(bootstrap_servers, small) == 2_000


# ---- continuing


def test_a_publish_can_continue_with_the_ends_of_its_keys(
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
def test_an_invalid_skip_is_wrong_usage(
    publish: Publish, topic: str, tmp_path: Path, skip: str
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("k,n\na,1\n")
    done = publish(file, "--topic", topic, "--key", "k", f"--skip={skip}")
    assert done.returncode == 2, done.stderr
    assert "--skip" in done.stderr


def test_a_skip_beyond_the_end_of_the_file_is_wrong_usage_and_reports_the_end(
    publish: Publish, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("k,n\na,1\n")
    done = publish(file, "--topic", topic, "--key", "k", "--skip", "5")
    assert done.returncode == 2
    assert "rows.csv has only 1 row" in done.stderr
    assert "--skip 1 would skip them all" in done.stderr


def test_rejects_remain_until_rows_are_sent_and_a_skip_appends_to_them(
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
