"""Kafka and Redis on this machine, the demo, and files for operators."""
