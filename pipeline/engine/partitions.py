"""The partitions that this worker owns; a commit never moves one of them back.

The broker refuses a member that it has left out, and its client reports the loss before anything is
assigned again (`Log`, `Listener`): that keeps two workers from answering one event.  The checks
here are the worker's own, and cost one request per rebalance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from livestep.pipeline.engine.commit_mark import CommitMark, is_of_another_topic
from livestep.pipeline.engine.log import AbortedError, Log
from livestep.pipeline.engine.saver import Move
from livestep.pipeline.errors import StateError
from livestep.pipeline.types import Offset


@dataclass(slots=True)
class Owned:
    """A partition that this worker owns.

    Attributes:
        partition: Index.
        position: Where to continue predicting: all before it is committed.
        start: Offset where the states begin.
        queued: `applied` once every save that waits is done.
        epoch: Names this hold of the partition to the saver.
        overtaken_at: Commit of another worker beyond `position`, None if there is none.
    """

    partition: int
    position: Offset
    start: Offset
    queued: Offset
    epoch: int
    overtaken_at: Offset | None = None

    def move_applied(self, applied: Offset) -> Move:
        """Describe the next save, which moves `applied` there; the one after it starts there."""
        move = Move(self.partition, self.epoch, expected=self.queued, applied=applied)
        self.queued = applied
        return move


class Partitions(Mapping[int, Owned]):
    """What a worker knows of each partition that it owns, by index.

    Args:
        log: The seam to Kafka.
        fingerprint: Of the model, for the marks of commits.
    """

    def __init__(self, log: Log, fingerprint: str) -> None:
        self._log = log
        self._fingerprint = fingerprint
        self._owned: dict[int, Owned] = {}

    def __getitem__(self, partition: int) -> Owned:
        return self._owned[partition]

    def __iter__(self) -> Iterator[int]:
        return iter(self._owned)

    def __len__(self) -> int:
        return len(self._owned)

    def own(self, owned: Owned) -> None:
        """Add a partition, or replace what is known of it."""
        self._owned[owned.partition] = owned

    def release(self, partition: int) -> None:
        """Remove a partition, if it is here."""
        self._owned.pop(partition, None)

    def positions(self, partitions: Iterable[int]) -> dict[int, Offset]:
        """Return the positions of those partitions that are owned."""
        return {p: self._owned[p].position for p in partitions if p in self._owned}

    def mark(self, partition: int) -> CommitMark:
        """Return the mark of this worker's commits of a partition."""
        log = self._log
        start = self._owned[partition].start
        return CommitMark(self._fingerprint, log.partitions, start, log.topic_id)

    def marked(self, offsets: Mapping[int, Offset]) -> dict[int, tuple[Offset, str]]:
        """Add the mark, as commit metadata, to each offset."""
        return {p: (offset, self.mark(p).to_text()) for p, offset in offsets.items()}

    def read_commits(self) -> None:
        """Look for commits of others in partitions that were kept through a rebalance."""
        if not self._owned:
            return
        self._log.check_topic()
        for partition, (offset, metadata) in self._log.committed(self._owned.keys()).items():
            if is_of_another_topic(CommitMark.from_text(metadata), self._log.topic_id):
                continue
            if offset is not None and offset > self._owned[partition].position:
                self._owned[partition].overtaken_at = offset

    def check_positions(self, partitions: Iterable[int]) -> None:
        """Check that no other worker has continued where this one is about to.

        Raises:
            AbortedError: If one has. The next poll reports that the partition is lost; until then
                nothing of it is committed.
        """
        for partition in partitions:
            if (offset := self._owned[partition].overtaken_at) is not None:
                raise AbortedError(
                    f"another worker has committed partition {partition} up to {offset}, this one "
                    f"is at {self._owned[partition].position}"
                )

    def check_forward(self, next_offsets: Mapping[int, Offset]) -> None:
        """Check that a batch moves each of its partitions forward.

        Raises:
            StateError: If it does not: a defect.
        """
        for partition, offset in next_offsets.items():
            if offset <= (position := self._owned[partition].position):
                raise StateError(
                    f"partition {partition}: {position} is committed, and {offset} would be: its "
                    "events would be answered twice"
                )
