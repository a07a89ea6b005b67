"""States of Kafka and Redis under which a worker leaves, or does not start."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple

import redis
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin import NewPartitions as Grown

from livestep.pipeline.errors import (
    BrokerError,
    ConfigError,
    EngineError,
    HistoryMissingError,
    MissingTopicError,
    OffsetsResetError,
    PartitionsChangedError,
    StoreError,
)
from livestep.pipeline.kafka.topic_setup import describe_topics
from tests.services.running import Running
from tests.support.helpers import wait_until


class State(NamedTuple):
    """What a row may change.

    Attributes:
        running: Topics and a model.
        redis: A client of the Redis.
        admin: A client of the Kafka.
        undo: Undone when the worker has left.
    """

    running: Running
    redis: redis.Redis
    admin: AdminClient
    undo: ExitStack

    def alter(self, topic: str, name: str, value: str) -> None:
        """Set a topic's own setting."""
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        for future in self.admin.incremental_alter_configs([resource]).values():
            future.result(30)
        # The controller has it; the broker learns it later.
        plain = ConfigResource(ConfigResource.Type.TOPIC, topic)

        def is_known() -> bool:
            (found,) = self.admin.describe_configs([plain]).values()
            return bool(found.result(30)[name].value == value)

        wait_until(is_known, 60, f"{name} of {topic}")

    def set_redis(self, name: str, value: str) -> None:
        """Set Redis' own setting until the end."""
        before = self.redis.config_get(name)[name]
        self.redis.config_set(name, value)
        self.undo.callback(self.redis.config_set, name, before)


class Row(NamedTuple):
    """One state.

    Attributes:
        name: What it is.
        make: Brings it about; gives the worker's settings for it.
        error: What the worker leaves with; its `exit_code` is that of the command.
        message: Its message, as a regular expression.
        has_history: Whether a hundred events of ten keys are predicted before.
    """

    name: str
    make: Callable[[State], dict[str, Any]]
    error: type[EngineError]
    message: str
    has_history: bool = False


