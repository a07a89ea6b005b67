"""What has to be true of log and store, whoever works on them; nothing here knows the engine.

truth      each answer is what the offline rules say, and none is missing
once       no answer is there twice
order      the answers of a key stand in the order of its events
committed  a commit never goes back; no state has seen what is not committed
applied    never ahead of the commit; what it covers is in the store, as the offline rules say
memory     slots and waiting saves stay within their bounds
progress   when the faults stop, all is committed and saved within a bound
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from deploy.events import READ_ALL_THE_SAME
from deploy.judge import Judge
from deploy.unrolled import unroll_log
from models import LoadedModel
from models.devices import device_of
from pipeline.batch import Offset
from pipeline.memory import MemoryBroker
from pipeline.records import Source, read_dead_letter_headers, read_prediction_headers
from pipeline.stepping import Stepper
from pipeline.store import CLOCK_KEY
from tests.shaped import ShapedRecord
from tests.simulation.process import Process
from tests.simulation.services import SimulatedStore
from tests.simulation.truth import KeyState, Truth
from tests.world import DEAD, INPUT, OUTPUT, plain

#: Bytes of offset and timesteps, which stand at the head of a record.
_HEADER_BYTES = 16

#: How far a state may be from the offline one: a batch rounds otherwise than a single row.
_STATE_TOLERANCE = 1e-3


class CheckError(Exception):
    """Raised if something is not as it has to be.

    Args:
        check: Name of the check, as at the head of this file.
        text: What was found.
    """

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check


class Checkers:
    """Looks at log and store after every tick.

    Args:
        model: The model.
        broker: The log.
        store: The store.
    """

    def __init__(self, model: LoadedModel, broker: MemoryBroker, store: SimulatedStore) -> None:
        self._model = model
        self._broker = broker
        self._store = store
        self._truth = Truth(model)
        self._layout = Stepper(model, device_of(model.net)).layout
        self._events: list[SimpleNamespace] = []
        self._bad_count = 0
        self._committed: dict[int, int] = {}
        self._right: dict[tuple[int, bytes], bytes] = {}
        self._read: dict[int, int] = {}
        self._answered: set[tuple[Any, ...]] = set()
        self._last: dict[tuple[int, bytes], tuple[int, int]] = {}

    # What the simulation says.

    def take_event(self, source: Source, record: ShapedRecord) -> None:
        """Take an event as it is published, if its transaction will be committed."""
        self._events.append(
            SimpleNamespace(
                topic=INPUT,
                partition=source.partition,
                offset=source.offset,
                key=record.key,
                value=record.value,
                timestamp=record.timestamp_ms,
                headers=list(record.headers),
            )
        )
        self._bad_count += record.is_bad
        if not record.is_bad:
            self._truth.take(source, record)

    def not_needed(self) -> dict[int, int]:
        """Say for each partition up to where no replay will ever need the log."""
        found: dict[int, int] = {}
        for partition, (offset, _) in self._broker.group.offsets.items():
            applied = self._store.applied_of(partition)
            if self._model.rules.is_stateless:
                found[partition] = offset
            elif applied is not None:
                found[partition] = min(applied, offset)
        return found

    # What is checked.

    def look(self, processes: Iterable[Process]) -> None:
        """Look at everything that has changed.

        Raises:
            CheckError: If something is not as it has to be.
        """
        self._look_at_commits()
        for partition in sorted(self._store.dirty):
            self._look_at_store(partition)
        self._store.dirty.clear()
        self._look_at_answers()
        for process in processes:
            _look_at_memory(process)

    def is_all_done(self) -> bool:
        """Whether each event is committed, and its state saved."""
        return not self.what_is_left()

    def count_left(self) -> int:
        """Count the events that are not committed."""
        count = 0
        for partition in range(self._broker.partition_counts[INPUT]):
            offset, _ = self._broker.group.offsets.get(partition, (Offset(0), ""))
            count += len(self._broker.read(INPUT, partition, offset)[0])
        return count

    def what_is_left(self) -> str:
        """Say what is not yet committed or saved; nothing if all is."""
        for partition in range(self._broker.partition_counts[INPUT]):
            offset, _ = self._broker.group.offsets.get(partition, (None, ""))
            if offset is None:
                return f"partition {partition} has no commit"
            if rest := self._broker.read(INPUT, partition, offset)[0]:
                return f"partition {partition}: {len(rest)} events behind {offset} not committed"
            applied = self._store.applied_of(partition)
            if applied != offset and not self._model.rules.is_stateless:
                return f"partition {partition} is committed up to {offset}, applied is {applied}"
        return ""

    def check_end(self) -> None:
        """Compare all answers with the offline rules.

        Raises:
            CheckError: If one differs, or is missing.
        """
        if left := self.what_is_left():
            raise CheckError("progress", left)
        judge = Judge(INPUT, self._broker.partition_counts[OUTPUT], self._model)
        letters = [plain(record) for record in self._broker.records(DEAD)]
        for letter in letters:
            judge.take_dead_letter(letter)
        judge.take_events(unroll_log(self._events, self._model, judge.dead, lambda *_: None))
        for record in self._broker.records(OUTPUT):
            judge.take_prediction(plain(record))
        report = judge.report()
        if not report.is_clean:
            raise CheckError("truth", str(report))
        reasons = [read_dead_letter_headers(letter.headers)[0] for letter in letters]
        bad = [reason for reason in reasons if reason not in READ_ALL_THE_SAME]
        if len(bad) != self._bad_count:
            raise CheckError("truth", f"{self._bad_count} bad events, dead letters {bad}")

    def _look_at_commits(self) -> None:
        for partition, (offset, _) in self._broker.group.offsets.items():
            before = self._committed.get(partition, 0)
            if offset < before:
                what = f"partition {partition}: the commit goes back from {before} to {offset}"
                raise CheckError("committed", what)
            self._committed[partition] = offset

    def _look_at_store(self, partition: int) -> None:
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
        if found[1].timesteps != timesteps or not _are_close(found[1], self._tensors(record)):
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

    def _look_at_answers(self) -> None:
        """Check what has come to the output since the last look."""
        for partition in range(self._broker.partition_counts[OUTPUT]):
            start = self._read.get(partition, 0)
            records, self._read[partition] = self._broker.read(OUTPUT, partition, start)
            for record in records:
                found = read_prediction_headers(record.headers() or [])
                key = record.key() or b""
                name = (found.source, found.ended_by, found.step, found.ended_by and key)
                if name in self._answered:
                    raise CheckError("once", f"{found.source} is answered again: step {found.step}")
                self._answered.add(name)
                at = (found.source.offset, found.step or 0)
                if at[0] < self._last.get((partition, key), at)[0]:
                    raise CheckError("order", f"{found.source} stands behind a later answer")
                self._last[partition, key] = at


def _look_at_memory(process: Process) -> None:
    """Check what a process holds."""
    if process.is_over or process.pool is None:
        return
    if len(process.pool) > process.sizes.pool_slots:
        raise CheckError("memory", f"{process.name} has {len(process.pool)} keys in its slots")
    queue = process.queue
    if queue is not None and len(queue.items) > max(process.sizes.save_queue_batches_max, 1):
        raise CheckError("memory", f"{process.name} has {len(queue.items)} saves waiting")


def _clock(record: bytes) -> int:
    """Read a clock, which stands behind the header."""
    clock: int = struct.unpack_from("<q", record, _HEADER_BYTES)[0]
    return clock


def _are_close(state: KeyState, tensors: list[Any]) -> bool:
    return len(state.tensors) == len(tensors) and all(
        np.allclose(np.ravel(mine), np.ravel(theirs), rtol=_STATE_TOLERANCE, atol=_STATE_TOLERANCE)
        for mine, theirs in zip(state.tensors, tensors, strict=True)
    )
