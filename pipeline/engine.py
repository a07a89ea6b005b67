"""The life of a partition with this worker: assigned, recovered, predicted on, revoked.

Everything here runs on one thread, poll and rebalance callbacks included: a batch is never in
flight while the assignment changes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from models import LoadedModel
from pipeline.batch import Offset, Record
from pipeline.cycle import Cycle, Owned, StoreBehindError
from pipeline.damages import Damages
from pipeline.errors import EngineError, StateError
from pipeline.log import Log, Replay, StartAt
from pipeline.open_sequences import read_open_sequences
from pipeline.pool import Pool
from pipeline.recovery import CommitMark, Decision, Situation, check_partitions, decide
from pipeline.retention import Beginnings
from pipeline.saver import Save, Saver
from pipeline.sessions import Sessions
from pipeline.settings import Settings
from pipeline.state_records import DamagedStateError
from pipeline.status import Meter
from pipeline.store import SaveRefusedError, Store
from pipeline.stored_partition import DamagedPartition, StoredPartition
from pipeline.topic_state import partitions_changed

_log = logging.getLogger("livestep.engine")

#: Seconds that a revoke waits for saves; what is not saved by then the next owner replays.
REVOKE_FLUSH_S = 5.0

#: Seconds that leaving waits for saves.
DRAIN_FLUSH_S = 20.0

#: Seconds that either waits when the worker leaves because something has failed.
FAILED_FLUSH_S = 1.0

#: Times that one recovery is begun anew because another worker writes the same partition: a worker
#: that was revoked saves at most its queue, so this ends.
RECOVERIES_MAX = 10


@dataclass(frozen=True, slots=True)
class Work:
    """Records for one run of the cycle."""

    records: list[Record]
    is_replay: bool


class Engine:
    """Owns partitions and feeds the cycle; the listener of the log's assignment.

    Args:
        settings: Limits, and what the operator has decided.
        log: The seam to Kafka.
        store: The seam to Redis.
        cycle: The seven verbs.
        pool: Slots on the device.
        saver: Runs saves behind the cycle.
        sessions: Finds what a session gap ends; None without one.
        model: The model.
        meter: For the status line.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        log: Log,
        store: Store,
        cycle: Cycle,
        pool: Pool,
        saver: Saver,
        sessions: Sessions | None,
        model: LoadedModel,
        meter: Meter,
    ) -> None:
        self._settings = settings
        self._log = log
        self._store = store
        self._cycle = cycle
        self._pool = pool
        self._saver = saver
        self._sessions = sessions
        self._fingerprint = model.fingerprint
        self._is_stateless = model.rules.is_stateless
        self._meter = meter
        self._replays: dict[int, Replay] = {}
        self._damages = Damages()
        self._beginnings = Beginnings(settings, log)
        self._uncommitted: set[int] = set()
        self._is_draining = False
        self._has_failed = False
        self._is_replays_turn = False
        self._has_joined = False

    def join(self) -> None:
        """Warm up and join the group; partitions are assigned within later polls."""
        self._cycle.warm_up()
        self._log.subscribe(self)

    def poll(self, timeout_s: float) -> Work | None:
        """Give the next work: what has arrived, or a part of a replay; None if there is neither.

        Live events and replays take turns, so that partitions which are not in replay go on.

        Raises:
            EngineError: If the worker has to leave.
        """
        with self._noting_failure():
            return self._poll(timeout_s)

    def _poll(self, timeout_s: float) -> Work | None:
        self._saver.check()
        for partition in self._saver.take_refused():
            if partition in self._cycle.owned:
                self._recover_again(partition)
        self._commit_starts()
        self._is_replays_turn = bool(self._replays) and not self._is_replays_turn
        if self._is_replays_turn:
            return self._poll_replay()
        records = self._cycle.poll(0.0 if self._replays else timeout_s)
        return Work(records, is_replay=False) if records else None

    def run(self, work: Work) -> None:
        """Run the cycle over polled work; a store that has lost writes, or was changed, is healed.

        Raises:
            EngineError: If the worker has to leave.
        """
        if self._is_draining:
            return
        with self._noting_failure():
            try:
                self._cycle.run(work.records, is_replay=work.is_replay)
            except StoreBehindError as error:
                _log.warning("the store is behind, replaying: %s", error)
                self._recover_again(error.partition)
            except DamagedStateError as error:
                self._damages.find(error.partition, error.detail)
                self._recover_again(error.partition)

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """Note that the worker has to leave: others are to have its partitions soon."""
        try:
            yield
        except EngineError:
            self._has_failed = True
            raise

    @property
    def is_at_end(self) -> bool:
        """Whether all that the log holds for this worker is done (saves may still wait)."""
        is_waiting = self._replays or self._uncommitted
        return self._has_joined and not is_waiting and self._log.is_at_end

    @property
    def partitions(self) -> list[int]:
        """Partitions that this worker has now."""
        return sorted(self._cycle.owned)

    def status_line(self) -> str:
        """Write the status since the last line."""
        return self._meter.line(
            lag=self._log.lag(),
            pool_keys=len(self._pool),
            partitions=len(self._cycle.owned),
            replaying=len(self._replays),
            waiting=self._saver.waiting,
        )

    def drain(self) -> None:
        """Leave: what is committed is saved, as far as the store answers; then leave the group."""
        self._is_draining = True
        with contextlib.ExitStack() as leaving:
            leaving.callback(self._meter.dead_letter_log.tell)
            leaving.callback(self._store.close)
            leaving.callback(self._saver.close)
            leaving.callback(self._log.close)
            # After a failure the next owner's replay is sooner there than a store that is away.
            is_saved = self._saver.flush(FAILED_FLUSH_S if self._has_failed else DRAIN_FLUSH_S)
            self._store.give_up_waiting()
        if not is_saved:
            _log.warning("left with saves undone; the next owner of the partitions replays them")

    def assigned(self, partitions: Sequence[int]) -> dict[int, StartAt]:
        """See `Listener.assigned`: decide for each partition, by the table in `recovery`."""
        self._has_joined = True
        if partitions:
            _log.info("assigned partitions %s", sorted(partitions))
            self._recover(partitions)
        return {
            partition: StartAt(self._cycle.owned[partition].position, partition in self._replays)
            for partition in partitions
        }

    def revoked(self, partitions: Sequence[int], *, is_lost: bool) -> None:
        """See `Listener.revoked`: no batch is in flight; save what waits, forget the slots."""
        flush_s = FAILED_FLUSH_S if self._has_failed else REVOKE_FLUSH_S
        if not is_lost and not self._saver.flush(flush_s):
            _log.warning("partitions go with saves undone; their next owner replays them")
        for partition in partitions:
            self._stop_replay(partition)
            self._cycle.owned.pop(partition, None)
            self._uncommitted.discard(partition)
            self._damages.forget(partition)
            self._pool.forget(partition)
            if self._sessions is not None:
                self._sessions.forget(partition)
        if partitions:
            _log.info("%s partitions %s", "lost" if is_lost else "revoked", sorted(partitions))

    def partitions_changed(self, partitions: int) -> None:
        """See `Listener.partitions_changed`: keys may have moved, away from their states."""
        topic, before = self._settings.input_topic, self._log.partitions
        if not self._is_stateless and self._cycle.owned:
            raise partitions_changed(topic, partitions, before)
        _log.info("topic %s has %d partitions now, and had %d", topic, partitions, before)

    def _recover_again(self, partition: int) -> None:
        """Bring a partition that this worker has back in line with the store."""
        # What waits would only move `applied` on while it is looked at.
        self._saver.drop(partition)
        self._recover([partition])
        self._log.rewind({partition: self._cycle.owned[partition].position})
        if partition in self._replays:
            self._log.pause(partition)
        else:
            self._log.resume(partition)

    def _recover(self, partitions: Sequence[int]) -> None:
        for attempt in range(RECOVERIES_MAX):
            # The store first: it follows the log, so what it says can't be ahead of a commit that
            # is read after it, whoever commits in between.
            stored = self._store.describe(partitions)
            committed = self._log.committed()
            marks = {p: CommitMark.from_text(metadata) for p, (_, metadata) in committed.items()}
            if not self._is_stateless:
                topic, log = self._settings.input_topic, self._log
                check_partitions(topic, log.topic_id, log.partitions, marks.values())
            try:
                for partition in partitions:
                    offset, mark = committed[partition][0], marks[partition]
                    self._settle(self._look(partition, stored[partition], offset, mark))
                self._beginnings.warn()
                return
            except SaveRefusedError as error:
                _log.info("another worker's late save came in between (%d): %s", attempt, error)
        raise StateError(f"another worker keeps writing the states of partitions {partitions}")

    def _look(
        self,
        partition: int,
        stored: StoredPartition | DamagedPartition | None,
        committed: Offset | None,
        mark: CommitMark | None,
    ) -> Situation:
        """Put together what log and store say."""
        owned = self._cycle.owned.get(partition)
        if owned is not None and committed is not None and committed > owned.position:
            # Another worker has gone on: what looked damaged may be a state of its next batch, half
            # saved. What is damaged for all that is found again.
            self._damages.is_healed(partition)
        log_start, log_end = self._log.bounds(partition)
        is_earliest = self._settings.auto_offset_reset == "earliest"
        return Situation(
            topic=self._settings.input_topic,
            partition=partition,
            partitions=self._log.partitions,
            model=self._fingerprint,
            committed=committed,
            mark=mark,
            stored=stored,
            log_start=log_start,
            log_end=log_end,
            group_start=log_start if is_earliest else log_end,
            topic_id=self._log.topic_id,
            is_stateless=self._is_stateless,
            damaged_state=self._damages.get(partition),
        )

    def _settle(self, situation: Situation) -> None:
        """Decide on a partition and take it; again where its open sequences are found damaged."""
        while True:  # `Damages.heal` ends it
            try:
                return self._take(situation, self._decide(situation))
            except DamagedStateError as error:
                self._damages.find(error.partition, error.detail)
                situation = replace(situation, damaged_state=error.detail)

    def _decide(self, situation: Situation) -> Decision:
        return decide(
            situation,
            on_new_model=self._settings.on_new_model,
            accept_missing_history=self._settings.accept_missing_history,
        )

    def _take(self, situation: Situation, decision: Decision) -> None:
        """Own a partition as decided."""
        partition = situation.partition
        self._stop_replay(partition)
        self._pool.forget(partition)
        if not decision.is_begun:
            self._begin_states(situation, decision)
        epoch = self._saver.begin(partition, decision.applied)
        if self._sessions is not None:
            clock, times = read_open_sequences(
                self._store, self._cycle.records, partition, decision.applied
            )
            self._sessions.begin(partition, clock, times)
        self._cycle.owned[partition] = Owned(
            decision.position, decision.start, decision.applied, epoch
        )
        mark = situation.next_mark(decision.start)
        if (situation.committed, situation.mark) != (decision.position, mark):
            self._uncommitted.add(partition)
        _log.info("%s: %s, position %d", situation.name, decision.reason, decision.position)
        self._beginnings.note(situation, decision)
        if not decision.is_replay:
            return
        first = max(decision.applied, situation.log_start)
        if first < decision.position:
            _log.info("%s: replay from %d to %d", situation.name, first, decision.position)
            self._replays[partition] = self._log.replay(partition, first, decision.position)
        else:
            # The log holds none of the events: the next save has to find `applied` behind them.
            self._save_position(partition)

    def _begin_states(self, situation: Situation, decision: Decision) -> None:
        """Begin a partition's states in the store.

        Raises:
            StateError: If that heals nothing.
        """
        partition = situation.partition
        self._store.begin(
            partition,
            expected=situation.stored.applied if situation.stored else None,
            applied=decision.applied,
            start=decision.start,
            partitions=situation.partitions,
        )
        if decision.damage is not None:  # not counted where a late save has come in between
            self._damages.heal(partition, decision.position, situation.name, decision.damage)
            _log.warning(
                "%s: damaged in Redis: %s; its states begin anew at %d and are replayed to %d",
                *(situation.name, decision.damage, decision.applied, decision.position),
            )
        self._damages.is_healed(partition)

    def _commit_starts(self) -> None:
        """Commit where partitions begin that no commit of this model names, before any event.

        Without it a partition that stays idle would be known to the store only, and a loss of the
        store would begin it anew, at another place or as another model's.
        """
        if self._uncommitted and self._cycle.commit_positions(self._uncommitted):
            self._uncommitted.clear()

    def _poll_replay(self) -> Work | None:
        """Read on in one replay; when it is done, its partition predicts again."""
        partition = next(iter(self._replays))
        replay = self._replays.pop(partition)
        self._replays[partition] = replay  # the next turn is another replay's
        records = replay.read(self._cycle.replay_events_max, timeout_s=0.05)
        if records:
            return Work(records, is_replay=True)
        if replay.is_done:
            self._finish_replay(partition)
        return None

    def _finish_replay(self, partition: int) -> None:
        # The last offsets of the part may be transaction markers, or compacted away.
        self._save_position(partition)
        self._stop_replay(partition)
        self._log.resume(partition)
        position = self._cycle.owned[partition].position
        _log.info("partition %d: replay done, at %d", partition, position)

    def _save_position(self, partition: int) -> None:
        """Move `applied` up to the position, if no event before it is left to replay."""
        owned = self._cycle.owned[partition]
        if owned.queued < owned.position:
            save = Save(partition, owned.epoch, owned.queued, owned.position, [], [])
            owned.queued = owned.position
            self._saver.put(lambda: [save])

    def _stop_replay(self, partition: int) -> None:
        replay = self._replays.pop(partition, None)
        if replay is not None:
            replay.close()
