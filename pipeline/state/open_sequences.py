"""Reads the open sequences of a partition from the store, when the partition is assigned."""

from __future__ import annotations

from livestep.pipeline.state.state_records import DamagedStateError, StateRecords
from livestep.pipeline.state.store import CLOCK_KEY, SaveRefusedError, Store
from livestep.pipeline.types import Offset


def read_open_sequences(
    store: Store, records: StateRecords, partition: int, applied: Offset
) -> tuple[int, list[tuple[int, int, bytes]]]:
    """Read the sequences that are open at `applied`, and the partition's clock there.

    Args:
        store: Where the states are.
        records: Decodes them.
        partition: Index.
        applied: The value that the store returned just before.

    Returns:
        clock: The partition's clock, for `Sessions.begin`.
        times: The open sequences, for `Sessions.begin`.

    Raises:
        SaveRefusedError: If a save happened meanwhile, so the result could mix two points in time.
        DamagedStateError: If a record is not what was saved.
    """
    opened: dict[bytes, tuple[int, int, bytes]] = {}
    for found in store.scan(partition):
        opened.update((one[2], one) for one in records.times(partition, found))
    now_applied, (clock,) = store.load(partition, [CLOCK_KEY])
    if now_applied != applied:
        raise SaveRefusedError(partition, now_applied)
    # States, clock and `applied` are saved in one call, so they must agree.
    newest = max(opened.values(), default=None)
    if newest is not None and newest[0] >= applied:
        what = (
            f"the state of key {newest[2]!r}: it has seen {newest[0]}, but `applied` is {applied}"
        )
        raise DamagedStateError(partition, what)
    if newest is not None and clock is None:
        raise DamagedStateError(partition, "there are open sequences, but the clock is missing")
    return records.read_clock(partition, clock, applied), list(opened.values())
