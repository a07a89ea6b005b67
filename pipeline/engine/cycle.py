"""The path of an event: poll -> pack -> load -> step -> send -> commit -> save.

    poll    everything that has arrived on all assigned partitions, up to a bound
    pack    records into arrays, grouped by key; bad records become dead letters
    load    each key's hidden state: from the pool, else from the store
    step    the whole batch in one model call
    send    one prediction per event, and the dead letters
    commit  predictions, dead letters and offsets in ONE transaction: all or nothing
    save    the new states to the pool, and to the store by compare-and-set, one step behind

A replay is the same path without send and commit: its events were committed before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator

import numpy as np

from livestep.pipeline.batch.outgoing import OutgoingRecords, refused_records
from livestep.pipeline.batch.packing import Batch, pack
from livestep.pipeline.batch.stepping import Stepped
from livestep.pipeline.columns.keys import Keys
from livestep.pipeline.columns.log_records import Records
from livestep.pipeline.engine.log import AbortedError, Log
from livestep.pipeline.engine.partitions import Partitions
from livestep.pipeline.engine.running_model import RunningModel
from livestep.pipeline.engine.saver import Save
from livestep.pipeline.engine.status import Meter
from livestep.pipeline.errors import BrokerError, StateError
from livestep.pipeline.settings import Settings
from livestep.pipeline.state.pool import BEFORE_FIRST, States
from livestep.pipeline.state.state_records import DamagedStateError
from livestep.pipeline.types import IntArray, Offset

_log = logging.getLogger("livestep.cycle")

#: Transactions aborted one after the other before the worker gives up: the cause remains.
ABORTS_MAX = 20

#: The wait after an aborted transaction: doubled with each, up to the bound.  All together is half
#: a minute, longer than a heartbeat of any session time-out that is usual.
ABORT_WAIT_S, ABORT_WAIT_S_MAX = 0.01, 2.0


class StoreBehindError(Exception):
    """Raised if the store lacks what this worker has saved: the partition needs recovery."""

    def __init__(self, partition: int, detail: str) -> None:
        super().__init__(f"partition {partition}: {detail}")
        self.partition = partition


class Cycle:
    """The seven verbs over a log, a model and the partitions that a worker owns.

    Args:
        settings: Topics and limits.
        log: The seam to Kafka.
        model: The model at run time.
        partitions: Those that this worker owns.
        meter: Counts events, and seconds for each verb.
    """

    def __init__(
        self,
        settings: Settings,
        log: Log,
        model: RunningModel,
        partitions: Partitions,
        meter: Meter,
    ) -> None:
        self._settings = settings
        self._log = log
        self._model = model
        self._partitions = partitions
        self._meter = meter
        self._outgoing = OutgoingRecords(
            model=model.loaded,
            codec=model.codec,
            input_topic=settings.input_topic,
            output_partitions=log.partition_counts[settings.output_topic],
            dead_letter_partitions=log.partition_counts[settings.dead_letter_topic],
        )
        self._aborts = 0

    def warm_up(self) -> None:
        """Step once and drop the result, so that the first batch is not slow."""
        self._model.stepper.warm_up()

    def poll(self, timeout_s: float) -> Records:
        """Return what has arrived."""
        # A crash here loses nothing: no position has moved.
        with self._meter.time("poll"):
            return self._log.poll(self._model.poll_events_max, timeout_s)

    def run(self, records: Records, *, is_replay: bool = False) -> None:
        """Run polled records through the other six verbs.

        Args:
            records: Of owned partitions, each partition's in the order of the log.
            is_replay: Leave out send and commit, and skip what a key's state has already seen.

        Raises:
            StoreBehindError: If Redis has lost what was saved; nothing was sent, the positions
                are back where they were.
            DamagedStateError: If a state in Redis was changed by another program; likewise.
            EngineError: If the worker has to leave.
        """
        timed = self._meter.time
        with timed("pack"):
            batch = self.pack(records)
        try:
            if not is_replay:
                self._partitions.check_positions(batch.next_offsets)
            with timed("load"):
                states = self.load(batch, is_replay=is_replay)
            with timed("step"):
                stepped = self._model.stepper.step(batch, states, is_replay=is_replay)
            if not is_replay:
                with timed("send"):
                    self.send(batch, stepped)
                with timed("commit"):
                    self.commit(batch)
        except (AbortedError, StoreBehindError, DamagedStateError) as error:
            self._drop(batch, is_replay=is_replay)
            if not isinstance(error, AbortedError):
                raise
            self._count_abort(error)
            return
        with timed("save"):
            self.save(batch, stepped)
        if not is_replay:
            self._aborts = 0
        self._meter.count(batch, is_replay=is_replay)

    def pack(self, records: Records) -> Batch:
        """Turn records into arrays; see `batch.packing.pack`, and `batch.sessions`."""
        batch = pack(
            records,
            self._model.codec,
            key_bytes_max=self._settings.key_bytes_max,
            value_bytes_max=self._settings.value_bytes_max,
        )
        if self._model.sessions is not None:
            self._model.sessions.read(batch)
        return batch

    def load(self, batch: Batch, *, is_replay: bool) -> States:
        """Gather each key's state: from its slot, else from the store, else zeros.

        A replay drops the events that the states have seen from the batch.

        Raises:
            StoreBehindError: If the store's `applied` is not where this worker has brought it.
            DamagedStateError: If a record of the store is not what was saved.
            StateError: If a state has seen an event that is only now polled: a defect.
        """
        model = self._model
        if model.rules.is_stateless:
            return model.layout.fresh(len(batch.keys))
        slots = model.pool.find(batch.keys)
        missing = np.flatnonzero(slots < 0)
        if not len(missing):
            states = model.pool.read(slots)
        else:
            states = model.layout.fresh(len(batch.keys))
            present = np.flatnonzero(slots >= 0)
            states.put(present, model.pool.read(slots[present]))
            for partition, rows in batch.keys.take(missing).by_partition().items():
                self._load_missing(partition, missing[rows], batch.keys, states)
        is_new = batch.offsets > states.offsets[batch.key_index]
        if not is_new.all():
            if not is_replay:
                event = batch.records[int(np.argmin(is_new))]
                raise StateError(
                    f"the state of key {event.key!r} has already seen offset {event.offset} of "
                    f"partition {event.partition}: it would be stepped twice"
                )
            batch.keep(is_new)
        return states

    def _load_missing(self, partition: int, rows: IntArray, keys: Keys, states: States) -> None:
        model, owned = self._model, self._partitions[partition]
        low = model.saver.applied(partition)
        names = keys.names_at(rows)
        applied, records = model.store.load(partition, names)
        high = owned.queued
        if low is None or applied is None or not low <= applied <= high:
            raise StoreBehindError(
                partition, f"applied is {applied} in Redis, and should be {low} to {high}"
            )
        found = {index: record for index, record in enumerate(records) if record is not None}
        if found:
            loaded = model.records.read(
                partition,
                [names[index] for index in found],
                list(found.values()),
                owned.position,
            )
            states.put(rows[list(found)], loaded)

    def send(self, batch: Batch, stepped: Stepped) -> None:
        """Send predictions and dead letters in the open transaction."""
        # A crash here is an aborted transaction: readers of committed records see nothing.
        refused = refused_records(batch, stepped.refusals)
        batch.dead += refused
        batch.refused_count = len(refused)
        settings, outgoing = self._settings, self._outgoing
        if len(stepped.answers.event):
            records = outgoing.predictions(batch, stepped.answers)
            self._log.send(settings.output_topic, records)
        if batch.dead:
            self._log.send(settings.dead_letter_topic, outgoing.dead_letters(batch.dead))

    def commit(self, batch: Batch) -> None:
        """Commit all of the batch at once."""
        # A crash before the commit: nothing has happened.  After it: replay heals the store.
        self._partitions.check_forward(batch.next_offsets)
        self._log.commit(self._partitions.marked(batch.next_offsets))
        for partition, offset in batch.next_offsets.items():
            self._partitions[partition].position = offset

    def commit_positions(self, partitions: Iterable[int]) -> bool:
        """Commit the positions of partitions, without an event; False if a retry is needed."""
        try:
            self._partitions.check_positions(partitions)
            self._log.commit(self._partitions.marked(self._partitions.positions(partitions)))
        except AbortedError as error:
            self._count_abort(error)
            return False
        return True

    def save(self, batch: Batch, stepped: Stepped) -> None:
        """Write the new states to the pool, and queue them for the store."""
        # A crash here is healed at the next assignment: `applied` is behind the committed offset.
        model = self._model
        if model.rules.is_stateless:
            return
        if model.sessions is not None:
            model.sessions.keep(batch.next_offsets)
        # Also the keys whose events a replay has dropped, since their states had seen them: the
        # store may have lost these since they were read.  Not those of bad records alone.
        has_seen = stepped.states.offsets != BEFORE_FIRST
        states, keys = stepped.states, batch.keys
        if not has_seen.all():
            rows = np.flatnonzero(has_seen)
            states, keys = states.take(rows), keys.take(rows)
        self._save_to_pool(keys, states)

        rows_of, no_rows = keys.by_partition(), np.zeros(0, dtype=np.int64)
        plan = [
            (
                self._partitions[partition].move_applied(offset),
                rows_of.get(partition, no_rows),
                self._clock_record(partition, offset),
            )
            for partition, offset in batch.next_offsets.items()
        ]

        def make_saves() -> Iterator[Save]:
            for move, rows, clock in plan:
                names = keys.names_at(rows)
                records = model.records.write(move.partition, names, states.take(rows))
                yield Save(move, names, records, clock)

        model.saver.put(make_saves)

    def _save_to_pool(self, keys: Keys, states: States) -> None:
        """Write states to their slots, waiting for saves where no slot can be given away."""
        saver, pool = self._model.saver, self._model.pool
        if len(keys) > pool.slots:
            raise StateError(f"a batch of {len(keys)} keys has no room in {pool.slots} pool slots")
        while pool.write(keys, states, ticket=saver.next_ticket, saved_ticket=saver.saved_ticket):
            saver.wait_for_progress(timeout_s=1.0)

    def _clock_record(self, partition: int, applied: Offset) -> bytes | None:
        """Write a partition's clock, with a session gap."""
        model = self._model
        if model.sessions is None:
            return None
        return model.records.write_clock(partition, applied, model.sessions.clock(partition))

    def _drop(self, batch: Batch, *, is_replay: bool) -> None:
        """Go back to before the batch; the pool has not been written."""
        if not is_replay:
            self._log.rewind(self._partitions.positions(batch.next_offsets))

    def _count_abort(self, error: Exception) -> None:
        self._aborts += 1
        _log.warning("transaction aborted, its batch is read again: %s", error)
        if self._aborts >= ABORTS_MAX:
            raise BrokerError(f"{self._aborts} transactions aborted in a row, the last: {error}")
        # A member that was removed from its group learns of it by a heartbeat, after a while.
        time.sleep(min(ABORT_WAIT_S * 2**self._aborts, ABORT_WAIT_S_MAX))
