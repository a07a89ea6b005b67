"""Which sequences of a partition are open: read from the store when the partition is assigned."""

from __future__ import annotations

from livestep.pipeline.state.state_records import DamagedStateError, StateRecords
from livestep.pipeline.state.store import CLOCK_KEY, SaveRefusedError, Store
from livestep.pipeline.types import Offset


def read_open_sequences(
    store: Store, records: StateRecords, partition: int, applied: Offset
) -> tuple[int, list[tuple[int, int, bytes]]]:
    """Read which sequences are open at `applied`, and the partition's clock there.

    Args:
        store: Where the states are.
        records: Reads them.
        partition: Index.
        applied: What the store said just before.

    Returns:
        clock: As `Sessions.begin` takes it.
        times: Likewise.

    Raises:
        SaveRefusedError: If a save has come in between: what was read may be of two moments.
        DamagedStateError: If any of it is not what was saved.
    """
    opened: dict[bytes, tuple[int, int, bytes]] = {}
    for found in store.scan(partition):
        opened.update((one[2], one) for one in records.times(partition, found))
    now_applied, (clock,) = store.load(partition, [CLOCK_KEY])
    if now_applied != applied:
        raise SaveRefusedError(partition, now_applied)
    # States, clock and `applied` are saved in one call.
    newest = max(opened.values(), default=None)
    if newest is not None and newest[0] >= applied:
        what = f"the state of key {newest[2]!r}: it has seen {newest[0]}, `applied` is {applied}"
        raise DamagedStateError(partition, what)
    if newest is not None and clock is None:
        raise DamagedStateError(partition, "there are open sequences, and no clock")
    return records.read_clock(partition, clock, applied), list(opened.values())
