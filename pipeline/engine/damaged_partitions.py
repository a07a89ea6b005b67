"""What was found damaged in the store, and how often: healing has to end."""

from __future__ import annotations

from livestep.pipeline.errors import StateError
from livestep.pipeline.types import Offset

#: Times that a partition's states are begun anew while it predicts nothing in between: more often
#: is no accident, and each is a replay of all that it has seen.
HEALS_MAX = 5


class Damages:
    """Follows the damages of the partitions that a worker has."""

    def __init__(self) -> None:
        self._found: dict[int, str] = {}
        self._heals: dict[int, tuple[Offset, int]] = {}

    def note(self, partition: int, detail: str) -> None:
        """Keep that a state is not what was saved, until its partition has begun anew."""
        self._found[partition] = detail

    def get(self, partition: int) -> str | None:
        """Say what is wrong with a partition's states; None if nothing is known."""
        return self._found.get(partition)

    def count_restart(self, partition: int, position: Offset, name: str, damage: str) -> None:
        """Count that a partition has begun anew.

        Args:
            partition: Index.
            position: Where it predicts on.
            name: Topic and partition, for messages.
            damage: What is wrong.

        Raises:
            StateError: If it has too often, at this position.
        """
        last, count = self._heals.get(partition, (position, 0))
        count = count + 1 if last == position else 1
        if count > HEALS_MAX:
            raise StateError(
                f"{name}: the states in Redis are damaged again, after they were written anew "
                f"{HEALS_MAX} times: {damage}. Something keeps changing them"
            )
        self._heals[partition] = (position, count)

    def clear(self, partition: int) -> None:
        """Forget what was wrong: the partition has begun anew."""
        self._found.pop(partition, None)

    def forget(self, partition: int) -> None:
        """Follow a partition no longer."""
        self._found.pop(partition, None)
        self._heals.pop(partition, None)
