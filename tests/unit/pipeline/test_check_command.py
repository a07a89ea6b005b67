"""`livestep check` where there are no services: one line for each cause, and nothing between."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from livestep import GRU, save_model
from livestep.pipeline.engine.retention import compaction_warning
from livestep.pipeline.native import loops_text
from livestep.pipeline.settings import Settings


def test_a_broker_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    save_model(GRU(2, 4, 1), tmp_path)
    nowhere = "127.0.0.1:1"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "livestep.pipeline.cli", "check", "--model", str(tmp_path)),
            *("--input-topic", "in", "--output-topic", "out", "--guarantee", "exactly-once"),
            *("--bootstrap-servers", nowhere, "--redis-url", f"redis://{nowhere}"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[3],
        env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr == ""
    lines = {line[8:].partition(":")[0]: line for line in done.stdout.splitlines()}
    assert lines["Kafka"].startswith(f"wrong   Kafka: no Kafka broker answers at {nowhere} with")
    assert "Connection refused" in lines["Kafka"]
    assert lines["Redis"].startswith(f"wrong   Redis: Redis at {nowhere}")
    assert len(done.stdout.splitlines()) == 9
    assert lines["topics"] == "skipped topics: needs Kafka"
    assert lines["transactions"] == "skipped transactions: needs Kafka"
    assert lines["loops"] == f"ok      loops: {loops_text()}"
    for name in ("beginning", "keys", "events"):
        assert lines[name] == f"skipped {name}: needs topics"


def test_settings_with_other_kafka_options_have_the_same_credentials() -> None:
    url = "redis://me:secret@localhost:6379/0"
    given = Settings(model="m", input_topic="in", output_topic="out", redis_url=url)
    replaced = dataclasses.replace(given, kafka_options={"log_level": "0"})
    assert replaced.redis_credentials == given.redis_credentials
    assert replaced.redis_credentials.username == "me"


@pytest.mark.parametrize("policy", ["compact", "compact,delete", "delete,compact"])
def test_a_compacted_topic_is_a_warning_with_the_way_out(policy: str) -> None:
    text = compaction_warning("readings", policy)
    assert text is not None
    assert text.startswith(f"topic readings is compacted (cleanup.policy={policy}): ")
    assert text.endswith("set cleanup.policy=delete")
    assert compaction_warning("readings", "delete") is None
