"""The progress of a publish, in the format of `--skip`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.publishing.columns import BadRow

_POSITION = re.compile(r"([0-9]{1,18})((?:,[0-9]{1,9}:[0-9]{1,18})*)")


@dataclass(frozen=True)
class Position:
    """Rows that are done.

    In a partition, nothing is delivered after an undelivered record, while other partitions
    continue. So one row number is enough, except for partitions with undelivered records.

    Attributes:
        row_count: How many rows of the file are done.
        by_partition: Partitions that are behind, with their number of rows.
        partition_count: Number of the topic's partitions.

    Example:
        >>> position = Position.parse("100,2:40", partition_count=4)
        >>> str(position), str(Position(7))
        ('100,2:40', '7')
    """

    row_count: int = 0
    by_partition: dict[int, int] = field(default_factory=dict)
    partition_count: int = 1

    @classmethod
    def parse(cls, text: str, partition_count: int = 1) -> Position:
        """Parse the output of `str`.

        Raises:
            ValueError: If the text is invalid, or the topic lacks a partition.
        """
        found = _POSITION.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not a number of rows, or N,PARTITION:N,...")
        row_count = int(found[1])
        parts = [part.split(":") for part in found[2].split(",")[1:]]
        by_partition = {int(partition): int(rows) for partition, rows in parts}
        for partition, rows in by_partition.items():
            if partition >= partition_count:
                raise ValueError(
                    f"the topic has {partition_count} partitions, and no partition {partition}"
                )
            if rows > row_count:
                raise ValueError(f"partition {partition} has {rows} rows, more than {row_count}")
        return cls(row_count, by_partition, partition_count)

    def __str__(self) -> str:
        exceptions = sorted(self.by_partition.items())
        return ",".join([str(self.row_count), *(f"{part}:{rows}" for part, rows in exceptions)])

    def has_done(self, record: EventRecord | BadRow) -> bool:
        """Return whether a row is done."""
        if record.number > self.row_count:
            return False
        if isinstance(record, BadRow) or not self.by_partition:
            return True
        return record.number <= self.by_partition.get(self._partition(record), self.row_count)

    def after(
        self, row_count: int, undelivered: Iterable[EventRecord], delivered_number_max: int
    ) -> Position:
        """Compute the position after more rows were sent.

        Args:
            row_count: Number of the last row that was read.
            undelivered: Records that must be sent again.
            delivered_number_max: The largest delivered row number.
        """
        waiting: dict[int, int] = {}
        for record in undelivered:
            partition = self._partition(record)
            waiting[partition] = min(waiting.get(partition, record.number), record.number)
        total = max(self.row_count, row_count)
        done = {part: max(rows, row_count) for part, rows in self.by_partition.items()}
        done |= {partition: number - 1 for partition, number in waiting.items()}
        least = min([total, *done.values()])
        if max(delivered_number_max, self.row_count) <= least:
            return Position(least, {}, self.partition_count)
        behind = {part: rows for part, rows in done.items() if rows < total}
        return Position(total, behind, self.partition_count)

    def _partition(self, record: EventRecord) -> int:
        # Imported only after a failure: kafka-python takes time to load.
        from livestep.pipeline.kafka.partitioners import murmur2_partition

        return murmur2_partition(record.key, self.partition_count)
