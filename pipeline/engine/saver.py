"""The verb save, one step behind: committed states go to the store while the next batch is stepped.

Saves of a worker are done in the order of their commits by one thread.  At most some batches wait
(`Settings.save_queue_batches_max`); then committing waits for the store, and so does polling.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from livestep.pipeline.errors import EngineError, StoppedError, UnsavedError
from livestep.pipeline.process.deadline import Deadline
from livestep.pipeline.state.store import SaveRefusedError, Store
from livestep.pipeline.types import Offset

_log = logging.getLogger("livestep.saver")

#: Seconds to wait for a full queue before a line reports that Redis holds polling back.
FULL_WAIT_S = 0.5

#: Seconds that closing waits for a save where no stop bounds it.
CLOSE_S = 3_600.0

#: Seconds between two such lines.
HELD_BACK_INTERVAL_S = 10.0


@dataclass(frozen=True, slots=True)
class Move:
    """A step of a partition's `applied`, which goes with the states that it covers.

    Attributes:
        partition: Index.
        epoch: Number of the recovery that this worker's hold of the partition began with.
        expected: `applied` before, as this worker last saw or queued it.
        applied: `applied` after.
    """

    partition: int
    epoch: int
    expected: Offset
    applied: Offset


@dataclass(frozen=True, slots=True)
class Save:
    """The states of one partition after one batch.

    Attributes:
        move: Of the partition's `applied`.
        keys: Keys that were stepped.
        records: Their records, in the same order.
        clock: Record of the partition's clock, with a session gap.
    """

    move: Move
    keys: Sequence[bytes] = ()
    records: Sequence[bytes] = ()
    clock: bytes | None = None


class Saver:
    """Runs saves in order, behind the cycle.

    Args:
        store: Where to.
        batches_max: How many batches may wait; 0 saves at once, in the caller's thread.
        deadline: Of a stop, which ends every wait here.
    """

    def __init__(self, store: Store, batches_max: int, deadline: Deadline | None = None) -> None:
        self._store = store
        self._deadline = deadline or Deadline()
        self._queue: queue.Queue[tuple[int, Callable[[], Iterable[Save]]] | None] = queue.Queue(
            batches_max
        )
        self._lock = threading.Condition()
        self._applied: dict[int, Offset] = {}
        self._epoch: dict[int, int] = {}
        self._refused: set[int] = set()
        self._failure: Exception | None = None
        self._has_left_out = False
        self._ticket = 0
        self._saved_ticket = 0
        self._logged_held_back_s = -HELD_BACK_INTERVAL_S
        self._thread: threading.Thread | None = None
        if batches_max:
            self._thread = threading.Thread(target=self._run, name="livestep-saver", daemon=True)
            self._thread.start()

    @property
    def next_ticket(self) -> int:
        """Number of the save that `put` will queue next."""
        return self._ticket + 1

    @property
    def saved_ticket(self) -> int:
        """Number of the last save that is done; all before it are done, too."""
        return self._saved_ticket

    @property
    def failure(self) -> Exception | None:
        """The permanent failure of a save: an `EngineError`, or another error if it is a defect."""
        return self._failure

    def begin(self, partition: int, applied: Offset) -> int:
        """Follow a partition from `applied` on.

        Returns:
            epoch: To be named in its saves; those of an earlier epoch are dropped from now on,
            since the recovery before this call has seen to what they would have written.
        """
        with self._lock:
            self._applied[partition] = applied
            self._refused.discard(partition)
            self._epoch[partition] = self._epoch.get(partition, 0) + 1
            return self._epoch[partition]

    def drop(self, partition: int) -> None:
        """Drop a partition's saves that wait; one may still be on its way to the store."""
        with self._lock:
            self._applied.pop(partition, None)
            self._refused.discard(partition)
            self._epoch[partition] = self._epoch.get(partition, 0) + 1

    def applied(self, partition: int) -> Offset | None:
        """Return the `applied` that the store has reached; None if a save was refused."""
        with self._lock:
            return self._applied.get(partition)

    def put(self, make_saves: Callable[[], Iterable[Save]]) -> None:
        """Queue the saves of one batch; they are made when their turn comes.

        Waits while too many wait.

        Raises:
            StoreError: If an earlier save has failed permanently.
            StoppedError: If a stop has ended the wait; these saves are left to the next owner.
        """
        self.check()
        self._ticket += 1
        if self._thread is None:
            self._save(self._ticket, make_saves)
            return
        while True:
            try:
                # The thread may fail while the queue is full: look again from time to time.
                timeout_s = self._deadline.work_s(FULL_WAIT_S)
                return self._queue.put((self._ticket, make_saves), timeout=timeout_s)
            except queue.Full:
                self._check_going_on()
                self._log_held_back()

    def check(self) -> None:
        """Raise `failure`, if there is one."""
        if self._failure is not None:
            raise self._failure

    def check_saved(self, refused: Collection[int] = ()) -> None:
        """Raise what has kept saves from being done; call it after `close`.

        Args:
            refused: Partitions of this worker whose last saves the store has refused.

        Raises:
            UnsavedError: If Redis is what has; anything else is a defect.
        """
        if self._failure is not None and not isinstance(self._failure, EngineError):
            raise self._failure
        if self._failure is not None or self.is_behind or refused:
            why = f" ({self._failure})" if self._failure is not None else ""
            raise UnsavedError(
                f"left with states unsaved; the next owner of their partitions replays them{why}"
            )

    def take_refused(self) -> set[int]:
        """Return the partitions whose save was refused since the last call; each needs recovery."""
        with self._lock:
            refused, self._refused = self._refused, set()
            return refused

    @property
    def is_behind(self) -> bool:
        """Whether anything that is committed is not saved."""
        return self._has_left_out or self.waiting > 0

    @property
    def waiting(self) -> int:
        """How many batches are committed and not yet saved."""
        return self._ticket - self._saved_ticket

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is saved; False if the time was too short, which loses nothing."""
        at_s = time.monotonic() + timeout_s
        with self._lock:
            while self._saved_ticket < self._ticket and self._failure is None:
                remaining_s = self._deadline.work_s(at_s - time.monotonic())
                if remaining_s <= 0:
                    return False
                # A stop may shorten the wait: look again from time to time.
                self._lock.wait(min(remaining_s, FULL_WAIT_S))
        return self._failure is None

    def wait_for_progress(self, timeout_s: float) -> None:
        """Wait until one more save is done, or the time has passed.

        Raises:
            StoreError: If a save has failed permanently.
            StoppedError: If a stop has ended the wait.
        """
        with self._lock:
            if self._saved_ticket < self._ticket and self._failure is None:
                self._lock.wait(self._deadline.work_s(timeout_s))
        self._check_going_on()

    def close(self) -> bool:
        """Stop the thread after what it is doing; what waits is left to the next owner's replay.

        Returns:
            is_over: False if a stop has no time left to wait for that; it is a daemon thread.
        """
        if self._thread is None:
            return True
        with contextlib.suppress(queue.Empty):
            while True:  # the thread reads from it, too
                self._queue.get_nowait()
        self._queue.put(None)
        self._thread.join(self._deadline.leave_s(CLOSE_S))
        return not self._thread.is_alive()

    def _check_going_on(self) -> None:
        self.check()
        if self._deadline.work_s(1.0) <= 0:
            self._has_left_out = True
            raise StoppedError("waiting for Redis to save")

    def _log_held_back(self) -> None:
        """Log now and then that polling waits for the store."""
        now_s = time.monotonic()
        if now_s - self._logged_held_back_s >= HELD_BACK_INTERVAL_S:
            self._logged_held_back_s = now_s
            _log.warning("polling is held back: %d batches wait for Redis to save", self.waiting)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            ticket, make_saves = item
            self._save(ticket, make_saves)

    def _save(self, ticket: int, make_saves: Callable[[], Iterable[Save]]) -> None:
        try:
            if self._failure is None:
                for save in make_saves():
                    self._save_partition(save)
        except Exception as error:
            self._failure = error  # the engine's thread raises it
        finally:
            with self._lock:
                self._saved_ticket = ticket
                self._lock.notify_all()

    def _save_partition(self, save: Save) -> None:
        move = save.move
        if not self._is_next(move):
            return
        try:
            self._store.save(
                move.partition,
                expected=move.expected,
                applied=move.applied,
                keys=save.keys,
                records=save.records,
                clock=save.clock,
            )
        except SaveRefusedError as error:
            _log.warning("save refused, the partition will be recovered: %s", error)
            self._refuse(move)
            return
        with self._lock:
            if self._epoch[move.partition] == move.epoch:
                self._applied[move.partition] = move.applied

    def _is_next(self, move: Move) -> bool:
        """Whether a save starts where the last one ended; mark the partition if not."""
        with self._lock:
            if self._epoch[move.partition] != move.epoch:
                return False
            if self._applied.get(move.partition) == move.expected:
                return True
        self._refuse(move)
        return False

    def _refuse(self, move: Move) -> None:
        with self._lock:
            if self._epoch[move.partition] == move.epoch:
                self._applied.pop(move.partition, None)
                self._refused.add(move.partition)
