"""Kafka: the log that the engine reads and writes, topics, client options, and security."""
