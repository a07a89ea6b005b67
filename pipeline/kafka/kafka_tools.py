"""Commands of Kafka's own tools, for tasks that Livestep has no command for."""

from __future__ import annotations

from collections.abc import Mapping


def alter_command(bootstrap_servers: str, topic: str, config: Mapping[str, str]) -> str:
    """Return the command that changes settings of an existing topic.

    Example:
        >>> alter_command("kafka:9092", "readings", {"retention.ms": "-1"}).split(" --")[-2:]
        ['topic readings', 'add-config retention.ms=-1']
    """
    settings = ",".join(f"{name}={value}" for name, value in config.items())
    return (
        f"kafka-configs.sh --bootstrap-server {bootstrap_servers} --alter --topic {topic} "
        f"--add-config {settings}"
    )
