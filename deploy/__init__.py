"""Kafka and Redis on this machine, the demo, and what an operator needs beside the worker."""
