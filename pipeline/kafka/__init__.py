"""Kafka: the log that the engine reads and writes, topics, options, and security."""
