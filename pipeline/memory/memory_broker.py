"""A broker in this process: topics, transactions, and one consumer group, as Kafka has them.

What it keeps of Kafka is what the engine's promise rests on: a record of an open transaction holds
back all readers behind it, an aborted one is never read, a marker has its own offset, the
newer producer of a transactional id fences the older, and a member that has missed a rebalance
commits nothing. It has no time: time-outs are calls (`MemoryBroker.fence`).
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from livestep.pipeline.engine.log import AbortedError
from livestep.pipeline.engine.topic_state import TopicState
from livestep.pipeline.errors import FencedError
from livestep.pipeline.records import Source
from livestep.pipeline.types import Headers, Offset, Outgoing


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """One record; its methods are those of `confluent_kafka.Message`."""

    where: tuple[str, int, Offset]
    what: tuple[bytes | None, bytes | None]
    time_ms: int = 0
    header_list: Headers = field(default_factory=list)

    def topic(self) -> str:
        """Name of the topic."""
        return self.where[0]

    def partition(self) -> int:
        """Index of the partition."""
        return self.where[1]

    def offset(self) -> int:
        """Position in the partition."""
        return self.where[2]

    def key(self) -> bytes | None:
        """Key, or None."""
        return self.what[0]

    def value(self) -> bytes | None:
        """Value, or None for a tombstone."""
        return self.what[1]

    def timestamp(self) -> tuple[int, int]:
        """Kind of timestamp (1: set by the producer), milliseconds since the epoch."""
        return 1, self.time_ms

    def headers(self) -> list[tuple[str, Any]] | None:
        """Headers in their order, or None."""
        return list(self.header_list) or None

    def error(self) -> None:
        """Nothing: a record in memory is never an error."""


@dataclass(slots=True)
class MemoryTransaction:
    """The state of one transaction, whose records are in the log from the start."""

    is_open: bool = True
    is_committed: bool = False
    #: Offset of its first record, in each topic and partition that it has touched.
    touched: dict[tuple[str, int], Offset] = field(default_factory=dict)


#: A record and its transaction, or None and None for a marker.
_Entry = tuple[MemoryRecord | None, MemoryTransaction | None]


#: What a topic has if nothing else is said.
_DEFAULT_SETTINGS = {
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
}


class MemoryBroker:
    """Topics, producers and one consumer group.

    Args:
        topics: Number of partitions of each topic.

    Example:
        >>> broker = MemoryBroker({"events": 2})
        >>> broker.publish("events", b"a", b"1", partition=0)
        Source(topic='events', partition=0, offset=0)
        >>> [record.value() for record in broker.records("events")]
        [b'1']
    """

    def __init__(self, topics: Mapping[str, int]) -> None:
        self._entries: dict[str, list[list[_Entry]]] = {
            topic: [[] for _ in range(count)] for topic, count in topics.items()
        }
        self._starts: dict[tuple[str, int], Offset] = {}
        self._creations = 0
        self._ids = {topic: self._next_id() for topic in topics}
        #: Settings of each topic that are not Kafka's own.
        self.settings: dict[str, dict[str, str]] = {}
        self._open: list[MemoryTransaction] = []
        self._producers: dict[str, MemoryProducer] = {}
        self.group = MemoryGroup()

    def topics(self) -> dict[str, TopicState]:
        """Return id and number of partitions of each topic."""
        counts = self.partition_counts
        return {topic: TopicState(self._ids[topic], counts[topic]) for topic in counts}

    @property
    def partition_counts(self) -> dict[str, int]:
        """Partitions of each topic."""
        return {topic: len(partitions) for topic, partitions in self._entries.items()}

    def recreate(
        self, topic: str, partitions: int | None = None, *, is_group_told: bool = True
    ) -> None:
        """Delete a topic and create another of its name, which has another id and is empty.

        Args:
            topic: Its name.
            partitions: Of the new one; by default as many as there were.
            is_group_told: Let the group forget what it has committed, as Kafka does soon after. If
                not, the commits are still there, as one that a worker makes too late would be.
        """
        count = len(self._entries[topic]) if partitions is None else partitions
        self._entries[topic] = [[] for _ in range(count)]
        self._starts = {place: at for place, at in self._starts.items() if place[0] != topic}
        self._ids[topic] = self._next_id()
        for one in self._open:  # which get no marker in the new topic
            one.touched = {place: at for place, at in one.touched.items() if place[0] != topic}
        if is_group_told and topic == self.group.topic:
            self.group.offsets.clear()

    def _next_id(self) -> str:
        self._creations += 1
        return f"memory-{self._creations}"

    def add_partitions(self, topic: str, count: int) -> None:
        """Give a topic more partitions: `count` in all."""
        partitions = self._entries[topic]
        partitions += [[] for _ in range(count - len(partitions))]

    def setting(self, topic: str, name: str) -> str:
        """Read one setting of a topic."""
        return self.settings.get(topic, {}).get(name, _DEFAULT_SETTINGS[name])

    def publish(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int | None = None,
        timestamp_ms: int = 0,
        headers: Headers | None = None,
    ) -> Source:
        """Write one record outside of any transaction.

        Args:
            topic: Topic.
            key: Key.
            value: Value.
            partition: Where to; by default the key decides.
            timestamp_ms: Event time.
            headers: In their order.

        Returns:
            source: Its place.
        """
        if partition is None:
            partition = zlib.crc32(key or b"") % len(self._entries[topic])
        return self.append(topic, (key, value, partition, timestamp_ms, headers or []))

    def producer(self, transactional_id: str) -> MemoryProducer:
        """Take over a transactional id: fence its producer, and abort its transaction."""
        self.fence(transactional_id)
        self._producers[transactional_id] = MemoryProducer(self)
        return self._producers[transactional_id]

    def fence(self, transactional_id: str) -> None:
        """Time out a transactional id: abort what is open, refuse the rest."""
        producer = self._producers.pop(transactional_id, None)
        if producer is not None:
            producer.end(is_committed=False)
            producer.is_fenced = True

    def records(self, topic: str) -> list[MemoryRecord]:
        """Read all committed records of a topic, partition by partition."""
        partitions = range(len(self._entries[topic]))
        return [record for p in partitions for record in self.read(topic, p, Offset(0))[0]]

    def read(
        self, topic: str, partition: int, start: Offset, records_max: int | None = None
    ) -> tuple[list[MemoryRecord], Offset]:
        """Read committed records, up to the first transaction that is open.

        Returns:
            records: From `start` on.
            position: Where to read on; behind markers and aborted records, too.
        """
        records: list[MemoryRecord] = []
        entries = self._entries[topic][partition]
        position = max(start, self._starts.get((topic, partition), Offset(0)))
        for index in range(position, len(entries)):
            record, transaction = entries[index]
            is_open = transaction is not None and transaction.is_open
            if is_open or (record is not None and len(records) == records_max):
                break
            if record is not None and (transaction is None or transaction.is_committed):
                records.append(record)
            position = Offset(index + 1)
        return records, position

    def bounds(self, topic: str, partition: int) -> tuple[Offset, Offset]:
        """Return the first offset of the log, and the one after its last.

        As to any reader of committed records, the log ends before its first open transaction.
        """
        place = (topic, partition)
        ends = [one.touched[place] for one in self._open if place in one.touched]
        ends.append(Offset(len(self._entries[topic][partition])))
        return self._starts.get(place, Offset(0)), min(ends)

    def log_end(self, topic: str, partition: int) -> Offset:
        """Return the offset of the next record, open transactions included."""
        return Offset(len(self._entries[topic][partition]))

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Delete the records before an offset, as retention does."""
        self._starts[topic, partition] = Offset(before)

    def append(
        self, topic: str, record: Outgoing, transaction: MemoryTransaction | None = None
    ) -> Source:
        """Write one record, visible once its transaction is committed."""
        key, value, partition, time_ms, headers = record
        entries = self._entries[topic][partition]
        where = (topic, partition, Offset(len(entries)))
        # Text becomes bytes, as it does on the wire.
        headers = [(name, v.encode() if isinstance(v, str) else v) for name, v in headers]
        entries.append((MemoryRecord(where, (key, value), time_ms, headers), transaction))
        if transaction is not None:
            transaction.touched.setdefault((topic, partition), where[2])
            if not any(one is transaction for one in self._open):
                self._open.append(transaction)
        return Source(*where)

    def end(self, transaction: MemoryTransaction, *, is_committed: bool) -> None:
        """Commit or abort: a marker in each partition that the transaction has touched."""
        transaction.is_open, transaction.is_committed = False, is_committed
        self._open = [one for one in self._open if one is not transaction]
        for topic, partition in transaction.touched:
            self._entries[topic][partition].append((None, None))


