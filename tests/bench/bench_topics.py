"""Topics of the benchmark and their filling."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

PARTITIONS = 4

#: Of librdkafka: errors. It also warns of what a broker that has just started makes it try again.
LOG_LEVEL = 3

#: Java's partitioner, so that a key is where Java clients would put it.
PARTITIONER = "murmur2"

#: Records between two reports of progress.
REPORT_RECORDS = 20_000

#: How long the last records of a log may take.
FLUSH_TIMEOUT_S = 60.0

#: How long the broker may take for a change of topics.
ADMIN_TIMEOUT_S = 30.0


def create_topics(bootstrap_servers: str, *names: str) -> None:
    """Create topics with PARTITIONS partitions each; they must not exist."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": LOG_LEVEL})
    topics = [NewTopic(name, num_partitions=PARTITIONS, replication_factor=1) for name in names]
    for future in admin.create_topics(topics, operation_timeout=ADMIN_TIMEOUT_S).values():
        future.result(ADMIN_TIMEOUT_S)


def delete_topics(bootstrap_servers: str, *names: str) -> None:
    """Delete topics; the broker's disk is freed soon after."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": LOG_LEVEL})
    for future in admin.delete_topics(list(names), operation_timeout=ADMIN_TIMEOUT_S).values():
        future.result(ADMIN_TIMEOUT_S)


def make_producer(bootstrap_servers: str, linger_ms: int) -> Producer:
    """Make the producer that publishes events; idempotent, so none is lost or doubled."""
    return Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "log_level": LOG_LEVEL,
            "partitioner": PARTITIONER,
            "enable.idempotence": True,
            "linger.ms": linger_ms,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 1_000_000,
        }
    )


def fill_topic(
    bootstrap_servers: str,
    topic: str,
    records: Iterable[tuple[bytes, bytes]],
    on_progress: Callable[[int], None],
) -> None:
    """Publish a whole log.

    Args:
        bootstrap_servers: The broker.
        topic: Exists.
        records: Key and value of each.
        on_progress: Called with the number of records published so far.

    Raises:
        RuntimeError: If not all records were delivered.
    """
    producer = make_producer(bootstrap_servers, linger_ms=50)
    count = 0
    for key, value in records:
        producer.produce(topic, value=value, key=key)
        count += 1
        if count % REPORT_RECORDS == 0:
            producer.poll(0)
            on_progress(count)
    if producer.flush(FLUSH_TIMEOUT_S):
        raise RuntimeError(f"{topic}: not all events could be published")
    on_progress(count)