@contextmanager
def _server(answer: bytes) -> Iterator[str]:
    """Run a server that reads, says the same to whatever comes, and keeps the connection."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(65_536):
                self.request.sendall(answer)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


def _kafka_is(answer: bytes) -> Callable[[State], dict[str, Any]]:
    return lambda state: {"bootstrap_servers": state.undo.enter_context(_server(answer))}


def _redis_is(answer: bytes) -> Callable[[State], dict[str, Any]]:
    return lambda state: {
        "redis_url": f"redis://{state.undo.enter_context(_server(answer))}/0",
        "redis_wait_s": 0.1,
    }


def _wrong_password(state: State) -> dict[str, Any]:
    url = state.running.services.redis_url.replace("redis://", "redis://nobody:open-sesame@")
    return {"redis_url": url, "redis_wait_s": 0.1}


def _evicting(policy: str) -> Callable[[State], dict[str, Any]]:
    def make(state: State) -> dict[str, Any]:
        state.set_redis("maxmemory-policy", policy)
        return {}

    return make


def _replica(state: State) -> dict[str, Any]:
    state.redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    state.undo.callback(state.redis.execute_command, "REPLICAOF", "NO", "ONE")
    state.running.publish(10, keys=10)
    return {"redis_wait_s": 0.1}


def _more_partitions(state: State) -> dict[str, Any]:
    topic = state.running.input_topic
    state.admin.create_partitions([Grown(topic, 8)])[topic].result(30)
    servers = state.running.services.bootstrap_servers
    wait_until(lambda: describe_topics(servers)[topic].partition_count == 8, 60, "partitions")
    return {}


def _no_group(state: State) -> dict[str, Any]:
    group = state.running.group
    state.admin.delete_consumer_groups([group])[group].result(30)
    return {}


def _offsets_back(state: State) -> dict[str, Any]:
    _commit(state, offset=1, metadata="")
    return {}


def _foreign_metadata(state: State) -> dict[str, Any]:
    _commit(state, offset=1, metadata="livestep/1 model=\u0663 partitions=4 start=-1 \uffff")
    return {}


def _offset_beyond(state: State) -> dict[str, Any]:
    _commit(state, offset=1_000_000, metadata="")
    return {}


def _commit(state: State, offset: int, metadata: str) -> None:
    options = {
        "bootstrap.servers": state.running.services.bootstrap_servers,
        "group.id": state.running.group,
    }
    places = [TopicPartition(state.running.input_topic, p, offset, metadata) for p in range(4)]
    with closing(Consumer(options)) as consumer:
        consumer.commit(offsets=places, asynchronous=False)


def _history_gone(state: State) -> dict[str, Any]:
    kept = [TopicPartition(state.running.input_topic, p, 1) for p in range(4)]
    for future in state.admin.delete_records(kept).values():
        future.result(30)
    state.redis.flushall()
    return {}


def _group_of_another_program(state: State) -> dict[str, Any]:
    consumer = Consumer(
        {
            "bootstrap.servers": state.running.services.bootstrap_servers,
            "group.id": state.running.group,
            "partition.assignment.strategy": "range",
        }
    )
    state.undo.callback(consumer.close)
    consumer.subscribe([state.running.input_topic])

    def is_member() -> bool:
        consumer.poll(0.1)
        return bool(consumer.assignment())

    wait_until(is_member, 60, "the other program is in the group")
    return {}


def _short_outputs(state: State) -> dict[str, Any]:
    state.alter(state.running.output_topic, "max.message.bytes", "60")
    state.running.publish(10, keys=10)
    return {}


STATES = (
    Row("no broker", lambda _: {"bootstrap_servers": "127.0.0.1:1"}, BrokerError,
        r"no Kafka broker answers at 127\.0\.0\.1:1"),
    Row("HTTP where Kafka should be", _kafka_is(HTTP), BrokerError, "no Kafka broker answers"),
    Row("no Redis", lambda _: {"redis_url": "redis://127.0.0.1:1/0", "redis_wait_s": 0.1},
        StoreError, r"Redis at 127\.0\.0\.1:1"),
    Row("HTTP where Redis should be", _redis_is(HTTP), StoreError, "Redis at 127"),
    Row("a wrong password of Redis, not shown", _wrong_password, StoreError, "Redis at"),
    Row("a missing database of Redis",
        lambda s: {"redis_url": s.running.services.redis_url.replace("/0", "/99"),
                   "redis_wait_s": 0.1}, StoreError, "Redis at"),
    Row("a Redis that evicts", _evicting("allkeys-lru"), StoreError, "allkeys-lru.*noeviction"),
    Row("a Redis that evicts at random", _evicting("allkeys-random"), StoreError, "noeviction"),
    Row("a replica, which rejects writes", _replica, StoreError, "(?i)read.?only|Redis at"),
    Row("no output topic", lambda _: {"output_topic": "nowhere"}, MissingTopicError,
        "topic nowhere is missing: livestep topics create"),
    Row("no input topic", lambda _: {"input_topic": "nowhere"}, MissingTopicError,
        "topic nowhere.* missing"),
    Row("no dead-letter topic", lambda _: {"dead_letter_topic": "nowhere"}, MissingTopicError,
        "topic nowhere is missing"),
    Row("an option that Kafka's client lacks",
        lambda _: {"environment": {"LIVESTEP_KAFKA_NO_SUCH_OPTION": "1"}}, ConfigError,
        "no.such.option"),
    Row("an option that is the worker's own",
        lambda _: {"environment": {"LIVESTEP_KAFKA_ISOLATION_LEVEL": "read_uncommitted"}},
        ConfigError, "isolation.level is set by the worker"),
    Row("an option with an unknown value",
        lambda _: {"environment": {"LIVESTEP_KAFKA_COMPRESSION_TYPE": "rar"}}, ConfigError,
        "compression.*rar|rar.*compression"),
    Row("more partitions than before", _more_partitions, PartitionsChangedError,
        "8 partitions.*had 4.*new topic", True),
    Row("a group that was deleted", _no_group, OffsetsResetError,
        "stepped twice.*Set the group's offset back", True),
    Row("offsets that were set back", _offsets_back, OffsetsResetError, "stepped twice", True),
    Row("metadata of another program", _foreign_metadata, OffsetsResetError, "stepped twice", True),
    Row("offsets beyond the log", _offset_beyond, OffsetsResetError,
        "the log has lost records", True),
    Row("states and their history gone", _history_gone, HistoryMissingError,
        "--accept-missing-history", True),
    Row("a group that another program is in", _group_of_another_program, BrokerError,
        "(?i)inconsistent group protocol|another program"),
    Row("an output topic whose records are too short", _short_outputs, BrokerError,
        "longer than its topic's max.message.bytes"),
)  # fmt: skip
