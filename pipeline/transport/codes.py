"""librdkafka's own error codes, which its Python binding names with an underscore."""

# ruff: noqa: SLF001
from __future__ import annotations

from confluent_kafka import KafkaError

END_OF_PARTITION = KafkaError._PARTITION_EOF

#: This client's place was taken by another one, or it was away for too long.
FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
    }
)

#: No broker can be reached just now; librdkafka goes on trying.
OUT_OF_REACH = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT})