class MemoryProducer:
    """A producer with one transaction at a time; `MemoryBroker.producer` makes it.

    Attributes:
        is_fenced: Whether a newer producer has its transactional id, or it was away too long.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._open: MemoryTransaction | None = None
        self.is_fenced = False

    def send(self, topic: str, records: Iterable[Outgoing]) -> None:
        """Send within the open transaction, opening one if there is none."""
        self.check()
        self._open = self._open or MemoryTransaction()
        for record in records:
            self._broker.append(topic, record, self._open)

    def end(self, *, is_committed: bool) -> None:
        """Commit or abort what is open, if anything is."""
        self.check()
        if self._open is not None:
            self._broker.end(self._open, is_committed=is_committed)
            self._open = None

    def check(self) -> None:
        """Raise FencedError if another has this producer's place."""
        if self.is_fenced:
            raise FencedError("another worker has this one's transactional id, or its time is out")


class MemoryGroup:
    """Who has which partition, and what is committed.

    Members learn about a rebalance from `target`, when they ask. One that has partitions to give
    up does so before another takes them, however long its listener is busy with what came before;
    one that was left out of a rebalance has lost them at once, and learns it later.

    Attributes:
        generation: Number of the last rebalance.
        offsets: Committed offset and metadata of each partition that has them; a test that plays
            the operator may change them.
        topic: What it reads; set by its first log.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.offsets: dict[int, tuple[Offset, str]] = {}
        self.topic = ""
        self._targets: dict[object, frozenset[int]] = {}
        self._owners: dict[int, object] = {}

    @property
    def members(self) -> list[object]:
        """Members, in the order in which they joined."""
        return list(self._targets)

    def rebalance(self, targets: Mapping[Any, Collection[int]]) -> None:
        """Begin a generation with these members; others are removed without notice."""
        self.generation += 1
        self._targets = {member: frozenset(partitions) for member, partitions in targets.items()}
        self._owners = {p: owner for p, owner in self._owners.items() if owner in targets}

    def rebalance_evenly(self, members: Collection[object], partition_count: int) -> None:
        """Begin a generation in which the partitions are dealt out in turn."""
        self.rebalance(
            {
                member: range(index, partition_count, len(members))
                for index, member in enumerate(members)
            }
        )

    def target(self, member: object) -> frozenset[int]:
        """Partitions that a member shall have; none if it is out."""
        return self._targets.get(member, frozenset())

    def owner(self, partition: int) -> object | None:
        """The member that has a partition now."""
        return self._owners.get(partition)

    def take(self, member: object, partition: int) -> None:
        """Note that a member has taken a partition."""
        self._owners[partition] = member

    def release(self, partition: int) -> None:
        """Note that a member has given a partition up."""
        del self._owners[partition]

    def commit(self, generation: int, offsets: Mapping[int, tuple[Offset, str]]) -> None:
        """Commit offsets.

        Raises:
            AbortedError: If there was a rebalance that the member has not taken note of.
        """
        if generation != self.generation:
            raise AbortedError(f"generation {generation} has ended, this is {self.generation}")
        self.offsets.update(offsets)
