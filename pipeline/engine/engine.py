"""The life of a partition with this worker: assigned, recovered, predicted on, revoked.

Everything here runs on one thread, poll and rebalance callbacks included: a batch is never in
flight while the assignment changes.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from livestep.models.loaded_model import LoadedModel
from livestep.pipeline.columns.log_records import Records
from livestep.pipeline.engine.cycle import Cycle, StoreBehindError
from livestep.pipeline.engine.log import Log, StartAt
from livestep.pipeline.engine.partitions import Partitions
from livestep.pipeline.engine.running_model import RunningModel
from livestep.pipeline.engine.status import Meter
from livestep.pipeline.engine.takeover import Takeover
from livestep.pipeline.engine.topic_state import partitions_changed
from livestep.pipeline.errors import StoppedError, UnsavedError
from livestep.pipeline.process.deadline import Deadline
from livestep.pipeline.settings import Settings
from livestep.pipeline.state.state_records import DamagedStateError
from livestep.pipeline.state.store import Store

_log = logging.getLogger("livestep.engine")

#: Seconds that a revoke waits for saves; what is not saved by then the next owner replays.
REVOKE_FLUSH_S = 5.0

#: Seconds that either waits when the worker leaves because something has failed.
FAILED_FLUSH_S = 1.0


@dataclass(frozen=True, slots=True)
class Work:
    """Records for one run of the cycle."""

    records: Records
    is_replay: bool


class Engine:
    """Owns partitions and feeds the cycle; the listener of the log's assignment.

    Args:
        settings: Limits, and what the operator has decided.
        log: The seam to Kafka.
        model: The model at run time.
        deadline: Of a stop.
    """

    def __init__(
        self, settings: Settings, log: Log, model: RunningModel, deadline: Deadline
    ) -> None:
        self._settings = settings
        self._log = log
        self._model = model
        self._deadline = deadline
        self._meter = Meter()
        self._partitions = Partitions(log, model.fingerprint)
        self._cycle = Cycle(settings, log, model, self._partitions, self._meter)
        self._takeover = Takeover(settings, log, model, self._partitions)
        self._is_draining = False
        #: What has made the worker leave; None if nothing has.
        self.failure: Exception | None = None
        self._is_replays_turn = False
        self._has_joined = False

    def join(self) -> None:
        """Warm up and join the group; partitions are assigned within later polls."""
        with self._noting_failure():
            self._cycle.warm_up()
            self._log.subscribe(self)

    def poll(self, timeout_s: float) -> Work | None:
        """Return the next work: what has arrived, or a part of a replay; None if there is neither.

        Live events and replays take turns, so that partitions without a replay keep predicting.

        Raises:
            EngineError: If the worker has to leave.
        """
        with self._noting_failure():
            return self._poll(timeout_s)

    def _poll(self, timeout_s: float) -> Work | None:
        saver = self._model.saver
        saver.check()
        for partition in saver.take_refused():
            if partition in self._partitions:
                self._takeover.recover_again(partition)
        self._commit_starts()
        self._is_replays_turn = bool(self._takeover.replays) and not self._is_replays_turn
        if self._is_replays_turn:
            return self._poll_replay()
        records = self._cycle.poll(0.0 if self._takeover.replays else timeout_s)
        return Work(records, is_replay=False) if len(records) else None

    def _commit_starts(self) -> None:
        """Commit where partitions begin that no commit of this model names, before any event.

        Without it a partition that stays idle would be known to the store only, and a loss of the
        store would start it again, at another place or as another model's.
        """
        uncommitted = self._takeover.uncommitted
        if uncommitted and self._cycle.commit_positions(uncommitted):
            uncommitted.clear()

    def run(self, work: Work) -> None:
        """Run the cycle over polled work, and repair a store that has lost writes or was changed.

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
                self._takeover.recover_again(error.partition)
            except DamagedStateError as error:
                self._takeover.damages.note(error.partition, error.detail)
                self._takeover.recover_again(error.partition)

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """Note that the worker has to leave: others should get its partitions soon."""
        try:
            yield
        except StoppedError:
            raise
        except Exception as error:
            self.failure = self.failure or error
            raise

    @property
    def is_at_end(self) -> bool:
        """Whether all that the log holds for this worker is done (saves may still wait)."""
        is_waiting = self._takeover.replays or self._takeover.uncommitted
        return self._has_joined and not is_waiting and self._log.is_at_end

    @property
    def is_behind(self) -> bool:
        """Whether anything that is committed is not saved."""
        return self._model.saver.is_behind

    @property
    def partitions(self) -> list[int]:
        """Partitions that this worker has now."""
        return sorted(self._partitions)

    def status_line(self) -> str:
        """Write the status since the last line."""
        return self._meter.line(
            lag=self._log.lag(),
            pool_keys=len(self._model.pool),
            partitions=len(self._partitions),
            replaying=len(self._takeover.replays),
            waiting=self._model.saver.waiting,
        )

    def drain(self) -> None:
        """Save what is committed, as far as the store answers; then leave the group.

        Raises:
            UnsavedError: If states were left unsaved, and nothing else has failed.
        """
        self._is_draining = True
        self._deadline.begin()
        saver, store = self._model.saver, self._model.store
        with contextlib.ExitStack() as leaving:
            leaving.callback(self._meter.dead_letter_log.write)
            leaving.callback(self._close_store)
            leaving.callback(self._log.close)
            # After a failure the next owner's replay is sooner there than a store that is away.
            saver.flush(FAILED_FLUSH_S if self.failure is not None else math.inf)
            store.give_up_waiting()
            refused = saver.take_refused() & self._partitions.keys()
        try:
            saver.check_saved(refused)
        except UnsavedError as error:
            if self.failure is None:
                raise
            _log.warning("%s", error)

    def _close_store(self) -> None:
        """Stop saving, and close the store, unless a save that can't be stopped still uses it."""
        if self._model.saver.close():
            self._model.store.close()

    def assigned(self, partitions: Sequence[int]) -> dict[int, StartAt]:
        """See `Listener.assigned`: decide for each partition, by the table in `recovery`."""
        self._has_joined = True
        # At least once, a batch whose commit was made, and not answered, is read again.
        if self._settings.guarantee == "exactly-once":
            self._partitions.read_commits()
        if partitions:
            _log.info("assigned partitions %s", sorted(partitions))
            self._takeover.recover(partitions)
        return {
            partition: StartAt(
                self._partitions[partition].position, partition in self._takeover.replays
            )
            for partition in partitions
        }

    def revoked(self, partitions: Sequence[int], *, is_lost: bool) -> None:
        """See `Listener.revoked`: no batch is in flight; save what waits, forget the slots."""
        flush_s = FAILED_FLUSH_S if self.failure is not None else REVOKE_FLUSH_S
        if not is_lost and not self._model.saver.flush(flush_s):
            _log.warning(
                "partitions are revoked with unsaved states; their next owner replays them"
            )
        for partition in partitions:
            self._takeover.forget(partition)
        if partitions:
            _log.info("%s partitions %s", "lost" if is_lost else "revoked", sorted(partitions))

    def partitions_changed(self, partitions: int) -> None:
        """See `Listener.partitions_changed`: keys may have moved, away from their states."""
        topic, before = self._settings.input_topic, self._log.partitions
        if not self._model.rules.is_stateless and self._partitions:
            raise partitions_changed(topic, partitions, before)
        _log.info("topic %s has %d partitions now, and had %d", topic, partitions, before)

    def _poll_replay(self) -> Work | None:
        """Read more of one replay; when it is done, its partition predicts again."""
        partition = next(iter(self._takeover.replays))
        replay = self._takeover.replays.pop(partition)
        self._takeover.replays[partition] = replay  # the next turn is another replay's
        records = replay.read(self._model.replay_events_max, timeout_s=0.05)
        if len(records):
            return Work(records, is_replay=True)
        if replay.is_done:
            self._takeover.finish_replay(partition)
        return None


def build_engine(
    settings: Settings,
    model: LoadedModel,
    log: Log,
    store: Store,
    *,
    is_saving_behind: bool = True,
    deadline: Deadline | None = None,
) -> Engine:
    """Put an engine together over any log and store.

    Args:
        settings: Limits and topics.
        model: The model, on its device.
        log: Kafka, or the one in memory.
        store: Redis, or the one in memory.
        is_saving_behind: Save in a separate thread; else at the end of each cycle.
        deadline: Of a stop; a new one if None.
    """
    deadline = deadline or Deadline(settings.drain_timeout_s)
    running = RunningModel(model, store, settings, deadline, is_saving_behind=is_saving_behind)
    return Engine(settings, log, running, deadline)
