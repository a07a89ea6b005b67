"""What the worker asks the brokers beside reading and writing: topics, their ids and settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from pipeline.errors import BrokerError, ConfigError
from pipeline.transport.codes import ALL_DOWN, LOCKED_OUT, text_of

#: Seconds that a worker waits for a first answer of the broker.
CONNECT_TIMEOUT_S = 10.0

#: Seconds after which it looks whether there can be one: a wrong password is refused at once.
_LOOK_AFTER_S = 2.0


class Admin:
    """Questions about topics.

    Args:
        options: librdkafka's, of every client.

    Raises:
        KafkaException: If there is no such option.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._address = options["bootstrap.servers"]
        self._protocol = str(options.get("security.protocol", "PLAINTEXT")).upper()
        self._problems: list[KafkaError] = []
        # What it has to say comes as an error of its calls; its log would go to stderr.
        quiet: dict[str, Any] = {"log_level": 0, "error_cb": self._problems.append}
        self._client = AdminClient({**options, **quiet})

    def partition_counts(self, names: Sequence[str]) -> dict[str, int]:
        """Count the partitions of topics.

        Raises:
            BrokerError: If no broker answers, or it refuses.
            ConfigError: If a topic is missing.
        """
        known = self._topics()
        missing = [name for name in names if name not in known]
        if missing:
            # One that we may not see is not there either; asked for by name, it is refused.
            self._describe(missing[0])
            raise ConfigError(
                f"topic {missing[0]} is missing: livestep topics create {' '.join(missing)}"
            )
        return {name: len(known[name].partitions) for name in names}

    def topic_id(self, topic: str) -> str:
        """Give Kafka's id of a topic: another one after it was deleted and made anew."""
        described = self._describe(topic)
        if described is None:
            raise BrokerError(f"topic {topic} has been deleted")
        return str(described.topic_id)

    def setting(self, topic: str, name: str) -> str:
        """Read one setting of a topic, such as `cleanup.policy`."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        try:
            future = self._client.describe_configs([resource])[resource]
            return str(future.result(CONNECT_TIMEOUT_S)[name].value)
        except KafkaException as error:
            raise BrokerError(f"settings of topic {topic}: {text_of(error.args[0])}") from error

    def _topics(self) -> dict[str, Any]:
        for timeout_s in (_LOOK_AFTER_S, CONNECT_TIMEOUT_S - _LOOK_AFTER_S):
            try:
                return self._client.list_topics(timeout=timeout_s).topics
            except KafkaException as error:
                last: KafkaError = error.args[0]
            self._client.poll(0)  # takes what `error_cb` is told
            locked_out = [one for one in self._problems if one.code() in LOCKED_OUT]
            if locked_out:
                raise BrokerError(f"Kafka at {self._address} refuses: {locked_out[-1].str()}")
        told = [one for one in self._problems if one.code() != ALL_DOWN]
        raise BrokerError(
            f"no Kafka broker answers at {self._address} by {self._protocol} "
            f"({(told or [last])[-1].str()}); --bootstrap-servers says where it is, "
            "LIVESTEP_KAFKA_SECURITY_PROTOCOL how it is spoken to"
        )

    def _describe(self, topic: str) -> Any | None:
        """Describe a topic; None if there is none."""
        future = self._client.describe_topics(TopicCollection([topic]))[topic]
        try:
            return future.result(CONNECT_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise BrokerError(f"topic {topic}: {text_of(error.args[0])}") from error
