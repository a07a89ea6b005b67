"""The store of a model that keeps nothing from one event to the next: there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from livestep.pipeline.state.stored_partition import DamagedPartition, StoredPartition
from livestep.pipeline.types import Offset


class NoStore:
    """`Store` that holds nothing; a worker with it needs no Redis."""

    def describe(
        self, partitions: Sequence[int]
    ) -> dict[int, StoredPartition | DamagedPartition | None]:
        """See `Store.describe`: nothing is held."""
        return dict.fromkeys(partitions)

    def begin(
        self,
        partition: int,
        *,
        expected: Offset | bytes | None,
        applied: Offset,
        start: Offset,
        partitions: int,
    ) -> None:
        """See `Store.begin`: there is nothing to drop."""

    def load(
        self, partition: int, keys: Sequence[bytes]
    ) -> tuple[Offset | None, list[bytes | None]]:
        """See `Store.load`: no key has a state."""
        return None, [None] * len(keys)

    def scan(self, partition: int) -> Iterator[dict[bytes, bytes]]:
        """See `Store.scan`: there are no states."""
        return iter(())

    def save(
        self,
        partition: int,
        *,
        expected: Offset,
        applied: Offset,
        keys: Sequence[bytes],
        records: Sequence[bytes],
        clock: bytes | None = None,
    ) -> None:
        """See `Store.save`: there is nothing to write."""

    def give_up_waiting(self) -> None:
        """See `Store.give_up_waiting`: no call ever waits."""

    def close(self) -> None:
        """See `Store.close`: there is no connection."""
