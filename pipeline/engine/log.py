"""The seam to the log: what the cycle and the recovery need from Kafka.

`KafkaLog` implements it on Kafka, `MemoryLog` in memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from livestep.pipeline.columns.log_records import Records
from livestep.pipeline.types import Offset, Outgoing


class AbortedError(Exception):
    """Raised if the transaction was aborted: the batch is dropped and read again."""


class StartAt(NamedTuple):
    """Where to read an assigned partition, and whether to leave it out of `poll` at first."""

    position: Offset
    is_paused: bool


class Listener(Protocol):
    """Gets the changes of the assignment, always from within `Log.poll` or `Log.close`.

    The group waits for a member that needs time within `assigned`. If the group removes the member
    then, or at any other time, `revoked` reports the loss before anything is assigned again, and
    until then no commit of that member is accepted.
    """

    def assigned(self, partitions: Sequence[int]) -> dict[int, StartAt]:
        """Take partitions over; return for each where to begin."""

    def revoked(self, partitions: Sequence[int], *, is_lost: bool) -> None:
        """Release partitions; if they are lost, another worker may own them already."""

    def partitions_changed(self, partitions: int) -> None:
        """Handle a new number of partitions of the input topic.

        Called from within any call of the log but `send`, while `Log.partitions` still is the old
        number. What it raises is raised there, and nothing is committed.
        """


class Replay(Protocol):
    """A second reader over a part of one partition."""

    def read(self, records_max: int, timeout_s: float) -> Records:
        """Read what has arrived; waits for the first record at most."""

    @property
    def is_done(self) -> bool:
        """Whether all of the part has been read."""

    def close(self) -> None:
        """Stop reading."""


class Log(Protocol):
    """Events in, predictions out, one transaction a cycle."""

    #: Partitions of the input topic, as far as is known.
    partitions: int

    #: Id of the input topic when this log was made; everything is committed against that one.
    topic_id: str

    #: Partitions of the input, output and dead-letter topic when this log was made.
    partition_counts: dict[str, int]

    def subscribe(self, listener: Listener) -> None:
        """Join the group."""

    def poll(self, records_max: int, timeout_s: float) -> Records:
        """Return what has arrived on all assigned partitions that are not paused.

        Waits for the first record at most `timeout_s`, and not at all for more. Now and then it
        looks whether the topics still are what they were.

        Raises:
            TopicReplacedError: If the input topic was deleted, or created again.
            EngineError: What the listener raised, or the broker refuses.
        """

    def send(self, topic: str, records: Iterable[Outgoing]) -> None:
        """Send records within the open transaction, opening one if there is none.

        Predictions come as `OutgoingColumns`.
        """

    def commit(self, offsets: Mapping[int, tuple[Offset, str]]) -> None:
        """Commit what was sent together with the offsets and their metadata.

        Before, the broker is asked what the input topic is, later than the last poll: so what was
        polled is of that topic, and of so many partitions, or nothing is committed.

        Raises:
            TopicReplacedError: If the input topic was deleted, or created again.
            EngineError: What the listener raises of more partitions.
            AbortedError: If nothing of it has happened.
            FencedError: If another worker has taken this one's place.
            BrokerError: If the result is unknown: the next assignment reads it.
        """

    def rewind(self, positions: Mapping[int, Offset]) -> None:
        """Read partitions again from these positions."""

    def committed(
        self, partitions: Collection[int] | None = None
    ) -> dict[int, tuple[Offset | None, str]]:
        """Read the group's committed offset and its metadata: of these partitions, or of all.

        Waits for open transactions that could still move them.
        """

    def check_topic(self) -> None:
        """Ask the brokers whether the input topic was replaced, and how many partitions it has.

        Raises:
            TopicReplacedError: If the input topic was deleted, or created again.
            EngineError: What the listener raises of more partitions.
        """

    def topic_setting(self, topic: str, name: str) -> str:
        """Read one setting of a topic, such as `cleanup.policy`."""

    def bounds(self, partition: int) -> tuple[Offset, Offset]:
        """Return the first offset of the log, and the one after its last."""

    def pause(self, partition: int) -> None:
        """Leave a partition out of `poll`."""

    def resume(self, partition: int) -> None:
        """Return a paused partition's records from `poll` again."""

    def replay(self, partition: int, start: Offset, end: Offset) -> Replay:
        """Read a partition from `start` up to `end`, independent of the group."""

    @property
    def is_at_end(self) -> bool:
        """Whether every assigned partition has been read to its end (when asked to look out).

        False while the group has partitions that no member has taken yet.
        """

    def lag(self) -> int:
        """Count the events that have not been polled.

        This counts the assigned partitions, and new ones that no member has taken yet.
        """

    def close(self) -> None:
        """Leave the group; the listener is called first."""
