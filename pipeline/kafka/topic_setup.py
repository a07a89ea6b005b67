"""Creates and describes topics, and reads offsets and lag, with kafka-python's admin client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import (
    AuthorizationError,
    NoError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)
from kafka.protocol.consumer import IsolationLevel

from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.connection import (
    CONNECT_TIMEOUT_S,
    broker_errors,
    connect,
    missing_topic,
)
from livestep.pipeline.kafka.kafka_tools import alter_command
from livestep.pipeline.kafka.security import RIGHTS
from livestep.pipeline.topic_names import check_topic_name

#: Seconds that a new topic may take until all its partitions have a leader.
READY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Topic:
    """An existing topic.

    Attributes:
        name: Its name.
        partition_count: Number of partitions.
        replication_factor: Number of replicas of the partition that has the fewest.
    """

    name: str
    partition_count: int
    replication_factor: int


@dataclass(frozen=True, slots=True)
class CreateOutcome:
    """Result of creating one topic.

    Attributes:
        name: Its name.
        is_new: Whether it was created now.
        problem: Why it isn't as requested; None if it is, even if it existed before.
    """

    name: str
    is_new: bool = False
    problem: str | None = None


def create_topics(
    bootstrap_servers: str,
    names: Sequence[str],
    partition_count: int = 1,
    replication_factor: int = -1,
    config: Mapping[str, str] | None = None,
    *,
    timeout_s: float = CONNECT_TIMEOUT_S,
    **client_options: Any,
) -> list[CreateOutcome]:
    """Create topics and wait until they are ready.

    An existing topic is never changed; it is as requested if it has this number of partitions and
    these values of `config`, whatever its replicas. A problem with one topic is reported in its
    outcome, and the others are created.

    Args:
        bootstrap_servers: host:port[,host:port...].
        names: Names of the topics.
        partition_count: Number of partitions of each topic.
        replication_factor: Replicas of each partition; -1 for the broker's default.
        config: Settings of each topic, with Kafka's names, such as retention.ms.
        timeout_s: How long to look for a broker.
        client_options: Options of kafka-python's admin client.

    Returns:
        outcomes: One for each name, in order.

    Raises:
        BrokerError: If no broker answers.
    """
    wanted = {
        name: {
            "num_partitions": partition_count,
            "replication_factor": replication_factor,
            "configs": dict(config or {}),
        }
        for name in names
    }
    with _admin(bootstrap_servers, timeout_s, client_options) as admin:
        with broker_errors("creating topics"):
            response = admin.create_topics(wanted, raise_errors=False)
        results = {result["name"]: result for result in response["topics"]}
        outcomes = [_outcome(admin, results[name], partition_count) for name in wanted]
        for index, outcome in enumerate(outcomes):
            if config and not outcome.is_new and outcome.problem is None:
                problem = _other_config(admin, bootstrap_servers, outcome.name, config)
                outcomes[index] = replace(outcome, problem=problem)
        new = [outcome.name for outcome in outcomes if outcome.is_new]
        with broker_errors(f"waiting for the new topics {', '.join(new)}"):
            admin.wait_for_topics(new, timeout_ms=READY_TIMEOUT_S * 1000)
        return outcomes


def describe_topics(
    bootstrap_servers: str,
    names: Sequence[str] | None = None,
    *,
    timeout_s: float = CONNECT_TIMEOUT_S,
    **client_options: Any,
) -> dict[str, Topic]:
    """Describe topics.

    Args:
        bootstrap_servers: host:port[,host:port...].
        names: Names of topics; None for all except Kafka's internal ones.
        timeout_s: How long to look for a broker.
        client_options: Options of kafka-python's admin client.

    Returns:
        topics: By name, sorted.  Missing topics are omitted; with None, also those that this user
            may not see.

    Raises:
        BrokerError: If no broker answers, or this user may not see one of `names`.
        ConfigError: If a name is not a valid topic name.
    """
    with _admin(bootstrap_servers, timeout_s, client_options) as admin:
        topics = _describe(admin, names)
    return {name: topics[name] for name in sorted(topics)}


def end_offsets(
    bootstrap_servers: str,
    topic: str,
    *,
    is_committed: bool = True,
    timeout_s: float = CONNECT_TIMEOUT_S,
    **client_options: Any,
) -> dict[int, int]:
    """Return the end of each partition: the offset after its last record.

    Args:
        bootstrap_servers: host:port[,host:port...].
        topic: Its name.
        is_committed: Whether to stop before the first open transaction.
        timeout_s: How long to look for a broker.
        client_options: Options of kafka-python's admin client.

    Returns:
        offsets: By partition.

    Raises:
        BrokerError: If no broker answers.
        MissingTopicError: If the topic is missing.
    """
    level = IsolationLevel.READ_COMMITTED if is_committed else IsolationLevel.READ_UNCOMMITTED
    with _admin(bootstrap_servers, timeout_s, client_options) as admin:
        described = _describe(admin, [topic]).get(topic)
        if described is None:
            raise missing_topic(topic, bootstrap_servers)
        partitions = range(described.partition_count)
        asked = {TopicPartition(topic, index): OffsetSpec.LATEST for index in partitions}
        with broker_errors(f"asking for the end of topic {topic!r}"):
            found = admin.list_partition_offsets(asked, isolation_level=level)
        return {index: int(found[TopicPartition(topic, index)].offset) for index in partitions}


def lag(
    bootstrap_servers: str,
    group: str,
    topic: str,
    *,
    timeout_s: float = CONNECT_TIMEOUT_S,
    **client_options: Any,
) -> dict[int, int]:
    """Return how far a group is behind the end of each partition.

    The lag counts offsets, not records: transaction markers have offsets, too.

    Args:
        bootstrap_servers: host:port[,host:port...].
        group: Consumer group, such as a worker's.
        topic: Its name.
        timeout_s: How long to look for a broker.
        client_options: Options of kafka-python's clients.

    Returns:
        lag: By partition; for a partition without a commit, its end offset.

    Raises:
        BrokerError: If no broker answers.
        MissingTopicError: If the topic is missing.
    """
    ends = end_offsets(bootstrap_servers, topic, timeout_s=timeout_s, **client_options)
    committed = committed_offsets(
        bootstrap_servers, group, topic, list(ends), timeout_s=timeout_s, **client_options
    )
    return {partition: end - committed.get(partition, 0) for partition, end in ends.items()}


def committed_offsets(
    bootstrap_servers: str,
    group: str,
    topic: str,
    partitions: Sequence[int],
    *,
    timeout_s: float = CONNECT_TIMEOUT_S,
    **client_options: Any,
) -> dict[int, int]:
    """Return what a group has committed, by partition; partitions without a commit are left out.

    Args:
        bootstrap_servers: host:port[,host:port...].
        group: Consumer group, such as a worker's.
        topic: Its name.
        partitions: Of the topic.
        timeout_s: How long to look for a broker.
        client_options: Of kafka-python's clients.

    Raises:
        BrokerError: If no broker answers, or it refuses.
    """
    # Unlike the admin client, a consumer waits while the group's coordinator starts.
    consumer = connect(
        KafkaConsumer,
        bootstrap_servers,
        timeout_s=timeout_s,
        group_id=group,
        enable_auto_commit=False,
        **client_options,
    )
    with contextlib.closing(consumer), broker_errors(f"asking for the offsets of group {group!r}"):
        found = {index: _committed(consumer, TopicPartition(topic, index)) for index in partitions}
    return {index: offset for index, offset in found.items() if offset is not None}


def admin_options(client_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those options of another kafka-python client that an admin client has, too."""
    shared = KafkaAdminClient.DEFAULT_CONFIG.keys() & client_options.keys()
    return {name: client_options[name] for name in shared}


