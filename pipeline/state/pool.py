"""Hidden states on the device: a pool of slots, and rows of states outside it.

A slot is written only after the transaction of its state has committed, and evicted only after its
state has been saved.  So the pool never holds anything that a replay of the log can't rebuild, and
dropping it loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from livestep.models.contract import State, state_tensors
from livestep.pipeline.columns.key_table import KeyTable
from livestep.pipeline.columns.keys import Keys
from livestep.pipeline.types import IntArray

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
        self._table = KeyTable(slots)
        # A stack: the first `_free_count` are the free slots, the next to use last.
        self._free = np.arange(slots - 1, -1, -1, dtype=np.int32)
        self._free_count = slots
        # A slot may be evicted when the save with its ticket is done.
        self._ticket = np.zeros(slots, dtype=np.int64)
        # Number of the last write that used the slot; _UNUSED for a free slot.
        self._used = np.full(slots, _UNUSED, dtype=np.int64)
        self._clock = 0

    def __len__(self) -> int:
        return self.slots - self._free_count

    def find(self, keys: Keys) -> IntArray:
        """Return the slots of N keys: (N,) int64, -1 for a key that is not in the pool."""
        return self._table.find(keys.partitions, keys.names)

    def read(self, slots: IntArray) -> States:
        """Return a copy of the states in these slots."""
        return self._states.take(slots)

    def write(self, keys: Keys, states: States, *, ticket: int, saved_ticket: int) -> int:
        """Write committed states into their slots, and assign slots to new keys.

        Args:
            keys: The N keys of the rows, each once.
            states: N rows.
            ticket: Number of the save that will contain these states.
            saved_ticket: The last save known to be done.

        Returns:
            0, or the number of missing slots if too few can be evicted.  Then nothing was written,
            and the caller waits for a save and tries again.
        """
        slots = self.find(keys)
        self._clock += 1
        new = np.flatnonzero(slots < 0)
        # Don't evict the batch's own keys to make room for its new ones.
        self._used[slots[slots >= 0]] = self._clock
        missing = len(new) - self._free_count
        if missing > 0:
            missing -= self._evict(missing, saved_ticket)
            if missing > 0:
                return missing
        if len(new):
            taken = self._take_free(len(new))
            self._table.insert(keys.partitions, keys.names, new, taken)
            slots[new] = taken
        self._states.put(slots, states)
        self._ticket[slots] = ticket
        self._used[slots] = self._clock
        return 0

    def forget(self, partition: int) -> None:
        """Free all slots of a partition, saved or not."""
        self._put_free(self._table.forget(partition))

    def _evict(self, wanted: int, saved_ticket: int) -> int:
        """Free at least `wanted` slots, the least recently used first, if enough are saved."""
        is_idle = (self._used != _UNUSED) & (self._used < self._clock)
        evictable = np.flatnonzero(is_idle & (self._ticket <= saved_ticket))
        count = min(len(evictable), max(wanted, self.slots // _EVICT_SHARE))
        if count < wanted:
            return 0
        oldest = evictable[np.argsort(self._used[evictable], kind="stable")[:count]]
        self._table.remove(oldest)
        self._put_free(oldest)
        return count

    def _take_free(self, count: int) -> IntArray:
        """Remove free slots from the stack: (count,) int64."""
        end = self._free_count
        self._free_count = end - count
        return self._free[end - count : end][::-1].astype(np.int64)

    def _put_free(self, slots: IntArray) -> None:
        """Put slots that have lost their keys on the stack."""
        self._used[slots] = _UNUSED
        end = self._free_count + len(slots)
        self._free[self._free_count : end] = slots
        self._free_count = end
