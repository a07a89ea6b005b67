"""A topic in memory and one on Kafka under one face, for tests that ask the same of both logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

from livestep import MemoryBroker
from livestep.pipeline.engine.log import Log, StartAt
from livestep.pipeline.engine.topic_state import partitions_changed
from livestep.pipeline.kafka.kafka_log import KafkaLog
from livestep.pipeline.kafka.topic_setup import create_topics
from livestep.pipeline.memory.memory_log import MemoryLog
from livestep.pipeline.settings import Settings
from livestep.pipeline.types import Offset
from tests.services.group_members import group_members, remove_member
from tests.services.kafka_writer import KafkaWriter
from tests.support.helpers import wait_until

PARTITIONS = 2

#: Also the time-out of an open transaction: the shortest that a broker allows, for the test that
#: waits for it; all others leave a loaded machine its time.
SESSION_TIMEOUT_MS_MIN, SESSION_TIMEOUT_MS = 1_000, 10_000

#: One poll of a log that may have to wait for its broker.
POLL_TIMEOUT_S = 0.1


class Keeper:
    """A listener that notes what it is told, and begins partitions where it was asked to.

    Attributes:
        starts: Where to begin a partition, instead of at the first record.
        owned: Partitions that it has.
        told: (what, partitions), in order; what is `assigned`, `revoked` or `lost`.
        counts: Numbers of partitions that it was told of.
        partitions_max: More than so many it refuses; None for any number.
    """

    def __init__(self, partitions_max: int | None = None, **starts: StartAt) -> None:
        self.partitions_max = partitions_max
        self.counts: list[int] = []
        self.starts = {int(name.removeprefix("p")): start for name, start in starts.items()}
        self.owned: set[int] = set()
        self.told: list[tuple[str, tuple[int, ...]]] = []

    def assigned(self, partitions: Sequence[int]) -> dict[int, StartAt]:
        self.owned |= set(partitions)
        self._note("assigned", partitions)
        first = StartAt(Offset(0), is_paused=False)
        return {partition: self.starts.get(partition, first) for partition in partitions}

    def revoked(self, partitions: Sequence[int], *, is_lost: bool) -> None:
        self.owned -= set(partitions)
        self._note("lost" if is_lost else "revoked", partitions)

    def partitions_changed(self, partitions: int) -> None:
        if self.partitions_max is not None and partitions > self.partitions_max:
            raise partitions_changed("t", partitions, self.partitions_max)
        self.counts.append(partitions)

    def _note(self, what: str, partitions: Sequence[int]) -> None:
        if partitions:
            self.told.append((what, tuple(sorted(partitions))))


class Writer(Protocol):
    """A client of its own with a transaction on the input topic."""

    def send(self, *values: bytes, partition: int = 0) -> None:
        """Send, opening a transaction if there is none."""

    def end(self, *, is_committed: bool) -> None:
        """End the transaction; its markers are in the log when this returns."""


class Place(Protocol):
    """Where the topics are, and what happens to them from outside.

    Attributes:
        input: Name of the topic that is polled.
        output: Name of the topic that is sent to.
    """

    input: str
    output: str

    def log(self, worker_id: str = "one", **changes: Any) -> Log:
        """Make a log; it is closed at the end."""

    def publish(self, *values: bytes, partition: int = 0, topic: str | None = None) -> None:
        """Write records outside of any transaction, by default to the input topic."""

    def writer(self) -> Writer:
        """Make a writer of transactions."""

    def visible(self) -> list[bytes]:
        """Read the committed values of the output topic's first partition, as of now."""

    def delete_records(self, partition: int, before: int) -> None:
        """Let the input begin later, as retention does."""

    def add_partitions(self, count: int) -> None:
        """Give the input topic more partitions: `count` in all."""

    def recreate(self, topic: str, partitions: int = PARTITIONS) -> None:
        """Delete a topic, and create another of its name."""

    def members(self) -> int:
        """Count the members of the group, those that the group still waits for included."""

    def lose(self, member: Log, heir: Log) -> None:
        """Let a member lose its place without asking it; the heir has all partitions then."""

    def take_back(self, member: Log) -> None:
        """Let the group deal with a lost member again, which has not polled since."""

    def let_time_out(self, member: Log) -> None:
        """Let the open transaction of a log be ended by its time-out."""

    def close_log(self, log: Log) -> None:
        """Close one log before the end."""

    def close(self) -> None:
        """Let all logs go."""


