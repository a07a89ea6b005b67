"""Hidden states on the device: a pool of slots, and rows of states outside it.

A slot is written only after the transaction of its state has committed, and evicted only after its
state has been saved.  So the pool never holds anything that a replay of the log can't rebuild, and
dropping it loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from livestep.models.contract import State, state_tensors
from livestep.pipeline.types import IntArray, PartitionKey

#: Offset of a state that has seen no event: less than every offset.
BEFORE_FIRST = -1

#: A full pool evicts at least 1/16 of its slots at once, so that many new keys share the cost of
#: the search for the least recently used ones.
_EVICT_SHARE = 16

_UNUSED = -1

#: `States.timesteps` of a key whose sequence has ended: it has the initial state, and no record.
#: A sequence that has started but has no steps yet has 0.
ENDED = -1


@dataclass(slots=True)
class States:
    """Hidden states of N keys, one row per key.

    Attributes:
        tensors: Each (N, ...), on the device.
        offsets: (N,) int64.  Offset of the last event that each state has seen.
        timesteps: (N,) int64.  Events of its sequence that it has seen; `ENDED` after its end.
    """

    tensors: tuple[Tensor, ...]
    offsets: IntArray
    timesteps: IntArray

    def __len__(self) -> int:
        return len(self.offsets)

    def take(self, rows: IntArray) -> States:
        """Copy rows, in the given order."""
        index = torch.from_numpy(rows)
        return States(
            tuple(tensor.index_select(0, index.to(tensor.device)) for tensor in self.tensors),
            self.offsets[rows],
            self.timesteps[rows],
        )

    def put(self, rows: IntArray, other: States) -> None:
        """Write the rows of `other` into these rows, in the given order."""
        index = torch.from_numpy(rows)
        for tensor, values in zip(self.tensors, other.tensors, strict=True):
            tensor.index_copy_(0, index.to(tensor.device), values)
        self.offsets[rows] = other.offsets
        self.timesteps[rows] = other.timesteps


#: Names of the tensors that a state may have after those of the net: the last output (many to one),
#: and the partition's clock at the last event (session gap).
LAST_OUTPUT, CLOCK = "last_output", "clock"


class StateLayout:
    """Layout of one key's state: one row in each of several tensors.

    The net's tensors come first, then the extras in the given order.

    Args:
        template: The net's initial state for one key: `initial_state(1)`.
        device: Device of the states.
        extras: Initial rows of the tensors that a state has in addition, (1, ...) each, by name.
    """

    def __init__(
        self,
        template: State,
        device: torch.device | None = None,
        extras: Mapping[str, Tensor] | None = None,
    ) -> None:
        extras = extras or {}
        net_rows = state_tensors(template)
        rows = (*net_rows, *extras.values())
        self._net_count = len(net_rows)
        self._names = tuple(extras)
        self.device = device or (rows[0].device if rows else torch.device("cpu"))
        #: For each tensor: shape of a row, dtype, bytes of a row, and the initial row.
        self.shapes = [tuple(row.shape[1:]) for row in rows]
        self.dtypes = [row.dtype for row in rows]
        self.widths = [row[0].numel() * row.element_size() for row in rows]
        self.zeros = tuple(row.cpu() for row in rows)
        #: Bytes of one key's state.
        self.state_bytes = sum(self.widths)

    def net_of(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the net's tensors of a state."""
        return tensors[: self._net_count]

    def extras_of(self, tensors: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Return a state's other tensors by their names."""
        return dict(zip(self._names, tensors[self._net_count :], strict=True))

    def bytes_of(self, name: str) -> slice:
        """Return where an extra tensor's bytes are within the `state_bytes` of a key."""
        index = self._net_count + self._names.index(name)
        start = sum(self.widths[:index])
        return slice(start, start + self.widths[index])

    def fresh(self, count: int) -> States:
        """Return the initial states of new keys."""
        return States(
            tuple(row.to(self.device).expand(count, *row.shape[1:]).clone() for row in self.zeros),
            np.full(count, BEFORE_FIRST, dtype=np.int64),
            np.zeros(count, dtype=np.int64),
        )


class Pool:
    """A fixed number of slots for one key's state each; evicts the least recently used.

    Args:
        layout: Layout of the states.
        slots: Number of slots.
    """

    def __init__(self, layout: StateLayout, slots: int) -> None:
        self.slots = slots
        self._states = layout.fresh(slots)
        self._slot_of: dict[int, dict[bytes, int]] = {}
        self._key_of: list[PartitionKey] = [(-1, b"")] * slots
        self._free = list(range(slots - 1, -1, -1))
        # A slot may be evicted when the save with its ticket is done.
        self._ticket = np.zeros(slots, dtype=np.int64)
        # Number of the last write that used the slot; _UNUSED for a free slot.
        self._used = np.full(slots, _UNUSED, dtype=np.int64)
        self._clock = 0

    def __len__(self) -> int:
        return self.slots - len(self._free)

    def find(self, keys: Sequence[PartitionKey]) -> IntArray:
        """Return the slots of keys: (N,) int64, -1 for a key that is not in the pool."""
        slot_of = self._slot_of
        empty: dict[bytes, int] = {}
        slots = [slot_of.get(partition, empty).get(key, -1) for partition, key in keys]
        return np.array(slots, dtype=np.int64)

    def read(self, slots: IntArray) -> States:
        """Return a copy of the states in these slots."""
        return self._states.take(slots)

    def write(
        self, keys: Sequence[PartitionKey], states: States, *, ticket: int, saved_ticket: int
    ) -> int:
        """Write committed states into their slots, and assign slots to new keys.

        Args:
            keys: The N keys of the rows.
            states: N rows.
            ticket: Number of the save that will contain these states.
            saved_ticket: The last save known to be done.

        Returns:
            0, or the number of missing slots if too few can be evicted.  Then nothing was written,
            and the caller waits for a save and tries again.
        """
        slots = self.find(keys)
        self._clock += 1
        present = slots[slots >= 0]
        new = np.flatnonzero(slots < 0)
        # Don't evict the batch's own keys to make room for its new ones.
        self._used[present] = self._clock
        missing = len(new) - len(self._free)
        if missing > 0:
            missing -= self._evict(missing, saved_ticket)
            if missing > 0:
                return missing
        for i in new.tolist():
            partition, key = keys[i]
            slot = self._free.pop()
            slots[i] = slot
            self._slot_of.setdefault(partition, {})[key] = slot
            self._key_of[slot] = (partition, key)
        self._states.put(slots, states)
        self._ticket[slots] = ticket
        self._used[slots] = self._clock
        return 0

    def forget(self, partition: int) -> None:
        """Free all slots of a partition, saved or not."""
        freed = list(self._slot_of.pop(partition, {}).values())
        self._used[freed] = _UNUSED
        self._free.extend(freed)

    def _evict(self, wanted: int, saved_ticket: int) -> int:
        """Free at least `wanted` slots, the least recently used first, if enough are saved."""
        is_idle = (self._used != _UNUSED) & (self._used < self._clock)
        evictable = np.flatnonzero(is_idle & (self._ticket <= saved_ticket))
        count = min(len(evictable), max(wanted, self.slots // _EVICT_SHARE))
        if count < wanted:
            return 0
        oldest = evictable[np.argsort(self._used[evictable], kind="stable")[:count]]
        for slot in oldest.tolist():
            partition, key = self._key_of[slot]
            del self._slot_of[partition][key]
        self._used[oldest] = _UNUSED
        self._free.extend(oldest.tolist())
        return count
