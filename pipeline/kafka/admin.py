"""The worker's admin client: existence, ids, partitions, end offsets and settings of topics."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    OffsetSpec,
)

from livestep.pipeline.engine.topic_state import TopicState
from livestep.pipeline.errors import BrokerError, ConfigError, MissingTopicError
from livestep.pipeline.kafka.error_codes import ALL_DOWN, LOCKED_OUT, UNAUTHORIZED, text_of

_log = logging.getLogger("livestep.transport")

#: Seconds that a worker waits for a broker's first response.
CONNECT_TIMEOUT_S = 10.0

#: Seconds after which it checks for a permanent error, such as a wrong password.
_LOOK_AFTER_S = 2.0


class NoAnswerError(Exception):
    """Raised if no broker answers a request in time; it may be retried."""


class Admin:
    """Requests about topics.

    Args:
        options: librdkafka options shared by all clients.

    Raises:
        ConfigError: If an option is unknown or invalid.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._address = options["bootstrap.servers"]
        self._protocol = str(options.get("security.protocol", "PLAINTEXT")).upper()
        self._problems: list[KafkaError] = []
        # Errors are raised by its calls; without this it would also log them to stderr.
        quiet: dict[str, Any] = {"log_level": 0, "error_cb": self._problems.append}
        try:
            self._client = AdminClient({**options, **quiet})
        except KafkaException as error:
            raise ConfigError(f"Kafka option: {error.args[0].str()}") from error

    def check_brokers(self) -> None:
        """Check that a broker answers and accepts this client.

        Raises:
            BrokerError: If no broker answers, or it refuses this client.
        """
        self._topics()

    def check_topics(self, names: Sequence[str]) -> None:
        """Check that a broker answers, accepts this client, and has these topics.

        Raises:
            BrokerError: If no broker answers, or it refuses this client.
            MissingTopicError: If a topic is missing.
        """
        known = self._topics()
        missing = [name for name in names if name not in known]
        if missing:
            # A topic that this client may not see looks missing; asking for it by name raises.
            self.ask(missing[:1], CONNECT_TIMEOUT_S).answer(CONNECT_TIMEOUT_S)
            raise MissingTopicError(
                f"topic {missing[0]} is missing: livestep topics create {' '.join(missing)}"
            )
        # librdkafka sends its requests to one broker. Only a client that knows a topic looks for
        # another broker when that one becomes unavailable.
        self._client.list_topics(names[0], timeout=CONNECT_TIMEOUT_S)

    def find_brokers(self) -> None:
        """Refresh the list of brokers, after a request that none has answered."""
        try:
            self._client.list_topics(timeout=_LOOK_AFTER_S)
        except KafkaException as error:
            _log.warning("no broker answers: %s", error.args[0].str())

    def partition_count(self, topic: str) -> int:
        """Return the number of partitions of an existing topic.

        Raises:
            BrokerError: If no broker answers, it refuses, or the topic was deleted.
        """
        try:
            state = self.ask([topic], CONNECT_TIMEOUT_S).answer(CONNECT_TIMEOUT_S)[topic]
        except NoAnswerError as error:
            raise BrokerError(str(error)) from error
        if state is None:
            raise BrokerError(f"topic {topic} has just been deleted")
        return state.partitions

    def ask(self, names: Sequence[str], timeout_s: float) -> Question:
        """Ask for the id and partitions of topics, without waiting for the response.

        Args:
            names: Names of the topics.
            timeout_s: How long a broker may take.
        """
        return Question(
            self._client.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s)
        )

    def ends(self, topic: str, partitions: Iterable[int], timeout_s: float) -> list[int]:
        """Return the offset after the last committed record of each partition.

        Raises:
            NoAnswerError: If no broker answers in time; it may be retried.
        """
        last = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        wanted = dict.fromkeys((TopicPartition(topic, p) for p in partitions), last)
        futures = self._client.list_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED)
        try:
            return [int(future.result(timeout_s).offset) for future in futures.values()]
        except TimeoutError as error:
            raise NoAnswerError(f"end offsets of topic {topic}: no broker answers") from error
        except KafkaException as error:
            text = text_of(error.args[0])
            raise NoAnswerError(f"end offsets of topic {topic}: {text}") from error

    def setting(self, topic: str, name: str) -> str:
        """Return one setting of a topic, such as `cleanup.policy`."""
        try:
            return self._settings(topic)[name]
        except KafkaException as error:
            raise BrokerError(f"settings of topic {topic}: {text_of(error.args[0])}") from error

    def allowed_settings(self, topic: str) -> dict[str, str] | None:
        """Return all settings of a topic; None if this user may not read them."""
        try:
            return self._settings(topic)
        except KafkaException as error:
            if error.args[0].code() in UNAUTHORIZED:
                return None
            raise BrokerError(f"settings of topic {topic}: {text_of(error.args[0])}") from error

    def _settings(self, topic: str) -> dict[str, str]:
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        future = self._client.describe_configs([resource])[resource]
        try:
            found = future.result(CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            raise BrokerError(f"settings of topic {topic}: no broker answers") from error
        return {name: str(entry.value) for name, entry in found.items()}

    def _topics(self) -> dict[str, Any]:
        for timeout_s in (_LOOK_AFTER_S, CONNECT_TIMEOUT_S - _LOOK_AFTER_S):
            try:
                return self._client.list_topics(timeout=timeout_s).topics
            except KafkaException as error:
                last: KafkaError = error.args[0]
            self._client.poll(0)  # runs `error_cb`
            locked_out = [one for one in self._problems if one.code() in LOCKED_OUT]
            if locked_out:
                raise BrokerError(f"Kafka at {self._address} refuses: {locked_out[-1].str()}")
        causes = [one for one in self._problems if one.code() != ALL_DOWN]
        raise BrokerError(
            f"no Kafka broker answers at {self._address} with {self._protocol} "
            f"({(causes or [last])[-1].str()}); check the address in --bootstrap-servers and the "
            "protocol in LIVESTEP_KAFKA_SECURITY_PROTOCOL"
        )


class Question:
    """A pending request for the id and partitions of topics.

    Args:
        futures: librdkafka's future for each topic.
    """

    def __init__(self, futures: Mapping[str, Future[Any]]) -> None:
        self._futures = futures

    @property
    def is_answered(self) -> bool:
        """Whether `answer` returns without waiting."""
        return all(future.done() for future in self._futures.values())

    def answer(self, timeout_s: float) -> dict[str, TopicState | None]:
        """Wait for the response.

        Returns:
            states: State of each topic, None for a missing topic.

        Raises:
            NoAnswerError: If no broker answers in time; it may be retried.
            BrokerError: If this client is not authorized.
        """
        deadline_s = time.monotonic() + timeout_s
        return {
            topic: _state(topic, future, max(0.0, deadline_s - time.monotonic()))
            for topic, future in self._futures.items()
        }


def _state(topic: str, future: Future[Any], timeout_s: float) -> TopicState | None:
    try:
        found = future.result(timeout_s)
    except TimeoutError as error:
        raise NoAnswerError(f"topic {topic}: no broker answers") from error
    except KafkaException as error:
        cause: KafkaError = error.args[0]
        if cause.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        if cause.code() in UNAUTHORIZED | LOCKED_OUT:
            raise BrokerError(f"topic {topic}: {text_of(cause)}") from error
        raise NoAnswerError(f"topic {topic}: {cause.str()}") from error
    return TopicState(str(found.topic_id), len(found.partitions))