def _committed(consumer: Any, partition: TopicPartition) -> int | None:
    return cast("int | None", consumer.committed(partition, timeout_ms=READY_TIMEOUT_S * 1000))


@contextlib.contextmanager
def _admin(
    bootstrap_servers: str, timeout_s: float, client_options: Mapping[str, Any]
) -> Iterator[Any]:
    admin = connect(KafkaAdminClient, bootstrap_servers, timeout_s=timeout_s, **client_options)
    with contextlib.closing(admin):
        yield admin


def _describe(admin: Any, names: Sequence[str] | None) -> dict[str, Topic]:
    for name in names or ():
        check_topic_name(name, "topic")
    with broker_errors("asking for the topics"):
        found = admin.describe_topics(None if names is None else list(names))
    for item in found if names is not None else ():
        if item["error_code"] == TopicAuthorizationFailedError.errno:
            with broker_errors(f"asking for topic {item['name']!r}"):
                raise TopicAuthorizationFailedError
    return {
        item["name"]: Topic(
            item["name"],
            len(item["partitions"]),
            min((len(part["replica_nodes"]) for part in item["partitions"]), default=0),
        )
        for item in found
        if item["partitions"] and not (names is None and item["is_internal"])
    }


def _outcome(admin: Any, result: Mapping[str, Any], partition_count: int) -> CreateOutcome:
    """Convert the broker's response for one topic."""
    name = result["name"]
    error = for_code(result["error_code"])
    if error is NoError:
        return CreateOutcome(name, is_new=True)
    if error is not TopicAlreadyExistsError:
        problem = result["error_message"] or error.__name__
        if issubclass(error, AuthorizationError):
            problem = f"{problem.removesuffix('.')} {RIGHTS}"
        return CreateOutcome(name, problem=problem)
    topic = _describe(admin, [name]).get(name)
    if topic is None:
        return CreateOutcome(name, problem="another client is creating or deleting it")
    if topic.partition_count != partition_count:
        return CreateOutcome(
            name,
            problem=f"it exists with {topic.partition_count} partitions, not {partition_count}: "
            "request the same number, or choose another name",
        )
    return CreateOutcome(name)


def _other_config(
    admin: Any, bootstrap_servers: str, topic: str, config: Mapping[str, str]
) -> str | None:
    """Describe which settings of an existing topic differ from `config`; None if none does."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    try:
        with broker_errors(f"asking for the settings of topic {topic!r}"):
            found = admin.describe_configs([resource], config_filter="all")["topic"][topic]
    except BrokerError as error:
        return f"it exists, but its settings could not be read: {error}"
    other = [
        f"{name}={found[name]['value'] if name in found else 'unknown'}"
        for name, value in config.items()
        if name not in found or found[name]["value"] != value
    ]
    if not other:
        return None
    return (
        f"it exists with {', '.join(other)}, and was not changed; change it with Kafka's own tool: "
        f"{alter_command(bootstrap_servers, topic, config)}"
    )
