"""The worker's road to Kafka: `KafkaLog` is the seam's implementation, `Transport` is Faust's."""

from pipeline.transport.kafka import KafkaLog

__all__ = ["KafkaLog"]
