"""librdkafka's error codes by what they mean to us, and their texts.

Its own ones have an underscore before their name in the Python binding.
"""

# ruff: noqa: SLF001
from __future__ import annotations

from confluent_kafka import KafkaError

from livestep.pipeline.kafka.security import RIGHTS

END_OF_PARTITION = KafkaError._PARTITION_EOF

#: The offset to be read is not in the log.
OUT_OF_RANGE = KafkaError._AUTO_OFFSET_RESET

#: What reading says of a topic that was deleted, or created again.
TOPIC_IS_OTHER = frozenset(
    {OUT_OF_RANGE, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}
)

#: This client's place was taken by another one, or it was away for too long.
FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
    }
)

#: Says nothing of why.
ALL_DOWN = KafkaError._ALL_BROKERS_DOWN

#: No broker can be reached just now; librdkafka goes on trying.
OUT_OF_REACH = frozenset({ALL_DOWN, KafkaError._TRANSPORT})

#: A partition has no leader just now, or a group no coordinator, or another one than was asked.
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

#: The client lacks a right; asking again helps nobody.
UNAUTHORIZED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)

#: The broker is there, but this client can't come in: a wrong password, or another TLS than ours.
LOCKED_OUT = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)


def text_of(error: KafkaError) -> str:
    """Say what an error means; a missing right, where all rights are listed.

    Example:
        >>> text_of(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
        'Broker: Topic authorization failed (...deploy/security/README.md lists the rights ...'
    """
    return f"{error.str()} {RIGHTS}" if error.code() in UNAUTHORIZED else error.str()
