"""Events of the past on a topic that deletes them: publishing warns, and says how to keep them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from livestep.deploy.local.jars import kafka_jars
from livestep.deploy.local.kafka_broker import java_command
from tests.conftest import CreateTopic, TopicNames

WAIT_S = 120.0

WEEK_MS = 7 * 24 * 3600 * 1000


@pytest.fixture
def topic(create_topic: CreateTopic, topic_names: TopicNames) -> str:
    return create_topic(topic_names(), 2, retention_ms=str(WEEK_MS))


def publish(bootstrap_servers: str, topic: str, file: Path) -> list[str]:
    """Run `livestep publish`, and give the warnings that it prints."""
    options = ["--topic", topic, "--key", "machine", "--timestamp", "time"]
    done = subprocess.run(
        [sys.executable, "-m", "livestep.pipeline.cli", "publish", str(file), *options],
        env={**os.environ, "LIVESTEP_BOOTSTRAP_SERVERS": bootstrap_servers},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    assert "published 3 events" in done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("warning: ")]


def test_publishing_warns_of_expiring_events_until_the_command_it_shows_is_run(
    bootstrap_servers: str, topic: str, tmp_path: Path
) -> None:
    # Given two events of 2014, and one of now
    file = tmp_path / "events.csv"
    now_ms = round(time.time() * 1000)
    file.write_text(f"machine,time,load\na,2014-04-01,1\nb,{now_ms},2\nc,2014-04-02,3\n")

    # When they are published, then the first is named, and all are counted
    first, total = publish(bootstrap_servers, topic, file)
    assert "line 2: the time 2014-04-01T00:00:00Z is older than the retention of topic" in first
    assert f"(retention.ms={WEEK_MS}, 7 days)" in first
    assert "2 of 3 sent events are older" in total

    # When Kafka's own tool is run as is shown, then nothing is said any more
    command = shlex.split(first[first.index("kafka-configs.sh") : first.index("; or create")])
    java = [*java_command(tmp_path), "-cp", f"{kafka_jars()}/*", "kafka.admin.ConfigCommand"]
    changed = subprocess.run([*java, *command[1:]], capture_output=True, text=True, timeout=WAIT_S)
    assert changed.returncode == 0, changed.stdout + changed.stderr
    assert publish(bootstrap_servers, topic, file) == []