def settings_of(place: Place, **changes: Any) -> Settings:
    """Settings of a log at a place."""
    given = {"batch_events_max": 10, "pool_slots": 20, "session_timeout_ms": SESSION_TIMEOUT_MS}
    given |= {"model": "model", "input_topic": place.input, "output_topic": place.output}
    return Settings(**{**given, **changes})


def poll_until(log: Log, count: int, records_max: int = 10) -> list[Any]:
    """Poll until so many records have come."""
    records: list[Any] = []

    def look() -> bool:
        polled = log.poll(records_max, POLL_TIMEOUT_S)
        assert len(polled) <= records_max
        records.extend(polled)
        return len(records) >= count

    wait_until(look, 60, f"{count} records")
    return records


def joined(log: Log, keeper: Keeper | None = None, partitions: int = 2) -> Keeper:
    """Let a log join, and poll until it has its partitions; nothing may be there to be read."""
    keeper = keeper or Keeper()
    log.subscribe(keeper)

    def has_them() -> bool:
        assert not log.poll(10, POLL_TIMEOUT_S)
        return len(keeper.owned) == partitions

    wait_until(has_them, 60, "the assignment")
    return keeper


def values(records: list[Any]) -> list[bytes]:
    return [record.value for record in records]


def sent(value: bytes) -> list[Any]:
    return [(b"k", value, 0, 0, [])]


def read_replay(log: Log, start: int, end: int, records_max: int = 10) -> list[bytes]:
    """Read a replay of partition 0 whole."""
    replay = log.replay(0, Offset(start), Offset(end))
    found: list[bytes] = []

    def is_read() -> bool:
        records = replay.read(records_max, POLL_TIMEOUT_S)
        assert len(records) <= records_max
        found.extend(values(list(records)))
        return not records and replay.is_done

    wait_until(is_read, 60, "the end of the replay")
    replay.close()
    return found


class MemoryPlace:
    """`Place` in this process."""

    input, output = "events", "predictions"

    def __init__(self) -> None:
        topics = (self.input, self.output, f"{self.input}.dead-letter")
        self.broker = MemoryBroker(dict.fromkeys(topics, PARTITIONS))
        self._writers = 0

    def log(self, worker_id: str = "one", **changes: Any) -> MemoryLog:
        return MemoryLog(self.broker, settings_of(self, **changes), worker_id)

    def publish(self, *values: bytes, partition: int = 0, topic: str | None = None) -> None:
        for value in values:
            self.broker.publish(topic or self.input, b"k", value, partition=partition)

    def writer(self) -> Writer:
        self._writers += 1
        producer, topic = self.broker.producer(f"writer-{self._writers}"), self.input

        class MemoryWriter:
            def send(self, *values: bytes, partition: int = 0) -> None:
                producer.send(topic, [(b"k", value, partition, 0, []) for value in values])

            def end(self, *, is_committed: bool) -> None:
                producer.end(is_committed=is_committed)

        return MemoryWriter()

    def visible(self) -> list[bytes]:
        records, _ = self.broker.read(self.output, 0, Offset(0))
        return [record.value() or b"" for record in records]

    def delete_records(self, partition: int, before: int) -> None:
        self.broker.delete_records(self.input, partition, before)

    def add_partitions(self, count: int) -> None:
        self.broker.add_partitions(self.input, count)

    def recreate(self, topic: str, partitions: int = PARTITIONS) -> None:
        self.broker.recreate(topic, partitions)

    def members(self) -> int:
        return len(self.broker.group.members)

    def lose(self, member: Log, heir: Log) -> None:
        self.broker.group.rebalance({heir: range(PARTITIONS)})
        heir.poll(1, 0)

    def take_back(self, member: Log) -> None:
        group = self.broker.group
        group.rebalance_evenly([*group.members, member], PARTITIONS)

    def let_time_out(self, member: Log) -> None:
        assert isinstance(member, MemoryLog)
        self.broker.fence(member.worker_id)

    def close_log(self, log: Log) -> None:
        log.close()

    def close(self) -> None:
        """Nothing is held."""


