"""Connections of kafka-python, the library of publishers and readers.

Hides how its clients are created and closed, where their security options come from, and its
exceptions: each failure is one clear error.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from kafka.errors import (
    AuthorizationError,
    BrokerResponseError,
    KafkaConfigurationError,
    KafkaError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
)

from livestep.pipeline.environment import kafka_options, read_variables
from livestep.pipeline.errors import BrokerError, ConfigError, MissingTopicError
from livestep.pipeline.kafka.security import (
    RIGHTS,
    kafka_python_options,
    keep_credentials_out_of_logs,
    with_tls_context,
)

#: Seconds to look for a broker before failing.
CONNECT_TIMEOUT_S = 10.0


def connect(
    client_class: Any,
    bootstrap_servers: str,
    *,
    timeout_s: float = CONNECT_TIMEOUT_S,
    **options: Any,
) -> Any:
    """Create a client and wait until it has found the brokers.

    Security options come from the `LIVESTEP_KAFKA_...` variables, as a worker's do, unless they are
    passed as arguments; with `security_protocol` as an argument, the variables are ignored.

    Args:
        client_class: KafkaConsumer, KafkaProducer or KafkaAdminClient.
        bootstrap_servers: host:port[,host:port...].
        timeout_s: How long to wait.
        options: Options of the client, with its own names; they override ours.

    Returns:
        client: Connected.

    Raises:
        BrokerError: If no broker answers in time, or it refuses this client.
        ConfigError: If an option is unknown or invalid.
    """
    keep_credentials_out_of_logs()
    if "security_protocol" not in options:
        options = {**kafka_python_options(kafka_options(read_variables(os.environ))), **options}
    options = with_tls_context(options)
    networks: list[Any] = []

    def open_network(**config: Any) -> Any:
        networks.append(client_class.DEFAULT_CONFIG["kafka_client"](**config))
        return networks[-1]

    with _failures() as failures:
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
            # A constructor that fails leaves its network thread running, which retries forever.
            for network in networks:
                network.close()
            raise _no_connection(bootstrap_servers, error, failures, options) from None
        except (ValueError, TypeError, AssertionError) as error:
            raise ConfigError(f"Kafka client: {error}") from None


def _no_connection(
    bootstrap_servers: str,
    error: KafkaError,
    failures: list[Exception],
    options: Mapping[str, Any],
) -> BrokerError:
    """Make an error that explains why the connection attempts failed."""
    refusals = [one for one in (error, *failures) if isinstance(one, SaslAuthenticationFailedError)]
    if refusals:
        return BrokerError(
            f"Kafka at {bootstrap_servers} refuses user {options.get('sasl_plain_username')!r}: "
            f"SASL authentication failed ({' '.join(str(refusals[0]).split())})"
        )
    tries = [one for one in failures if not isinstance(one, KafkaTimeoutError)]
    reason = cause(tries[-1] if tries else error)
    protocol = options.get("security_protocol", "PLAINTEXT")
    if protocol.startswith("SASL") and "refused" not in reason:
        # kafka-python 3.0 drops the broker's error if the connection is closed right after it.
        reason += "; SASL authentication with a wrong user, password or mechanism may end so"
    return BrokerError(
        f"no Kafka broker answers at {bootstrap_servers} with {protocol} ({reason}); check the "
        "address in --bootstrap-servers or LIVESTEP_BOOTSTRAP_SERVERS and the protocol in "
        "LIVESTEP_KAFKA_SECURITY_PROTOCOL"
    )


@contextlib.contextmanager
def _failures() -> Iterator[list[Exception]]:
    """Collect why connection attempts fail, which kafka-python only logs."""
    failures: list[Exception] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if isinstance(record.args, tuple):
                failures.extend(one for one in record.args if isinstance(one, Exception))

    log, collector = logging.getLogger("kafka.net.manager"), Collector(logging.WARNING)
    log.addHandler(collector)
    try:
        yield failures
    finally:
        log.removeHandler(collector)


@contextlib.contextmanager
def broker_errors(doing: str) -> Iterator[None]:
    """Convert errors of kafka-python to BrokerError.

    Args:
        doing: The failing action, for the message: "reading topic 'events'".
    """
    try:
        yield
    except KafkaError as error:
        raise BrokerError(f"{doing} failed: {cause(error)}") from error


def missing_topic(topic: str, bootstrap_servers: str) -> MissingTopicError:
    """Make the error for a missing topic."""
    return MissingTopicError(
        f"topic {topic!r} does not exist at {bootstrap_servers}; create it with "
        f"`livestep topics create {topic}`"
    )


def cause(error: BaseException) -> str:
    """Return the text of a client's error in one line."""
    # An error that a broker returned has no text, but its class has a description.
    text = getattr(error, "description", "") if isinstance(error, BrokerResponseError) else ""
    text = " ".join((text or str(error)).split())
    text = text.removeprefix("KafkaTimeoutError: ") or type(error).__name__
    return f"{text} {RIGHTS}" if isinstance(error, AuthorizationError) else text
