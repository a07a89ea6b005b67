"""What has to be true of the states of one model in the store."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from livestep import LoadedModel
from livestep.models.devices import device_of
from livestep.pipeline.batch.stepping import Stepper
from livestep.pipeline.records import Source
from livestep.pipeline.state.store import CLOCK_KEY
from tests.simulation.check_error import CheckError
from tests.simulation.simulated_services import SimulatedStore
from tests.simulation.truth import KeyState, Truth
from tests.support.shaped import ShapedRecord

#: Bytes of offset and timesteps, which stand at the head of a record.
_HEADER_BYTES = 16


class StoreChecks:
    """Looks at the states of one model, of one topic.

    Args:
        model: The model.
        store: Where they are.
        committed: What is committed of each partition.
    """

    def __init__(
        self, model: LoadedModel, store: SimulatedStore, committed: Mapping[int, int]
    ) -> None:
        self._model = model
        self._store = store
        self._committed = committed
        self._truth = Truth(model)
        self._layout = Stepper(model, device_of(model.net)).layout
        self._right: dict[tuple[int, bytes], bytes] = {}

    def take_event(self, source: Source, record: ShapedRecord) -> None:
        """Take the next event of a partition that the states have to see, if it can be used."""
        if not record.is_bad:
            self._truth.take(source, record)

    def look(self) -> None:
        """Look at the partitions that have changed.

        Raises:
            CheckError: If something is not as it has to be.
        """
        for partition in sorted(self._store.dirty):
            self._look_at(partition)
        self._store.dirty.clear()

    def _look_at(self, partition: int) -> None:
        if self._store.is_changed(partition):
            return  # somebody has changed it: how it is healed shows once it is
        applied = self._store.applied_of(partition)
        if applied is None:
            return
        committed = self._committed.get(partition)
        if applied > (committed or 0):
            raise CheckError(
                "applied", f"partition {partition}: applied is {applied}, the commit {committed}"
            )
        records = self._store.records_of(partition)
        for key, record in records.items():
            if self._right.get((partition, key)) != record:
                if key != CLOCK_KEY:
                    self._check_record(partition, key, record)
                self._right[partition, key] = record
        self._check_covered(partition, applied, records)

    def _check_record(self, partition: int, key: bytes, record: bytes) -> None:
        """Check one key's state: it is right at its offset."""
        offset, timesteps = struct.unpack_from("<qq", record)
        name = f"partition {partition}, the state of {key.decode()} at offset {offset}"
        if offset >= self._committed.get(partition, 0):
            raise CheckError("committed", f"{name}: the commit is {self._committed[partition]}")
        if offset < self._store.ends.get((partition, key), -1):
            # A replay may meet the middle of a sequence that has ended behind it, and step it from
            # zeros: harmless, since it is read up to the end, which takes the state away again.
            return
        truth = self._truth.partitions.get(partition)
        found = truth.at(key, offset) if truth is not None else None
        if found is None or found[0] != offset:
            raise CheckError("applied", f"{name}: there is no such event")
        if found[1] is None:
            raise CheckError("applied", f"{name}: its sequence has ended")
        if found[1].timesteps != timesteps or not _are_equal(found[1], self._tensors(record)):
            raise CheckError("applied", f"{name}: is not what the unroll says")

    def _check_covered(self, partition: int, applied: int, records: dict[bytes, bytes]) -> None:
        """Check that the store holds all that `applied` covers."""
        truth = self._truth.partitions.get(partition)
        if truth is None:
            return
        for key in truth.states:
            entry = truth.at(key, applied - 1)
            if entry is None:
                continue
            offset, state = entry
            record = records.get(key)
            seen = -1 if record is None else int.from_bytes(record[:8], "little", signed=True)
            name = f"partition {partition}, applied {applied}, {key.decode()}"
            if state is None and 0 <= seen <= offset:
                raise CheckError("applied", f"{name}: ended at {offset}, its state is still there")
            if state is not None and seen < offset:
                gone = self._store.ends.get((partition, key), -1)
                if gone > offset:  # a later save, in part there, has taken it away
                    continue
                raise CheckError("applied", f"{name}: has seen {seen}, and should {offset}")
        if self._model.rules.session_gap_ms is not None:
            clocks = [clock for offset, clock in truth.clocks if offset < applied]
            found = -1 if CLOCK_KEY not in records else _clock(records[CLOCK_KEY])
            if clocks and found != clocks[-1]:
                raise CheckError("applied", f"the clock is {found}, and should be {clocks[-1]}")

    def _tensors(self, record: bytes) -> list[Any]:
        """Read a record's tensors, each as one row."""
        tensors, at = [], _HEADER_BYTES
        for dtype, width in zip(self._layout.dtypes, self._layout.widths, strict=True):
            count = width // dtype.itemsize
            if width:
                tensors.append(torch.frombuffer(bytearray(record[at : at + width]), dtype=dtype))
            else:
                tensors.append(torch.zeros(count, dtype=dtype))
            at += width
        return tensors


def _clock(record: bytes) -> int:
    """Read a clock, which stands behind the header."""
    clock: int = struct.unpack_from("<q", record, _HEADER_BYTES)[0]
    return clock


def _are_equal(state: KeyState, tensors: list[Any]) -> bool:
    return len(state.tensors) == len(tensors) and all(
        np.array_equal(np.ravel(mine), np.ravel(theirs))
        for mine, theirs in zip(state.tensors, tensors, strict=True)
    )