class KafkaPlace:
    """`Place` on a real broker."""

    def __init__(self, bootstrap_servers: str, name: str) -> None:
        self.input, self.output = f"{name}.events", f"{name}.predictions"
        self._servers = bootstrap_servers
        topics = [self.input, self.output, f"{self.input}.dead-letter"]
        assert not [o for o in create_topics(bootstrap_servers, topics, PARTITIONS) if o.problem]
        self._client = {"bootstrap.servers": bootstrap_servers}
        self._producer = Producer({**self._client, "linger.ms": 0})
        self._admin = AdminClient(self._client)
        self._logs: list[KafkaLog] = []
        self._client_ids: dict[KafkaLog, str] = {}
        self._writers = 0

    def log(self, worker_id: str = "one", **changes: Any) -> KafkaLog:
        client_id = f"{self.input}.{worker_id}"
        options = {"bootstrap_servers": self._servers, "kafka_options": {"client.id": client_id}}
        log = KafkaLog(settings_of(self, **{**options, **changes}), worker_id)
        self._logs.append(log)
        self._client_ids[log] = client_id
        return log

    def publish(self, *values: bytes, partition: int = 0, topic: str | None = None) -> None:
        for value in values:
            self._producer.produce(topic or self.input, value, b"k", partition)
        assert self._producer.flush(30) == 0

    def writer(self) -> Writer:
        self._writers += 1
        name = f"{self.input}.writer-{self._writers}"
        producer = Producer({**self._client, "transactional.id": name, "linger.ms": 0})
        producer.init_transactions(30)
        return KafkaWriter(producer, self.input, self.log_end)

    def log_end(self, partition: int) -> int:
        """Ask for the end of an input partition, markers and open transactions counted."""
        return self._end_of(self.input, partition)

    def _end_of(self, topic: str, partition: int) -> int:
        place = TopicPartition(topic, partition)
        found = self._admin.list_offsets({place: OffsetSpec.latest()})
        return int(found[place].result(30).offset)

    def visible(self) -> list[bytes]:
        options = {
            **self._client,
            "group.id": "none",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
        reader, values = Consumer(options), []
        reader.assign([TopicPartition(self.output, 0, 0)])
        try:
            while True:
                message = reader.poll(30)
                assert message is not None, "no answer"
                error = message.error()
                if error is None:
                    values.append(message.value() or b"")
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                    # The end, for a reader of committed records, is the first open one.
                    return values
        finally:
            reader.close()

    def delete_records(self, partition: int, before: int) -> None:
        place = TopicPartition(self.input, partition, before)
        self._admin.delete_records([place])[place].result(30)

    def add_partitions(self, count: int) -> None:
        self._admin.create_partitions([NewPartitions(self.input, count)])[self.input].result(30)
        # The controller has them; the broker that clients ask hears of them a moment later.
        wait_until(lambda: self._partition_count() == count, 60, "the new partitions")
        # The one that there is doesn't know of them yet, and refuses to write there.
        self._producer = Producer({**self._client, "linger.ms": 0})

    def _partition_count(self) -> int:
        return len(self._admin.list_topics(self.input, timeout=30).topics[self.input].partitions)

    def recreate(self, topic: str, partitions: int = PARTITIONS) -> None:
        self.delete(topic)
        wait_until(lambda: self._is_created(topic, partitions), 60, "the new topic")

    def delete(self, topic: str) -> None:
        self._admin.delete_topics([topic])[topic].result(30)

    def _is_created(self, topic: str, partitions: int) -> bool:
        # Deleting continues for a moment after its answer.
        try:
            self._admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)
        except KafkaException as error:
            assert error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS, error
            return False
        return True

    def members(self) -> int:
        return len(group_members(self._servers, settings_of(self).group))

    def lose(self, member: Log, heir: Log) -> None:
        # What the group's coordinator does with a member that it has not heard of for too long.
        assert isinstance(member, KafkaLog) and isinstance(heir, KafkaLog)
        remove_member(self._servers, settings_of(self).group, self._client_ids[member])

        def has_all() -> bool:
            heir.poll(1, POLL_TIMEOUT_S)
            return len(heir._assigned) == PARTITIONS  # noqa: SLF001

        wait_until(has_all, 60, "the heir to have all partitions")

    def take_back(self, member: Log) -> None:
        """Its client does it by itself."""

    def let_time_out(self, member: Log) -> None:
        # What was sent is on its way: it has to be in the log before what is published behind it.
        wait_until(lambda: self._end_of(self.output, 0) > 0, 60, "the open transaction's record")
        self.publish(b"after it", topic=self.output)
        wait_until(lambda: b"after it" in self.visible(), 60, "the transaction's time-out")

    def close_log(self, log: Log) -> None:
        assert isinstance(log, KafkaLog)
        self._logs.remove(log)
        log.close()

    def close(self) -> None:
        for log in self._logs:
            log.close()
        self._producer.close()
