"""Connecting with kafka-python, the client that users hold: one clear error instead of many kinds.

Hides: how a client of kafka-python is made and unmade, and its exceptions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from kafka.errors import BrokerResponseError, KafkaConfigurationError, KafkaError

from pipeline.errors import BrokerError, ConfigError

#: How long to look for a broker before saying that there is none.
CONNECT_TIMEOUT_S = 10.0


def connect(
    client_class: Any,
    bootstrap_servers: str,
    *,
    timeout_s: float = CONNECT_TIMEOUT_S,
    **options: Any,
) -> Any:
    """Make a client and wait until it has found the brokers.

    Args:
        client_class: KafkaConsumer, KafkaProducer or KafkaAdminClient.
        bootstrap_servers: host:port[,host:port...].
        timeout_s: How long to wait.
        options: Of the client, under its own names; they win over ours.

    Returns:
        client: Connected.

    Raises:
        BrokerError: If no broker answers in time, or it refuses.
        ConfigError: If the client has no such option, or not this value.
    """
    networks: list[Any] = []

    def open_network(**config: Any) -> Any:
        networks.append(client_class.DEFAULT_CONFIG["kafka_client"](**config))
        return networks[-1]

    try:
        return client_class(
            **{
                "bootstrap_servers": [name.strip() for name in bootstrap_servers.split(",")],
                "bootstrap_timeout_ms": int(timeout_s * 1000),
                "kafka_client": open_network,
                **options,
            }
        )
    except KafkaConfigurationError as error:
        raise ConfigError(f"Kafka client: {error}") from None
    except KafkaError as error:
        # A constructor that fails leaves its network thread running, retrying for ever.
        for network in networks:
            network.close()
        raise BrokerError(
            f"no Kafka broker answers at {bootstrap_servers} ({cause(error)}): start one there, "
            "or give another address by --bootstrap-servers or LIVESTEP_BOOTSTRAP_SERVERS"
        ) from None
    except (ValueError, TypeError, AssertionError) as error:
        raise ConfigError(f"Kafka client: {error}") from None


@contextlib.contextmanager
def broker_errors(doing: str) -> Iterator[None]:
    """Turn errors of kafka-python into BrokerError.

    Args:
        doing: What is being done, for the message: "reading topic 'events'".
    """
    try:
        yield
    except KafkaError as error:
        raise BrokerError(f"{doing} failed: {cause(error)}") from error


def missing_topic(topic: str, bootstrap_servers: str) -> BrokerError:
    """Make the error for a topic that isn't there."""
    return BrokerError(
        f"there is no topic {topic!r} at {bootstrap_servers}: create it by "
        f"`livestep topics create {topic}`"
    )


def cause(error: BaseException) -> str:
    """Say in one line what a client's error means."""
    # Errors that the broker answered with have no text of their own, but their class has.
    text = getattr(error, "description", "") if isinstance(error, BrokerResponseError) else ""
    text = " ".join((text or str(error)).split())
    return text.removeprefix("KafkaTimeoutError: ") or type(error).__name__
