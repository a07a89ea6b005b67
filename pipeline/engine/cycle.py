"""The travel of an event: poll -> pack -> load -> step -> send -> commit -> save.

    poll    everything that has arrived on all assigned partitions, up to a bound
    pack    records into arrays, grouped by key; bad records become dead letters
    load    each key's hidden state: from the pool, else from the store
    step    the whole batch in one model call
    send    one prediction per event, and the dead letters
    commit  predictions, dead letters and offsets in ONE transaction: all or nothing
    save    the new states to the pool, and to the store by compare-and-set, one step behind

A replay is the same travel with send and commit left out: its events were committed before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from livestep.models.loaded_model import LoadedModel
from livestep.models.sequences.rules import GAP_ENDS_MAX, SequenceRules
from livestep.pipeline.batch.codec import Codec
from livestep.pipeline.batch.outgoing import OutgoingRecords, refused_records
from livestep.pipeline.batch.packing import Batch, pack
from livestep.pipeline.batch.sessions import Sessions
from livestep.pipeline.batch.stepping import Stepped, Stepper
from livestep.pipeline.engine.log import AbortedError, Log
from livestep.pipeline.engine.owned import Owned, check_forward, check_positions, read_commits
from livestep.pipeline.engine.recovery import CommitMark
from livestep.pipeline.engine.saver import Save, Saver
from livestep.pipeline.engine.status import Meter
from livestep.pipeline.errors import BrokerError, StateError
from livestep.pipeline.settings import Settings
from livestep.pipeline.state.pool import BEFORE_FIRST, Pool, States
from livestep.pipeline.state.state_records import DamagedStateError, StateRecords
from livestep.pipeline.state.store import Store
from livestep.pipeline.types import Offset, PartitionKey, Record

_log = logging.getLogger("livestep.cycle")

#: Transactions aborted one after the other before the worker gives up: something stays wrong.
ABORTS_MAX = 20

#: The wait after an aborted transaction: doubled with each, up to the bound.  All together is half
#: a minute, longer than a heartbeat of any session time-out that is usual.
ABORT_WAIT_S, ABORT_WAIT_S_MAX = 0.01, 2.0


#: Records that a batch may generate: a transaction of this size is some tens of megabytes, and
#: takes seconds.  A shape that generates polls fewer events at a time for it.
GENERATED_RECORDS_MAX = 100_000

#: Keys and bytes of one save with a session gap, which is one command: Redis takes a million
#: arguments, and serves nobody else meanwhile, some tenths of a second at these bounds.
GAP_SAVE_KEYS_MAX, GAP_SAVE_BYTES_MAX = 50_000, 64 << 20


class StoreBehindError(Exception):
    """Raised if the store lacks what this worker has saved: the partition needs recovery."""

    def __init__(self, partition: int, detail: str) -> None:
        super().__init__(f"partition {partition}: {detail}")
        self.partition = partition


class Cycle:
    """The seven verbs over a log, a store and a model.

    Args:
        settings: Topics and limits.
        log: The seam to Kafka.
        store: The seam to Redis.
        model: The model: its fingerprint stands in headers and commits.
        codec: Its wire format.
        stepper: Steps it.
        pool: Slots on the device.
        saver: Runs saves behind the cycle.
        sessions: Finds what a session gap ends; None without one.
        output_partitions: Partitions of the output and of the dead-letter topic.
        meter: Counts events, and seconds for each verb.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        log: Log,
        store: Store,
        model: LoadedModel,
        codec: Codec,
        stepper: Stepper,
        pool: Pool,
        saver: Saver,
        sessions: Sessions | None,
        output_partitions: dict[str, int],
        meter: Meter,
    ) -> None:
        self._settings = settings
        self._log = log
        self._store = store
        self._codec = codec
        self._stepper = stepper
        self._layout = stepper.layout
        self._pool = pool
        self._saver = saver
        self._sessions = sessions
        self._fingerprint = model.fingerprint
        self._rules = model.rules
        #: How states are written for the store.
        self.records = StateRecords(
            stepper.layout, f"{settings.input_topic}/{settings.group}/{model.fingerprint}"
        )
        #: Events of one read in a replay, which generates nothing.
        self.replay_events_max = _replay_events_max(
            settings, model.rules, self.records.record_bytes
        )
        self._poll_events_max = _poll_events_max(self.replay_events_max, model.rules)
        self._outgoing = OutgoingRecords(
            model=model,
            codec=codec,
            input_topic=settings.input_topic,
            output_partitions=output_partitions[settings.output_topic],
            dead_letter_partitions=output_partitions[settings.dead_letter_topic],
        )
        self._meter = meter
        self._aborts = 0
        #: The partitions that this worker has now; kept by the engine.
        self.owned: dict[int, Owned] = {}

    def warm_up(self) -> None:
        """Do once, for nothing, what would make the first batch slow."""
        self._stepper.warm_up()

    def poll(self, timeout_s: float) -> list[Record]:
        """Take what has arrived.  # A crash here loses nothing: no position has moved."""
        with self._meter.time("poll"):
            return self._log.poll(self._poll_events_max, timeout_s)

    def run(self, records: Sequence[Record], *, is_replay: bool = False) -> None:
        """Take polled records through the other six verbs.

        Args:
            records: Of owned partitions, each partition's in the order of the log.
            is_replay: Leave out send and commit, and skip what a key's state has already seen.

        Raises:
            StoreBehindError: If Redis has lost what was saved; nothing was sent, the positions
                are back where they were.
            DamagedStateError: If somebody has changed a state in Redis; likewise.
            EngineError: If the worker has to leave.
        """
        timed = self._meter.time
        with timed("pack"):
            batch = self.pack(records)
        try:
            if not is_replay:
                check_positions(self.owned, batch.next_offsets)
            with timed("load"):
                states = self.load(batch, is_replay=is_replay)
            with timed("step"):
                stepped = self._stepper.step(batch, states, is_replay=is_replay)
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

    def pack(self, records: Sequence[Record]) -> Batch:
        """Turn records into arrays; see `batch.packing.pack`, and `batch.sessions`."""
        batch = pack(
            records,
            self._codec,
            key_bytes_max=self._settings.key_bytes_max,
            value_bytes_max=self._settings.value_bytes_max,
        )
        if self._sessions is not None:
            self._sessions.read(batch)
        return batch

    def load(self, batch: Batch, *, is_replay: bool) -> States:
        """Gather each key's state: from its slot, else from the store, else zeros.

        A replay drops from the batch what the states have seen.  # A crash here loses nothing.

        Raises:
            StoreBehindError: If the store's `applied` is not where this worker has brought it.
            DamagedStateError: If a record of the store is not what was saved.
            StateError: If a state has seen an event that is only now polled: a defect.
        """
        if self._rules.is_stateless:
            return self._layout.fresh(len(batch.keys))
        slots = self._pool.find(batch.keys)
        missing = np.flatnonzero(slots < 0)
        if not len(missing):
            states = self._pool.read(slots)
        else:
            states = self._layout.fresh(len(batch.keys))
            present = np.flatnonzero(slots >= 0)
            states.put(present, self._pool.read(slots[present]))
            for partition, rows in _by_partition(batch.keys, missing.tolist()):
                self._load_missing(partition, rows, batch, states)
        is_new = batch.offsets > states.offsets[batch.key_index]
        if not is_new.all():
            if not is_replay:
                event = batch.records[int(np.argmin(is_new))]
                raise StateError(
                    f"the state of key {event.key()!r} has already seen offset {event.offset()} of "
                    f"partition {event.partition()}: it would be stepped twice"
                )
            batch.keep(is_new)
        return states

    def _load_missing(self, partition: int, rows: list[int], batch: Batch, states: States) -> None:
        low = self._saver.applied(partition)
        applied, records = self._store.load(partition, [batch.keys[row][1] for row in rows])
        high = self.owned[partition].queued
        if low is None or applied is None or not low <= applied <= high:
            raise StoreBehindError(
                partition, f"applied is {applied} in Redis, and should be {low} to {high}"
            )
        found = [
            (row, record) for row, record in zip(rows, records, strict=True) if record is not None
        ]
        if found:
            loaded = self.records.read(
                partition,
                [batch.keys[row][1] for row, _ in found],
                [record for _, record in found],
                self.owned[partition].position,
            )
            states.put(np.array([row for row, _ in found], dtype=np.int64), loaded)

    def send(self, batch: Batch, stepped: Stepped) -> None:
        """Send predictions and dead letters in the open transaction.

        # A crash here is an aborted transaction: readers of committed records see nothing.
        """
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
        """Commit all of the batch at once.

        # A crash before the commit: nothing has happened.  After it: replay heals the store.
        """
        check_forward(self.owned, batch.next_offsets)
        self._log.commit(self._marked(batch.next_offsets))
        for partition, offset in batch.next_offsets.items():
            self.owned[partition].position = offset

    def commit_positions(self, partitions: Iterable[int]) -> bool:
        """Commit where partitions stand, without an event; False if it has to be tried again."""
        try:
            check_positions(self.owned, partitions)
            self._log.commit(self._marked({p: self.owned[p].position for p in partitions}))
        except AbortedError as error:
            self._count_abort(error)
            return False
        return True

    def read_commits(self) -> None:
        """Look for commits of others, see `owned`: the group has a new generation."""
        # At least once, a batch whose commit was made, and not answered, is read again.
        if self._settings.guarantee == "exactly-once":
            read_commits(self.owned, self._log)

    def _marked(self, offsets: Mapping[int, Offset]) -> dict[int, tuple[Offset, str]]:
        """Put the mark beside each offset."""
        marked = {}
        for partition, offset in offsets.items():
            start = self.owned[partition].start
            log = self._log
            mark = CommitMark(self._fingerprint, log.partitions, start, log.topic_id)
            marked[partition] = (offset, mark.to_text())
        return marked

    def save(self, batch: Batch, stepped: Stepped) -> None:
        """Write the new states to the pool, and queue them for the store.

        # A crash here is healed at the next assignment: `applied` is behind the committed offset.
        """
        if self._rules.is_stateless:
            return
        if self._sessions is not None:
            self._sessions.keep(batch.next_offsets)
        saver, pool = self._saver, self._pool
        # Also the keys whose events a replay has dropped, since their states had seen them: the
        # store may have lost these since they were read.  Not those of bad records alone.
        has_seen = stepped.states.offsets != BEFORE_FIRST
        states, keys = stepped.states, batch.keys
        if not has_seen.all():
            rows = np.flatnonzero(has_seen)
            states, keys = states.take(rows), [keys[row] for row in rows.tolist()]
        if len(keys) > pool.slots:
            raise StateError(f"a batch of {len(keys)} keys has no room in {pool.slots} pool slots")
        while pool.write(keys, states, ticket=saver.next_ticket, saved_ticket=saver.saved_ticket):
            saver.wait_for_progress(timeout_s=1.0)

        rows_of = dict(_by_partition(keys, range(len(keys))))
        plan = []
        for partition, offset in batch.next_offsets.items():
            owned = self.owned[partition]
            clock = None
            if self._sessions is not None:
                clock = self.records.write_clock(partition, offset, self._sessions.clock(partition))
            save = Save(partition, owned.epoch, owned.queued, offset, [], [], clock)
            plan.append((save, rows_of.get(partition, [])))
            owned.queued = offset

        def make_saves() -> Iterator[Save]:
            for save, rows in plan:
                names = [keys[row][1] for row in rows]
                rows_states = states.take(np.array(rows, dtype=np.int64))
                records = self.records.write(save.partition, names, rows_states)
                yield replace(save, keys=names, records=records)

        saver.put(make_saves)

    def _drop(self, batch: Batch, *, is_replay: bool) -> None:
        """Go back to before the batch; the pool has not been written."""
        if not is_replay:
            self._log.rewind(
                {p: self.owned[p].position for p in batch.next_offsets if p in self.owned}
            )

    def _count_abort(self, error: Exception) -> None:
        self._aborts += 1
        _log.warning("transaction aborted, its batch is read again: %s", error)
        if self._aborts >= ABORTS_MAX:
            raise BrokerError(f"{self._aborts} transactions aborted in a row, the last: {error}")
        # A member that was removed from its group learns of it by a heartbeat: give it the time.
        time.sleep(min(ABORT_WAIT_S * 2**self._aborts, ABORT_WAIT_S_MAX))


