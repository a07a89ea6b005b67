"""The log in memory: one worker's view of a `MemoryBroker`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from livestep.pipeline.columns.log_records import Records, records_of
from livestep.pipeline.engine.log import AbortedError, Listener, StartAt
from livestep.pipeline.engine.topic_state import OutputTopics, topic_replaced
from livestep.pipeline.memory.memory_broker import MemoryBroker, MemoryProducer, MemoryRecord
from livestep.pipeline.settings import Settings
from livestep.pipeline.types import Offset, Outgoing


class MemoryLog:
    """`Log` on a `MemoryBroker`; several share one as the workers of one group.

    Partitions are assigned and revoked within `poll`, as `MemoryGroup.rebalance` says; joining and
    leaving deal them out evenly.

    Args:
        broker: Where the topics are.
        settings: Topics and guarantee.
        worker_id: A second log with the same one fences the first.
    """

    def __init__(self, broker: MemoryBroker, settings: Settings, worker_id: str = "worker") -> None:
        self._broker = broker
        self._group = broker.group
        self._topic = settings.input_topic
        self._is_transactional = settings.guarantee == "exactly-once"
        self._auto_offset_reset = settings.auto_offset_reset
        self._listener: Listener | None = None
        self._producer: MemoryProducer | None = None
        self._generation = -1
        self._positions: dict[int, Offset] = {}
        self._paused: set[int] = set()
        self._added: set[int] = set()
        self.worker_id = worker_id
        topics = broker.topics()
        self.topic_id, self.partitions = topics[self._topic]
        self.partition_counts = {topic: state.partitions for topic, state in topics.items()}
        outputs = (settings.output_topic, settings.dead_letter_topic)
        self._outputs = OutputTopics({topic: topics[topic] for topic in outputs})
        self._group.topic = self._topic

    def subscribe(self, listener: Listener) -> None:
        """See `Log.subscribe`."""
        self._listener = listener
        if self._is_transactional:
            self._producer = self._broker.producer(self.worker_id)
        else:
            self._producer = MemoryProducer(self._broker)
        self._deal([m for m in self._members() if m.worker_id != self.worker_id] + [self])

    def poll(self, records_max: int, timeout_s: float) -> Records:
        """See `Log.poll`; never waits."""
        self._rebalance()
        records: list[MemoryRecord] = []
        for partition in sorted(self._positions.keys() - self._paused):
            found, position = self._read(partition, records_max - len(records))
            records += found
            self._positions[partition] = position
        if not records:
            # On Kafka a timer looks, busy or not; here a busy worker looks when it commits.
            self.check_topic()
            self._outputs.look(self._broker.topics())
        return records_of(self._topic, records)

    def send(self, topic: str, records: Iterable[Outgoing]) -> None:
        """See `Log.send`."""
        assert self._producer is not None
        if self._is_transactional:
            self._producer.send(topic, records)
        else:
            self.check_topic()  # what is sent is seen at once
            for record in records:
                self._broker.append(topic, record)

    def commit(self, offsets: Mapping[int, tuple[Offset, str]]) -> None:
        """See `Log.commit`."""
        assert self._producer is not None
        self._producer.check()
        self.check_topic()
        try:
            self._group.commit(self._generation, offsets)
        except AbortedError:
            self._producer.end(is_committed=False)
            raise
        self._producer.end(is_committed=True)

    def rewind(self, positions: Mapping[int, Offset]) -> None:
        """See `Log.rewind`."""
        self._positions.update({p: at for p, at in positions.items() if p in self._positions})

    def committed(
        self, partitions: Collection[int] | None = None
    ) -> dict[int, tuple[Offset | None, str]]:
        """See `Log.committed`."""
        wanted = range(self.partitions) if partitions is None else partitions
        nothing: tuple[Offset | None, str] = (None, "")
        return {p: self._group.offsets.get(p, nothing) for p in wanted}

    def check_topic(self) -> None:
        """See `Log.check_topic`."""
        now = self._broker.topics()[self._topic]
        if now.id != self.topic_id:
            raise topic_replaced(self._topic, self.topic_id, now, self._auto_offset_reset)
        if now.partitions != self.partitions:
            if self._listener is not None:
                self._listener.partitions_changed(now.partitions)
            self._added |= set(range(self.partitions, now.partitions))
            self.partitions = now.partitions
            if self in self._members():  # as the group's leader does
                self._deal(self._members())

    def topic_setting(self, topic: str, name: str) -> str:
        """See `Log.topic_setting`."""
        return self._broker.setting(topic, name)

    def bounds(self, partition: int) -> tuple[Offset, Offset]:
        """See `Log.bounds`."""
        return self._broker.bounds(self._topic, partition)

    def pause(self, partition: int) -> None:
        """See `Log.pause`."""
        self._paused.add(partition)

    def resume(self, partition: int) -> None:
        """See `Log.resume`."""
        self._paused.discard(partition)

    def replay(self, partition: int, start: Offset, end: Offset) -> MemoryReplay:
        """See `Log.replay`."""
        return MemoryReplay(self._broker, self._topic, partition, start, end)

    @property
    def is_at_end(self) -> bool:
        """See `Log.is_at_end`."""
        return self.lag() == 0

    def lag(self) -> int:
        """See `Log.lag`; exact."""
        added = range(self.partitions, self._broker.partition_counts[self._topic])
        untaken = {p for p in self._added.union(added) if self._group.owner(p) is None}
        places = {**dict.fromkeys(untaken, Offset(0)), **self._positions}
        return sum(
            len(self._broker.read(self._topic, partition, position)[0])
            for partition, position in places.items()
        )

    def close(self) -> None:
        """See `Log.close`."""
        assert self._listener is not None and self._producer is not None
        if not self._producer.is_fenced:
            self._producer.end(is_committed=False)
        self._give_up(set(self._positions))
        if self in self._members():
            self._deal([member for member in self._members() if member is not self])

    def _read(self, partition: int, records_max: int | None) -> tuple[list[MemoryRecord], Offset]:
        start = self._positions[partition]
        return self._broker.read(self._topic, partition, start, records_max)

    def _members(self) -> list[Any]:
        return self._group.members

    def _deal(self, members: list[Any]) -> None:
        self._group.rebalance_evenly(members, self._broker.partition_counts[self._topic])

    def _rebalance(self) -> None:
        """Follow the group's generation: first give up partitions, then take free ones."""
        assert self._listener is not None
        generation, target = self._group.generation, self._group.target(self)
        self._give_up(self._positions.keys() - target)
        if self._group.generation != generation:
            return  # the listener took so long that there is a newer one: the next poll follows it
        free = {p for p in target - self._positions.keys() if self._group.owner(p) is None}
        if not free and self._generation == self._group.generation:
            return
        self._generation = self._group.generation
        for partition in free:
            # From here on the group waits for this member to give it up, or leaves it out: what
            # happens while the listener is asked is noticed at the next poll.
            self._group.take(self, partition)
        starts: dict[int, StartAt] = self._listener.assigned(sorted(free))
        for partition, start in starts.items():
            self._positions[partition] = start.position
            if start.is_paused:
                self._paused.add(partition)

    def _give_up(self, partitions: set[int]) -> None:
        """Report revoked and lost partitions to the listener; a partition may be both."""
        assert self._listener is not None
        gone = {p for p in self._positions if self._group.owner(p) is not self}
        for lost, leaving in ((True, gone), (False, partitions - gone)):
            if leaving:
                self._listener.revoked(sorted(leaving), is_lost=lost)
        for partition in gone | partitions:
            del self._positions[partition]
            self._paused.discard(partition)
            # Meanwhile the group may have removed this member.
            if self._group.owner(partition) is self:
                self._group.release(partition)


class MemoryReplay:
    """`Replay` on a `MemoryBroker`."""

    def __init__(
        self, broker: MemoryBroker, topic: str, partition: int, start: Offset, end: Offset
    ) -> None:
        self._broker = broker
        self._place = (topic, partition)
        self._position = start
        self._end = end

    def read(self, records_max: int, timeout_s: float) -> Records:
        """See `Replay.read`; never waits."""
        found, self._position = self._broker.read(*self._place, self._position, records_max)
        topic, _ = self._place
        return records_of(topic, [one for one in found if one.offset() < self._end])

    @property
    def is_done(self) -> bool:
        """See `Replay.is_done`."""
        rest, _ = self._broker.read(*self._place, self._position, 1)
        return not rest or rest[0].offset() >= self._end

    def close(self) -> None:
        """See `Replay.close`."""
