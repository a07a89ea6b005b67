"""The log on Kafka: one group consumer, one producer, and a reader of its own for each replay."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaException,
    TopicPartition,
)

from pipeline.batch import Offset, Record
from pipeline.errors import BrokerError, ConfigError, EngineError, FencedError
from pipeline.log import Listener, Outgoing
from pipeline.settings import Settings
from pipeline.transport.admin import Admin
from pipeline.transport.codes import END_OF_PARTITION, FENCED, OUT_OF_REACH, text_of
from pipeline.transport.options import (
    RESERVED,
    client_options,
    consumer_options,
    producer_options,
    replay_options,
)
from pipeline.transport.transaction import Transactions

_log = logging.getLogger("livestep.transport")

#: Seconds for one question to the broker, beyond the session time-out, within which an open
#: transaction of a dead worker is aborted.
QUESTION_TIMEOUT_S = 20.0


class KafkaLog:
    """`Log` on librdkafka.

    Args:
        settings: Topics, group, guarantee, passed-through options.
        worker_id: Becomes part of the transactional id.

    Raises:
        ConfigError: If an option is unknown or reserved, or a topic is missing.
        BrokerError: If the broker can't be reached.
    """

    def __init__(self, settings: Settings, worker_id: str) -> None:
        reserved = sorted(RESERVED & settings.kafka_options.keys())
        if reserved:
            raise ConfigError(f"Kafka option {reserved[0]} is the worker's own and can't be set")
        self._settings = settings
        self._topic = settings.input_topic
        self._listener: Listener | None = None
        self._failure: EngineError | None = None
        self._assigned: set[int] = set()
        self._revoked_in_poll: set[int] = set()
        self._positions: dict[int, Offset] = {}
        self._ended: set[int] = set()
        transactional_id = None
        if settings.guarantee == "exactly-once":
            transactional_id = f"{settings.group}.{worker_id}"
        try:
            # It finds out first, and quietly, whether there is a broker that lets us in.
            self._admin = Admin(client_options(settings))
            self.partition_counts = self._find_topics()
            self._consumer = Consumer(consumer_options(settings), logger=_log)
            self._transactions = Transactions(producer_options(settings, transactional_id))
        except KafkaException as error:
            raise ConfigError(f"Kafka option: {error.args[0].str()}") from error
        self.partitions = self.partition_counts[self._topic]

    @property
    def topic_id(self) -> str:
        """Kafka's id of the input topic: another one after it was deleted and made anew."""
        return self._admin.topic_id(self._topic)

    def topic_setting(self, topic: str, name: str) -> str:
        """Read one setting of a topic, such as `cleanup.policy`."""
        return self._admin.setting(topic, name)

    def subscribe(self, listener: Listener) -> None:
        """See `Log.subscribe`."""
        self._listener = listener
        self._transactions.begin()
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._on_assign,
            on_revoke=lambda _, parts: self._on_revoke(parts, is_lost=False),
            on_lost=lambda _, parts: self._on_revoke(parts, is_lost=True),
        )

    def poll(self, records_max: int, timeout_s: float) -> list[Record]:
        """See `Log.poll`: a wait for the first record, and then what has arrived with it."""
        self._revoked_in_poll.clear()
        first = self._consumer.poll(timeout_s)
        messages: list[Any] = [] if first is None else [first]
        if first is not None and records_max > 1:
            # consume(n, 0) takes what is there; with a time-out it would wait for n.
            messages += self._consumer.consume(records_max - 1, 0)
        if self._failure is not None:
            raise self._failure
        if self._ended:
            self._ended -= {m.partition() for m in messages if m.error() is None}
        if any(message.error() is not None for message in messages):
            messages = [message for message in messages if not self._is_notice(message)]
        if self._revoked_in_poll:
            messages = self._without_revoked(messages)
        return messages

    def send(self, topic: str, records: Iterable[Outgoing]) -> None:
        """See `Log.send`."""
        self._transactions.send(topic, records)

    def commit(self, offsets: Mapping[int, tuple[Offset, str]]) -> None:
        """See `Log.commit`."""
        self._transactions.commit(
            self._consumer,
            [
                TopicPartition(self._topic, partition, offset, metadata)
                for partition, (offset, metadata) in offsets.items()
            ],
        )
        self._positions.update({partition: offset for partition, (offset, _) in offsets.items()})

    def rewind(self, positions: Mapping[int, Offset]) -> None:
        """See `Log.rewind`."""
        for partition, offset in positions.items():
            if partition in self._assigned:
                self._ended.discard(partition)
                self._consumer.seek(TopicPartition(self._topic, partition, offset))

    def committed(self) -> dict[int, tuple[Offset | None, str]]:
        """See `Log.committed`; an isolation of read_committed makes the broker wait."""
        self.partitions = self._find_topics()[self._topic]
        wanted = [TopicPartition(self._topic, p) for p in range(self.partitions)]
        timeout_s = self._settings.session_timeout_ms / 1000 + QUESTION_TIMEOUT_S
        try:
            found = self._consumer.committed(wanted, timeout=timeout_s)
        except KafkaException as error:
            raise BrokerError(
                f"committed offsets of group {self._settings.group}: {text_of(error.args[0])}"
            ) from error
        answer: dict[int, tuple[Offset | None, str]] = {}
        for one in found:
            if one.error is not None:
                where = f"committed offset of partition {one.partition}"
                raise BrokerError(f"{where} of group {self._settings.group}: {text_of(one.error)}")
            offset = None if one.offset == OFFSET_INVALID else Offset(one.offset)
            answer[one.partition] = (offset, one.metadata or "")
        return answer

    def bounds(self, partition: int) -> tuple[Offset, Offset]:
        """See `Log.bounds`."""
        try:
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=QUESTION_TIMEOUT_S
            )
        except KafkaException as error:
            raise BrokerError(f"ends of partition {partition}: {text_of(error.args[0])}") from error
        return Offset(low), Offset(high)

    def pause(self, partition: int) -> None:
        """See `Log.pause`."""
        self._consumer.pause([TopicPartition(self._topic, partition)])

    def resume(self, partition: int) -> None:
        """See `Log.resume`."""
        self._consumer.resume([TopicPartition(self._topic, partition)])

    def replay(self, partition: int, start: Offset, end: Offset) -> KafkaReplay:
        """See `Log.replay`."""
        return KafkaReplay(replay_options(self._settings), self._topic, partition, start, end)

    @property
    def is_at_end(self) -> bool:
        """See `Log.is_at_end`; known in a burst only."""
        return self._assigned <= self._ended

    def lag(self) -> int:
        """See `Log.lag`, from what the broker said with the last fetch."""
        total = 0
        for partition in tuple(self._assigned):
            _, high = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), cached=True
            )
            total += max(0, high - self._positions.get(partition, Offset(0)))
        return total

    def close(self) -> None:
        """See `Log.close`."""
        self._transactions.close()
        self._consumer.close()

    def _find_topics(self) -> dict[str, int]:
        """Count the partitions of the three topics."""
        settings = self._settings
        return self._admin.partition_counts(
            [settings.input_topic, settings.output_topic, settings.dead_letter_topic]
        )

    def _on_assign(self, _: Any, assigned: Sequence[TopicPartition]) -> None:
        assert self._listener is not None
        partitions = [one.partition for one in assigned]
        try:
            starts = self._listener.assigned(partitions)
        except EngineError as error:
            # An exception can't pass through librdkafka: `poll` raises it.
            self._failure = error
            return
        self._consumer.incremental_assign(
            [TopicPartition(self._topic, p, start.position) for p, start in starts.items()]
        )
        paused = [TopicPartition(self._topic, p) for p, start in starts.items() if start.is_paused]
        if paused:
            self._consumer.pause(paused)
        self._assigned |= set(partitions)
        self._positions.update({p: start.position for p, start in starts.items()})

    def _on_revoke(self, revoked: Sequence[TopicPartition], *, is_lost: bool) -> None:
        assert self._listener is not None
        partitions = [one.partition for one in revoked]
        try:
            self._listener.revoked(partitions, is_lost=is_lost)
        except EngineError as error:
            self._failure = error
        self._assigned -= set(partitions)
        self._ended -= set(partitions)
        self._revoked_in_poll |= set(partitions)
        self._consumer.incremental_unassign(list(revoked))

    def _without_revoked(self, messages: list[Any]) -> list[Any]:
        """Drop records that were in hand when their partition went.

        Their offsets could still be committed, under the new generation: the next owner would then
        miss them or, having them, step them twice.
        """
        back_again = self._revoked_in_poll & self._assigned
        self.rewind({partition: self._positions[partition] for partition in back_again})
        return [m for m in messages if m.partition() not in self._revoked_in_poll]

    def _is_notice(self, message: Any) -> bool:
        """Take note of what is no record: an end of a partition, or an error to be raised."""
        error = message.error()
        if error is None:
            return False
        if error.code() == END_OF_PARTITION:
            if message.partition() in self._assigned:
                self._ended.add(message.partition())
            return True
        if error.code() in FENCED or (error.fatal() and "fenced" in error.str().lower()):
            raise FencedError(
                f"another worker has the group instance id {self._settings.group_instance_id!r}"
            )
        if error.retriable() or error.code() in OUT_OF_REACH:
            _log.warning("the consumer goes on after: %s", error.str())
            return True
        raise BrokerError(
            f"reading topic {self._topic} as group {self._settings.group}: {text_of(error)}"
        )


