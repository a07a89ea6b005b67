"""Topics of the benchmark and their filling."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from confluent_kafka.admin import AdminClient

from tests.support.rig.kafka_clients import LOG_LEVEL, flush, make_producer

PARTITIONS = 4

#: Records between two reports of progress.
REPORT_RECORDS = 20_000

#: How long the broker may take for a change of topics.
ADMIN_TIMEOUT_S = 30.0


def delete_topics(bootstrap_servers: str, *names: str) -> None:
    """Delete topics; the broker's disk is freed soon after."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": LOG_LEVEL})
    for future in admin.delete_topics(list(names), operation_timeout=ADMIN_TIMEOUT_S).values():
        future.result(ADMIN_TIMEOUT_S)


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
    producer = make_producer(bootstrap_servers, **{"linger.ms": 50})
    count = 0
    for key, value in records:
        producer.produce(topic, value=value, key=key)
        count += 1
        if count % REPORT_RECORDS == 0:
            producer.poll(0)
            on_progress(count)
    flush(producer)
    on_progress(count)
