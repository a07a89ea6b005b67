"""Groups of librdkafka error codes that need the same reaction, and their texts.

Codes that don't come from a broker start with an underscore in the Python binding.
"""

# ruff: noqa: SLF001
from __future__ import annotations

from confluent_kafka import KafkaError

from livestep.pipeline.kafka.security import RIGHTS

END_OF_PARTITION = KafkaError._PARTITION_EOF

#: A record can't be queued until others have been sent.
QUEUE_FULL = KafkaError._QUEUE_FULL

#: A record of the transaction was not delivered; its delivery report has the reason.
DELIVERY_FAILED = KafkaError._INCONSISTENT

#: The next offset to read is not in the log.
OUT_OF_RANGE = KafkaError._AUTO_OFFSET_RESET

#: Errors of reading a topic that was deleted or created again.
TOPIC_IS_OTHER = frozenset(
    {OUT_OF_RANGE, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}
)

#: Another client has replaced this one, or this one was inactive for too long.
FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
    }
)

#: Doesn't state the cause.
ALL_DOWN = KafkaError._ALL_BROKERS_DOWN

#: No broker can be reached at the moment; librdkafka keeps trying.
OUT_OF_REACH = frozenset({ALL_DOWN, KafkaError._TRANSPORT})

#: A partition has no leader or a group has no coordinator at the moment, or it has moved.
UNSETTLED = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)

#: The client lacks a permission; a retry can't succeed.
UNAUTHORIZED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)

#: The broker rejects this client: a wrong password, or a failed TLS handshake.
LOCKED_OUT = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)


def text_of(error: KafkaError) -> str:
    """Return the text of an error; for a missing permission, with the list of permissions needed.

    Example:
        >>> text_of(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
        'Broker: Topic authorization failed (...deploy/security/README.md lists the permissions ...'
    """
    return f"{error.str()} {RIGHTS}" if error.code() in UNAUTHORIZED else error.str()