class KafkaReplay:
    """`Replay` with a consumer of its own, outside of the group.

    Args:
        options: librdkafka options.
        topic: Topic.
        partition: Partition.
        start: First offset to read.
        end: Offset to stop before.
    """

    def __init__(
        self, options: dict[str, Any], topic: str, partition: int, start: Offset, end: Offset
    ) -> None:
        self._topic, self._group = topic, options["group.id"]
        self._end = end
        self._is_done = start >= end
        self._consumer = Consumer(options, logger=_log)
        self._consumer.assign([TopicPartition(topic, partition, start)])

    @property
    def is_done(self) -> bool:
        """See `Replay.is_done`."""
        return self._is_done

    def read(self, records_max: int, timeout_s: float) -> list[Record]:
        """See `Replay.read`."""
        first = None if self._is_done else self._consumer.poll(timeout_s)
        if first is None:
            return []
        records: list[Record] = []
        messages: list[Any] = [first]
        if records_max > 1:
            messages += self._consumer.consume(records_max - 1, 0)
        for message in messages:
            error = message.error()
            if error is not None and error.code() == END_OF_PARTITION:
                # Past the last record there may be markers only, up to the committed offset.
                self._is_done = True
            elif error is not None and not error.retriable():
                raise BrokerError(
                    f"replay of topic {self._topic} as group {self._group}: {text_of(error)}"
                )
            elif error is None and message.offset() < self._end:
                records.append(message)
            if error is None and message.offset() + 1 >= self._end:
                self._is_done = True
        return records

    def close(self) -> None:
        """See `Replay.close`."""
        self._consumer.close()
