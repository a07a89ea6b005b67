"""What `livestep publish` has sent, as the broker has it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.clients.record_sender import DeliveryFailedError, RecordSender
from livestep.pipeline.kafka.topic_setup import end_offsets

#: Generous: what is waited for arrives at once.
WAIT_S = 60.0

#: Runs `livestep publish` with a file and options, to its end.
Publish = Callable[..., "subprocess.CompletedProcess[str]"]


def start_publish(bootstrap_servers: str, file: Path | str, *options: str) -> subprocess.Popen[str]:
    """Start `livestep publish` as a process; its standard input and error are pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "livestep.pipeline.cli", "publish", str(file), *options],
        env={**os.environ, "LIVESTEP_BOOTSTRAP_SERVERS": bootstrap_servers},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


#: Key of records that only test what the broker accepts.
PROBE = b"probe"


def reader(bootstrap_servers: str, topic: str) -> Consumer:
    """Create a consumer that starts at the beginning of each partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "never-commits"})
    partitions = consumer.list_topics(topic).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    return consumer


def wait_for(bootstrap_servers: str, topic: str, count: int) -> None:
    """Wait until a topic has this many records."""
    consumer = reader(bootstrap_servers, topic)
    try:
        for _ in range(count):
            message = consumer.poll(WAIT_S)
            assert message is not None and message.error() is None
    finally:
        consumer.close()


def read(bootstrap_servers: str, topic: str) -> dict[int, list[tuple[bytes, bytes]]]:
    """Read all records of a topic, except probes: keys and values by partition, in order."""
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
    """Count the records of a topic, except probes."""
    return sum(map(len, read(bootstrap_servers, topic).values()))


def is_refused(bootstrap_servers: str, topic: str, size: int) -> bool:
    """Return whether the broker already refuses a record of this size in bytes."""
    sender = RecordSender({"bootstrap.servers": bootstrap_servers}, topic)
    try:
        sender.send([EventRecord(1, 1, PROBE, b"x" * size)])
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
    """Return the --skip that a publish has printed."""
    (skip,) = re.findall(r"--skip (\S+) continues", stderr)
    return str(skip)


def published_count(stderr: str) -> int:
    """Return the number of events that a publish has printed."""
    (count,) = re.findall(r"published ([\d,]+) events", stderr)
    return int(count.replace(",", ""))
