"""librdkafka options: those that the operator passes through, and those that the engine sets."""

from __future__ import annotations

from typing import Any

from livestep.pipeline.settings import Settings

#: Options that the guarantees depend on; passing one through is an error.
RESERVED = frozenset(
    {
        "bootstrap.servers",
        "group.id",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "isolation.level",
        "transactional.id",
        "enable.idempotence",
        "enable.partition.eof",
    }
)

#: Options of the classic group protocol, which the newer protocol rejects.
_CLASSIC_GROUP = ("partition.assignment.strategy", "session.timeout.ms", "heartbeat.interval.ms")

#: KiB that librdkafka fetches ahead for all partitions of a consumer.
_PREFETCH_KIB = 65_536


def client_options(settings: Settings) -> dict[str, Any]:
    """Return the options of every client: the address, and the options passed through."""
    return {
        **settings.kafka_options,
        "bootstrap.servers": settings.bootstrap_servers,
        # Warnings go to Python's log, see `KafkaLog`.
        "log_level": int(settings.kafka_options.get("log_level", 4)),
    }


def consumer_options(settings: Settings) -> dict[str, Any]:
    """Return the options of the group's consumer."""
    options: dict[str, Any] = {
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": settings.session_timeout_ms,
        "heartbeat.interval.ms": max(settings.session_timeout_ms // 5, 200),
        "max.partition.fetch.bytes": 4 << 20,
        "fetch.wait.max.ms": 100,
        # With the default of 1 s, a consumer whose queue was full would pause for that long.
        "fetch.queue.backoff.ms": 5,
        "queued.max.messages.kbytes": _PREFETCH_KIB,
        # With the default of 5 min, new partitions would wait that long for their assignment.
        "topic.metadata.refresh.interval.ms": 5_000,
        **client_options(settings),
        "group.id": settings.group,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": settings.burst,
    }
    if options.get("group.protocol") == "consumer":
        # KIP-848: the broker decides on assignment and timeouts; a client must not set them.
        for name in _CLASSIC_GROUP:
            del options[name]
    if settings.group_instance_id:
        options["group.instance.id"] = settings.group_instance_id
    return options


def replay_options(settings: Settings) -> dict[str, Any]:
    """Return the options of a replay's consumer: manual assignment, no commits, end reported."""
    options = consumer_options(settings)
    for name in ("group.instance.id", "partition.assignment.strategy"):
        options.pop(name, None)
    return {**options, "group.id": f"{settings.group}.replay", "enable.partition.eof": True}


def producer_options(settings: Settings, transactional_id: str | None) -> dict[str, Any]:
    """Return the options of the producer; without a transactional id it is only idempotent."""
    options: dict[str, Any] = {
        "linger.ms": 1,
        "batch.size": 1 << 20,
        "batch.num.messages": 100_000,
        "queue.buffering.max.messages": 1_000_000,
        "message.max.bytes": 10 << 20,
        # With the default, every transaction that overlaps the end of the one before it
        # (CONCURRENT_TRANSACTIONS) would wait 100 ms.
        "retry.backoff.ms": 5,
        "retry.backoff.max.ms": 1_000,
        **client_options(settings),
        "enable.idempotence": True,
    }
    if transactional_id:
        options["transactional.id"] = transactional_id
        options["transaction.timeout.ms"] = settings.session_timeout_ms
    return options
