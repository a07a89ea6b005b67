"""What the worker asks the brokers beside reading and writing: topics, their ids and settings."""

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

#: Seconds that a worker waits for a first answer of the broker.
CONNECT_TIMEOUT_S = 10.0

#: Seconds after which it looks whether there can be one: a wrong password is refused at once.
_LOOK_AFTER_S = 2.0


class NoAnswerError(Exception):
    """Raised if no broker has answered a question: none is there just now, or it takes long."""


class Admin:
    """Questions about topics.

    Args:
        options: librdkafka's, of every client.

    Raises:
        ConfigError: If there is no such option.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._address = options["bootstrap.servers"]
        self._protocol = str(options.get("security.protocol", "PLAINTEXT")).upper()
        self._problems: list[KafkaError] = []
        # What it has to say comes as an error of its calls; its log would go to stderr.
        quiet: dict[str, Any] = {"log_level": 0, "error_cb": self._problems.append}
        try:
            self._client = AdminClient({**options, **quiet})
        except KafkaException as error:
            raise ConfigError(f"Kafka option: {error.args[0].str()}") from error

    def check_brokers(self) -> None:
        """Find out whether there is a broker that lets us in.

        Raises:
            BrokerError: If no broker answers, or it refuses.
        """
        self._topics()

    def check_topics(self, names: Sequence[str]) -> None:
        """Find out whether there is a broker that lets us in, and has these topics.

        Raises:
            BrokerError: If no broker answers, or it refuses.
            MissingTopicError: If a topic is missing.
        """
        known = self._topics()
        missing = [name for name in names if name not in known]
        if missing:
            # One that we may not see is not there either; asked for by name, it is refused.
            self.ask(missing[:1], CONNECT_TIMEOUT_S).answer(CONNECT_TIMEOUT_S)
            raise MissingTopicError(
                f"topic {missing[0]} is missing: livestep topics create {' '.join(missing)}"
            )
        # librdkafka sends its questions to one broker. Only a client that knows a topic looks for
        # another one when that broker goes away.
        self._client.list_topics(names[0], timeout=CONNECT_TIMEOUT_S)

    def find_brokers(self) -> None:
        """Ask again which brokers there are, after a question that none has answered."""
        try:
            self._client.list_topics(timeout=_LOOK_AFTER_S)
        except KafkaException as error:
            _log.warning("no broker answers: %s", error.args[0].str())

    def partition_count(self, topic: str) -> int:
        """Give the number of partitions of a topic that is there.

        Raises:
            BrokerError: If no broker answers, or it refuses.
        """
        try:
            state = self.ask([topic], CONNECT_TIMEOUT_S).answer(CONNECT_TIMEOUT_S)[topic]
        except NoAnswerError as error:
            raise BrokerError(str(error)) from error
        if state is None:
            raise BrokerError(f"topic {topic} has just been deleted")
        return state.partitions

    def ask(self, names: Sequence[str], timeout_s: float) -> Question:
        """Ask what topics are, without waiting for the answer.

        Args:
            names: Of the topics.
            timeout_s: How long a broker may take.
        """
        return Question(
            self._client.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s)
        )

    def ends(self, topic: str, partitions: Iterable[int], timeout_s: float) -> list[int]:
        """Give the offset after the last committed record of each partition.

        Raises:
            NoAnswerError: If no broker answers in time; it may be asked again.
        """
        last = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        wanted = dict.fromkeys((TopicPartition(topic, p) for p in partitions), last)
        futures = self._client.list_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED)
        try:
            return [int(future.result(timeout_s).offset) for future in futures.values()]
        except TimeoutError as error:
            raise NoAnswerError(f"ends of topic {topic}: no broker answers") from error
        except KafkaException as error:
            raise NoAnswerError(f"ends of topic {topic}: {text_of(error.args[0])}") from error

    def setting(self, topic: str, name: str) -> str:
        """Read one setting of a topic, such as `cleanup.policy`."""
        try:
            return self._settings(topic)[name]
        except KafkaException as error:
            raise BrokerError(f"settings of topic {topic}: {text_of(error.args[0])}") from error

    def allowed_settings(self, topic: str) -> dict[str, str] | None:
        """Read all settings of a topic; None if this user may not read them."""
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


class Question:
    """What was asked of the brokers: id and partitions of topics.

    Args:
        futures: librdkafka's answer for each topic.
    """

    def __init__(self, futures: Mapping[str, Future[Any]]) -> None:
        self._futures = futures

    @property
    def is_answered(self) -> bool:
        """Whether `answer` need not wait."""
        return all(future.done() for future in self._futures.values())

    def answer(self, timeout_s: float) -> dict[str, TopicState | None]:
        """Wait for the answer.

        Returns:
            states: Of each topic, None if there is none of that name.

        Raises:
            NoAnswerError: If no broker answers in time; it may be asked again.
            BrokerError: If this client may not ask.
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
