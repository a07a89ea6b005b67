"""What Kafka allows in a topic's name."""

from __future__ import annotations

import re

from livestep.pipeline.errors import ConfigError

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def check_topic_name(name: str, flag: str) -> None:
    """Check a topic's name before a broker is asked for it.

    Args:
        name: Of the topic.
        flag: Option that gave it, for the message.

    Raises:
        ConfigError: If no topic can have this name.
    """
    if not _TOPIC_NAME.fullmatch(name) or name in (".", ".."):
        raise ConfigError(
            f"{flag} {name!r} is not a topic name: letters, digits, '.', '_' and '-', 249 at most"
        )
