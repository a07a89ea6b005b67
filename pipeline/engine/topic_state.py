"""A topic's id and number of partitions, and what a change of them means to a worker."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple

from livestep.pipeline.errors import BrokerError, PartitionsChangedError, TopicReplacedError

_log = logging.getLogger("livestep.transport")


class TopicState(NamedTuple):
    """A topic as it is now.

    Attributes:
        id: Kafka's id: another one after the topic was deleted and created again.
        partitions: How many it has.
    """

    id: str
    partitions: int


def topic_replaced(
    topic: str, known_id: str, now: TopicState | None, auto_offset_reset: str
) -> TopicReplacedError:
    """Make the error for an input topic that is not the one that this worker has begun with.

    Args:
        topic: Its name.
        known_id: Its id when the worker started.
        now: What has that name now, None if nothing has.
        auto_offset_reset: `Settings.auto_offset_reset`.
    """
    what = f"topic {topic} (id {known_id}) was deleted while this worker was reading it"
    if now is not None:
        what = (
            f"topic {topic} was deleted and created again while this worker was reading it (id "
            f"{known_id}, now {now.id})"
        )
    then = "A restart begins with the new topic's first event, and with states at zeros"
    if auto_offset_reset != "earliest":
        # Kafka may have forgotten the commits by then, and a group without them begins there.
        then += f", if it has --auto-offset-reset earliest and not {auto_offset_reset}"
    return TopicReplacedError(f"{what}: nothing more is committed. {then}")


def partitions_changed(topic: str, partitions: int, before: int) -> PartitionsChangedError:
    """Make the error for an input topic with another number of partitions than its states.

    Args:
        topic: Its name.
        partitions: How many it has now.
        before: How many it had when the states were written.
    """
    return PartitionsChangedError(
        f"topic {topic} has {partitions} partitions, and the states were written when it had "
        f"{before}: keys may have moved to other partitions, away from their states. `livestep "
        "topics copy` brings the history to a new topic with the wanted number of partitions; "
        "start the workers on that, with a new output topic"
    )


class OutputTopics:
    """Keeps an eye on the topics that a worker writes to.

    Args:
        states: What they are when the worker starts.

    Attributes:
        missing: Those that were not there at the last look.
    """

    def __init__(self, states: Mapping[str, TopicState]) -> None:
        self._states = dict(states)
        self.missing: set[str] = set()

    def look(self, now: Mapping[str, TopicState | None]) -> None:
        """Log what has changed since the last look.

        Args:
            now: Of all topics; those that are not written to are left alone.

        Raises:
            BrokerError: If one has fewer partitions than the worker writes to.
        """
        for topic, known in self._states.items():
            found = now[topic]
            if found is None:
                self._note_missing(topic)
                continue
            self.missing.discard(topic)
            if found.id != known.id:
                _log.warning(
                    "topic %s was deleted and created again (id %s, now %s): what was written to "
                    "it before is gone, and what follows goes to the new one",
                    *(topic, known.id, found.id),
                )
            elif found.partitions != known.partitions:
                _log.warning(
                    "topic %s has %d partitions now, and had %d: this worker keeps writing to "
                    "those that it knows, until it is started again",
                    *(topic, found.partitions, known.partitions),
                )
            if found.partitions < known.partitions:
                raise BrokerError(
                    f"topic {topic} has {found.partitions} partitions now, and had "
                    f"{known.partitions}: this worker writes to some that are gone. A restart "
                    "writes to those that exist"
                )
            self._states[topic] = found

    def refuse_missing(self) -> None:
        """Raise BrokerError if a topic was missing at the last look."""
        if self.missing:
            names = " ".join(sorted(self.missing))
            raise BrokerError(
                f"topic {names} was deleted while this worker was writing to it: livestep topics "
                f"create {names}, and start it again; what was not committed is read again then"
            )

    def _note_missing(self, topic: str) -> None:
        if topic not in self.missing:
            self.missing.add(topic)
            _log.warning("topic %s was deleted: what is written to it next will fail", topic)
