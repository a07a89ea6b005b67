"""What a commit states about the states that it goes with, next to the offset."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from livestep.pipeline.engine.topic_state import partitions_changed
from livestep.pipeline.state.stored_partition import StoredPartition
from livestep.pipeline.types import Offset


@dataclass(frozen=True, slots=True)
class CommitMark:
    """What a commit records about the states, in the metadata that Kafka stores with the offset.

    Attributes:
        model: Fingerprint of the model.
        partitions: Partitions of the topic.
        start: Offset where the states begin.
        topic: Id of the topic; None in a mark of before marks had it.
    """

    model: str
    partitions: int
    start: Offset
    topic: str | None = None

    def to_text(self) -> str:
        """Write it as commit metadata.

        Example:
            >>> CommitMark("00ff", 4, Offset(0), "YQ").to_text()
            'livestep/2 model=00ff partitions=4 start=0 topic=YQ'
        """
        text = f"model={self.model} partitions={self.partitions} start={self.start}"
        if self.topic is None:
            return f"livestep/1 {text}"
        return f"livestep/2 {text} topic={self.topic}"

    @classmethod
    def from_text(cls, text: str | None) -> CommitMark | None:
        """Read commit metadata; None if this program did not write it."""
        match = re.fullmatch(
            # No more digits than an int64 has: another program may have written this.
            r"livestep/([12]) model=([0-9a-f]+) partitions=([0-9]{1,18}) start=([0-9]{1,18})"
            r"(?: topic=([A-Za-z0-9+/_-]{1,40}))?",
            text or "",
        )
        if match is None or (match[1] == "2") != (match[5] is not None):
            return None
        return cls(match[2], int(match[3]), Offset(int(match[4])), match[5])


def check_partitions(
    topic: str,
    topic_id: str,
    partitions: int,
    written: Iterable[CommitMark | StoredPartition | None],
) -> None:
    """Check that states and commits were written under the topic's present partitions.

    Commits that were made against another topic of this name are ignored.

    Raises:
        PartitionsChangedError: If one was not.
    """
    for one in written:
        if isinstance(one, CommitMark) and is_of_another_topic(one, topic_id):
            continue
        if one is not None and one.partitions != partitions:
            raise partitions_changed(topic, partitions, one.partitions)


def is_of_another_topic(mark: CommitMark | None, topic_id: str) -> bool:
    """Whether a commit was made against a topic of the same name that has been deleted since."""
    return mark is not None and mark.topic not in (None, topic_id)
