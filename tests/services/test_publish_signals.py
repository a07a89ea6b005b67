"""`livestep publish` on a real broker: a signal ends it with an exact count."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import CreateTopic, TopicNames
from tests.support.published import (
    WAIT_S,
    Publish,
    count_of,
    published_count,
    read,
    skip_of,
    start_publish,
    wait_for,
)


@pytest.fixture
def topic(create_topic: CreateTopic, topic_names: TopicNames) -> str:
    """A topic that keeps old events: Kafka deletes by the records' own time."""
    return create_topic(topic_names(), 4, retention_ms="-1")


@pytest.fixture
def waiting(bootstrap_servers: str, topic: str) -> Iterator[subprocess.Popen[str]]:
    """A publish that has sent three rows from a pipe and waits for more."""
    options = ("--format", "jsonl", "--topic", topic, "--key", "k")
    with start_publish(bootstrap_servers, "-", *options) as process:
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


def csv_rows(count: int) -> str:
    return "k,n\n" + "".join(f"m-{n % 40},{n}\n" for n in range(1, count + 1))


def json_rows(count: int) -> str:
    return "".join(f'{{"k":"m-{n % 40}","n":{n}}}\n' for n in range(1, count + 1))


@pytest.mark.parametrize(
    ("name", "rows_of", "count"),
    [("rows.csv", csv_rows, 200_000), ("rows.jsonl", json_rows, 500_000)],
    ids=["csv", "jsonl"],
)
def test_a_signal_in_a_large_file_causes_no_gap_and_no_repetition(
    publish: Publish,
    bootstrap_servers: str,
    topic: str,
    tmp_path: Path,
    name: str,
    rows_of: Callable[[int], str],
    count: int,
) -> None:
    # Given a publish of many rows
    file = tmp_path / name
    file.write_text(rows_of(count))
    options = ["--topic", topic, "--key", "k"]
    with start_publish(bootstrap_servers, file, *options) as process:
        assert process.stderr is not None
        wait_for(bootstrap_servers, topic, 1_000)
        # When it is stopped in the middle
        process.send_signal(signal.SIGTERM)
        stderr = process.stderr.read()
        assert process.wait(WAIT_S) == 143, stderr
    first = published_count(stderr)
    assert first == count_of(bootstrap_servers, topic) < count
    assert skip_of(stderr) == str(first)
    # Then the rest can be published
    again = publish(file, *options, "--skip", skip_of(stderr))
    assert published_count(again.stderr) == count - first
    numbers: Counter[bytes] = Counter()
    for records in read(bootstrap_servers, topic).values():
        numbers.update(value for _, value in records)
    assert numbers == Counter(b'{"n":%d}' % n for n in range(1, count + 1))


def test_a_terminal_shows_the_progress_and_the_time_that_is_left(
    bootstrap_servers: str, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json_rows(200_000))
    ours, terminal = pty.openpty()
    command = [sys.executable, "-m", "livestep.pipeline.cli", "publish", str(file)]
    options = ["--topic", topic, "--key", "k", "--bootstrap-servers", bootstrap_servers]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen([*command, *options], env=environment, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # how a terminal ends
            while part := os.read(ours, 65_536):
                shown += part
        os.close(ours)
    assert process.returncode == 0, shown
    plain = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", shown)
    assert re.search(rb"[1-9][0-9,]* lines .*left: 0:0", plain)
    assert b"published 200,000 events" in shown


def test_a_publish_with_a_rate_can_be_interrupted(
    bootstrap_servers: str, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("k,n\na,1\na,2\n")
    options = ("--topic", topic, "--key", "k", "--rate", "0.001")
    with start_publish(bootstrap_servers, file, *options) as process:
        assert process.stderr is not None
        wait_for(bootstrap_servers, topic, 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 130
        assert "published 1 events" in process.stderr.read()