def _replay_events_max(settings: Settings, rules: SequenceRules, record_bytes: int) -> int:
    """Bound a batch by the settings, and by what a session gap makes of it."""
    if rules.session_gap_ms is None:
        return settings.batch_events_max
    # A batch and the one that waits to be saved have to fit in the pool, with all keys that they
    # end; and the states of all of them are one command to the store.
    keys_max = min(settings.pool_slots // 2, GAP_SAVE_KEYS_MAX, GAP_SAVE_BYTES_MAX // record_bytes)
    return max(1, min(settings.batch_events_max, keys_max // (1 + GAP_ENDS_MAX)))


def _poll_events_max(replay_events_max: int, rules: SequenceRules) -> int:
    """Bound a batch by the records that are generated from it, too."""
    if rules.generation is None:
        return replay_events_max
    ends = 1 if rules.session_gap_ms is None else 1 + GAP_ENDS_MAX  # of sequences, by one event
    return max(
        1, min(replay_events_max, GENERATED_RECORDS_MAX // (ends * rules.generation.steps_max))
    )


def _by_partition(
    keys: Sequence[PartitionKey], rows: Sequence[int]
) -> Iterator[tuple[int, list[int]]]:
    """Group rows of keys by partition."""
    groups: dict[int, list[int]] = {}
    for row in rows:
        groups.setdefault(keys[row][0], []).append(row)
    yield from groups.items()
