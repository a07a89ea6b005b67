"""Hidden states on the device: the slot pool, and the rows that travel between it and the store.

A slot is written only after the transaction that its state belongs to has committed, and a slot
whose state is not yet saved is never given away: so the pool always holds a truth that the log can
repeat, and dropping it loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from livestep.models.contract import State, state_tensors
from livestep.pipeline.types import IntArray, PartitionKey

#: Offset of a state that has seen nothing: before every event.
BEFORE_FIRST = -1

#: The share of the pool that is cleared at once when it is full, so that the search for the
#: least recently used is paid once for many keys.
_EVICT_SHARE = 16

_UNUSED = -1

#: `States.timesteps` of a key whose sequence has ended: it is at zeros, and has no record.  A
#: sequence that has begun and has nothing stepped yet has 0.
ENDED = -1


@dataclass(slots=True)
class States:
    """Hidden states of N keys, one row a key.

    Attributes:
        tensors: Each (N, ...), on the device.
        offsets: (N,) int64.  Offset of the last event that the state has seen.
        timesteps: (N,) int64.  How many events of its sequence it has seen; `ENDED` after its end.
    """

    tensors: tuple[Tensor, ...]
    offsets: IntArray
    timesteps: IntArray

    def __len__(self) -> int:
        return len(self.offsets)

    def take(self, rows: IntArray) -> States:
        """Copy some rows, in the order given."""
        index = torch.from_numpy(rows)
        return States(
            tuple(tensor.index_select(0, index.to(tensor.device)) for tensor in self.tensors),
            self.offsets[rows],
            self.timesteps[rows],
        )

    def put(self, rows: IntArray, other: States) -> None:
        """Write `other` into some rows, in the order given."""
        index = torch.from_numpy(rows)
        for tensor, values in zip(self.tensors, other.tensors, strict=True):
            tensor.index_copy_(0, index.to(tensor.device), values)
        self.offsets[rows] = other.offsets
        self.timesteps[rows] = other.timesteps


class StateLayout:
    """What a state of one key is made of: tensors, one row each.

    Args:
        template: The model's first state with one key: `initial_state(1)`.
        device: Where states are to be.
    """

    def __init__(self, template: State, device: torch.device | None = None) -> None:
        rows = state_tensors(template)
        self.device = device or (rows[0].device if rows else torch.device("cpu"))
        #: Of each tensor: shape of a row, kind of number, bytes of a row, and the first row.
        self.shapes = [tuple(row.shape[1:]) for row in rows]
        self.dtypes = [row.dtype for row in rows]
        self.widths = [row[0].numel() * row.element_size() for row in rows]
        self.zeros = tuple(row.cpu() for row in rows)
        #: Bytes of one key's state.
        self.state_bytes = sum(self.widths)

    def fresh(self, count: int) -> States:
        """Make the states of keys that have seen nothing."""
        return States(
            tuple(row.to(self.device).expand(count, *row.shape[1:]).clone() for row in self.zeros),
            np.full(count, BEFORE_FIRST, dtype=np.int64),
            np.zeros(count, dtype=np.int64),
        )


class Pool:
    """A bounded number of slots, each with one key's state; the least recently used go first.

    Args:
        layout: What a state looks like.
        slots: Rows of the pool.
    """

    def __init__(self, layout: StateLayout, slots: int) -> None:
        self.slots = slots
        self._states = layout.fresh(slots)
        self._slot_of: dict[int, dict[bytes, int]] = {}
        self._key_of: list[PartitionKey] = [(-1, b"")] * slots
        self._free = list(range(slots - 1, -1, -1))
        # A slot may be given away once the save with its ticket is done.
        self._ticket = np.zeros(slots, dtype=np.int64)
        # Number of the write that used the slot last; _UNUSED for a free one.
        self._used = np.full(slots, _UNUSED, dtype=np.int64)
        self._clock = 0

    def __len__(self) -> int:
        return self.slots - len(self._free)

    def find(self, keys: Sequence[PartitionKey]) -> IntArray:
        """Look up slots: (N,) int64, -1 for a key that is not here."""
        slot_of = self._slot_of
        empty: dict[bytes, int] = {}
        slots = [slot_of.get(partition, empty).get(key, -1) for partition, key in keys]
        return np.array(slots, dtype=np.int64)

    def read(self, slots: IntArray) -> States:
        """Gather the states of some slots."""
        return self._states.take(slots)

    def write(
        self, keys: Sequence[PartitionKey], states: States, *, ticket: int, saved_ticket: int
    ) -> int:
        """Scatter committed states into their slots, giving new keys a slot.

        Args:
            keys: The N keys of the rows.
            states: N rows.
            ticket: Number of the save that these states will be part of.
            saved_ticket: The last save known to be done.

        Returns:
            How many rows found no slot, all others being in use and not yet saved: 0, or nothing
            was written and the caller waits for a save and tries again.
        """
        slots = self.find(keys)
        self._clock += 1
        present = slots[slots >= 0]
        new = np.flatnonzero(slots < 0)
        # The batch's own slots are not to be given away for its new keys.
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
        """Free at least `wanted` slots if so many are saved; the least recently used first."""
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
