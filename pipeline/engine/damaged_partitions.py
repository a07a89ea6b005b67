"""What was found damaged in the store, and how often: repairs have to end."""

from __future__ import annotations

from livestep.pipeline.errors import StateError
from livestep.pipeline.types import Offset

#: Times that a partition's states are started over without a prediction in between: more often is
#: not an accident, and each time replays all that the partition has seen.
HEALS_MAX = 5


class Damages:
    """Tracks damaged states of the partitions that a worker owns."""

    def __init__(self) -> None:
        self._found: dict[int, str] = {}
        self._heals: dict[int, tuple[Offset, int]] = {}

    def note(self, partition: int, detail: str) -> None:
        """Record that a state is not what was saved, until its partition has started over."""
        self._found[partition] = detail

    def get(self, partition: int) -> str | None:
        """Return what is wrong with a partition's states; None if nothing is known."""
        return self._found.get(partition)

    def count_restart(self, partition: int, position: Offset, name: str, damage: str) -> None:
        """Count that a partition has started over.

        Args:
            partition: Index.
            position: Where it continues predicting.
            name: Topic and partition, for messages.
            damage: What is wrong.

        Raises:
            StateError: If it has done so too often at this position.
        """
        last, count = self._heals.get(partition, (position, 0))
        count = count + 1 if last == position else 1
        if count > HEALS_MAX:
            raise StateError(
                f"{name}: the states in Redis are damaged again, after they were replayed "
                f"{HEALS_MAX} times: {damage}. Something keeps changing them"
            )
        self._heals[partition] = (position, count)

    def clear(self, partition: int) -> None:
        """Forget what was wrong: the partition has started over."""
        self._found.pop(partition, None)

    def forget(self, partition: int) -> None:
        """Stop tracking a partition."""
        self._found.pop(partition, None)
        self._heals.pop(partition, None)
