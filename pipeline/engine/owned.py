"""What this worker knows of the partitions that it has; a commit never moves one of them back.

The broker refuses a member that it has left out, and its client tells of the loss before anything
is assigned again (`Log`, `Listener`): that keeps two workers from answering one event.  The checks
here are the worker's own, and cost one question for each rebalance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from livestep.pipeline.engine.log import AbortedError, Log
from livestep.pipeline.engine.recovery import CommitMark, is_of_another_topic
from livestep.pipeline.errors import StateError
from livestep.pipeline.types import Offset


@dataclass(slots=True)
class Owned:
    """A partition that this worker has.

    Attributes:
        position: Where to predict on: all before it is committed.
        start: Offset where the states begin.
        queued: `applied` once every save that waits is done.
        epoch: Names this hold of the partition to the saver.
        overtaken_at: Commit of another worker beyond `position`, None if there is none.
    """

    position: Offset
    start: Offset
    queued: Offset
    epoch: int
    overtaken_at: Offset | None = None


def read_commits(owned: Mapping[int, Owned], log: Log) -> None:
    """Look for commits of others in partitions that this worker has kept through a rebalance."""
    if not owned:
        return
    for partition, (offset, metadata) in log.committed(owned.keys()).items():
        if is_of_another_topic(CommitMark.from_text(metadata), log.topic_id):
            continue
        if offset is not None and offset > owned[partition].position:
            owned[partition].overtaken_at = offset


def check_positions(owned: Mapping[int, Owned], partitions: Iterable[int]) -> None:
    """Check that nobody has gone on where this worker is about to.

    Raises:
        AbortedError: If somebody has. The next poll tells that the partition is lost; until then
            nothing of it is committed.
    """
    for partition in partitions:
        if (offset := owned[partition].overtaken_at) is not None:
            raise AbortedError(
                f"another worker has committed partition {partition} up to {offset}, this one is "
                f"at {owned[partition].position}"
            )


def check_forward(owned: Mapping[int, Owned], next_offsets: Mapping[int, Offset]) -> None:
    """Check that a batch moves each of its partitions forward.

    Raises:
        StateError: If it does not: a defect.
    """
    for partition, offset in next_offsets.items():
        if offset <= (position := owned[partition].position):
            raise StateError(
                f"partition {partition}: {position} is committed, and {offset} would be: its "
                "events would be answered twice"
            )
