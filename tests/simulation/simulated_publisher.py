"""Who publishes a plan's events: by themselves or in transactions, which leave gaps in offsets."""

from __future__ import annotations

from collections.abc import Callable

from livestep import MemoryBroker
from livestep.pipeline.memory.memory_broker import MemoryTransaction
from livestep.pipeline.records import Source
from tests.simulation.plan import ABORTED, PLAIN, Plan, Published
from tests.support.shaped import ShapedRecord
from tests.support.world import INPUT

#: Keys of a partition that come back at the end.
_LAST_KEYS = 3


class Publisher:
    """Publishes what is due.

    Args:
        plan: What, and when.
        broker: Where to.
        take: Told of each event that is not to be aborted.
    """

    def __init__(
        self, plan: Plan, broker: MemoryBroker, take: Callable[[Source, ShapedRecord], None]
    ) -> None:
        self._plan = plan
        self._broker = broker
        self._take = take
        self._events = list(plan.events)
        self._open: list[tuple[int, MemoryTransaction, bool]] = []

    def publish(self, now: int) -> None:
        """Publish what is due, and end the transactions that are."""
        for _, transaction, is_committed in [one for one in self._open if one[0] <= now]:
            self._broker.end(transaction, is_committed=is_committed)
        self._open = [one for one in self._open if one[0] > now]
        while self._events and self._events[0].tick <= now:
            self._publish_one(self._events.pop(0))

    def publish_last(self, now: int) -> None:
        """Publish what lets a loss of the store be noticed: it is, at the next event.

        Some keys come back for it, so that their states are looked at once more.
        """
        for partition in range(self._broker.partition_counts[INPUT]):
            last = {
                event.record.key: event.record
                for event in self._plan.events
                if not event.record.is_bad and self._partition(event.record.key) == partition
            }
            tombstone = ShapedRecord(b"last-%d" % partition, None, [], 0)
            for record in list(last.values())[-_LAST_KEYS:] or [tombstone]:
                self._publish_one(Published(now, record, PLAIN, 0))

    def _partition(self, key: bytes) -> int:
        return key[-1] % self._broker.partition_counts[INPUT]

    def _publish_one(self, event: Published) -> None:
        record = event.record
        transaction = None if event.mode == PLAIN else MemoryTransaction()
        partition = self._partition(record.key)
        headers: list[tuple[str, str | bytes | None]] = list(record.headers)
        outgoing = (record.key, record.value, partition, record.timestamp_ms, headers)
        source = self._broker.append(INPUT, outgoing, transaction)
        if transaction is not None:
            is_committed = event.mode != ABORTED
            if event.open_ticks:
                self._open.append((event.tick + event.open_ticks, transaction, is_committed))
            else:
                self._broker.end(transaction, is_committed=is_committed)
        if event.mode != ABORTED:
            self._take(source, record)
