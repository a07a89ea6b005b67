"""How a worker takes partitions over, by what log and store say, replays, and releases them.

`recovery` decides; here it is done.  Everything runs on the engine's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from livestep.pipeline.engine.commit_mark import CommitMark, check_partitions
from livestep.pipeline.engine.damaged_partitions import Damages
from livestep.pipeline.engine.log import Log, Replay
from livestep.pipeline.engine.partitions import Owned, Partitions
from livestep.pipeline.engine.recovery import Decision, Situation, decide
from livestep.pipeline.engine.retention import Beginnings
from livestep.pipeline.engine.running_model import RunningModel
from livestep.pipeline.engine.saver import Save
from livestep.pipeline.errors import StateError
from livestep.pipeline.settings import Settings
from livestep.pipeline.state.state_records import DamagedStateError
from livestep.pipeline.state.store import SaveRefusedError
from livestep.pipeline.state.stored_partition import DamagedPartition, StoredPartition
from livestep.pipeline.types import Offset

#: The engine's, whose partitions these are.
_log = logging.getLogger("livestep.engine")

#: Times that one recovery is restarted because another worker writes the same partition: a worker
#: that was revoked saves at most its queue, so this ends.
RECOVERIES_MAX = 10


class Takeover:
    """Brings partitions to where predicting can continue.

    Args:
        settings: What the operator has decided.
        log: The seam to Kafka.
        model: The model at run time.
        partitions: Those that this worker owns.

    Attributes:
        replays: By partition, the next turn's first.
        uncommitted: Partitions whose beginning no commit of this model names.
        damages: What was found damaged in the store.
    """

    def __init__(
        self, settings: Settings, log: Log, model: RunningModel, partitions: Partitions
    ) -> None:
        self._settings = settings
        self._log = log
        self._model = model
        self._partitions = partitions
        self._beginnings = Beginnings(settings, log)
        self.replays: dict[int, Replay] = {}
        self.uncommitted: set[int] = set()
        self.damages = Damages()

    def recover(self, partitions: Sequence[int]) -> None:
        """Take partitions over, or bring them back in line with the store.

        Raises:
            StateError: If the operator has to decide.
        """
        for attempt in range(RECOVERIES_MAX):
            # The store first: it follows the log, so it can't be ahead of a commit that is read
            # after it, even if another worker commits in between.
            stored = self._model.store.describe(partitions)
            self._log.check_topic()
            committed = self._log.committed()
            marks = {p: CommitMark.from_text(metadata) for p, (_, metadata) in committed.items()}
            if not self._model.rules.is_stateless:
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
            except StateError:
                self._log.check_topic()  # the cause, if the topic was replaced meanwhile
                raise
        raise StateError(f"another worker keeps writing the states of partitions {partitions}")

    def _look(
        self,
        partition: int,
        stored: StoredPartition | DamagedPartition | None,
        committed: Offset | None,
        mark: CommitMark | None,
    ) -> Situation:
        """Collect what log and store say."""
        owned = self._partitions.get(partition)
        if owned is not None and committed is not None and committed > owned.position:
            # Another worker has continued: what looked damaged may be a state of its next batch,
            # half saved. If it is damaged, it will be found again.
            self.damages.clear(partition)
        log_start, log_end = self._log.bounds(partition)
        is_earliest = self._settings.auto_offset_reset == "earliest"
        return Situation(
            topic=self._settings.input_topic,
            partition=partition,
            partitions=self._log.partitions,
            model=self._model.fingerprint,
            committed=committed,
            mark=mark,
            stored=stored,
            log_start=log_start,
            log_end=log_end,
            group_start=log_start if is_earliest else log_end,
            topic_id=self._log.topic_id,
            is_stateless=self._model.rules.is_stateless,
            damaged_state=self.damages.get(partition),
        )

    def _settle(self, situation: Situation) -> None:
        """Decide on a partition and own it; retry if its open sequences are found damaged."""
        while True:  # `Damages.count_restart` ends it
            try:
                decision = decide(
                    situation,
                    on_new_model=self._settings.on_new_model,
                    accept_missing_history=self._settings.accept_missing_history,
                )
                return self._take(situation, decision)
            except DamagedStateError as error:
                self.damages.note(error.partition, error.detail)
                situation = replace(situation, damaged_state=error.detail)

    def _take(self, situation: Situation, decision: Decision) -> None:
        """Own a partition as decided."""
        partition = situation.partition
        self._stop_replay(partition)
        self._model.forget(partition)
        if decision.is_fresh:
            self._begin_states(situation, decision)
        epoch = self._model.begin(partition, decision.applied)
        self._partitions.own(
            Owned(partition, decision.position, decision.start, decision.applied, epoch)
        )
        next_commit = (decision.position, self._partitions.mark(partition))
        if (situation.committed, situation.mark) != next_commit:
            self.uncommitted.add(partition)
        _log.info("%s: %s, position %d", situation.name, decision.reason, decision.position)
        self._beginnings.note(situation, decision)
        if not decision.is_replay:
            return
        first = max(decision.applied, situation.log_start)
        if first < decision.position:
            _log.info("%s: replay from %d to %d", situation.name, first, decision.position)
            self.replays[partition] = self._log.replay(partition, first, decision.position)
        else:
            # The log holds none of the events: the next save has to find `applied` behind them.
            self._save_position(partition)

    def _begin_states(self, situation: Situation, decision: Decision) -> None:
        """Begin a partition's states in the store.

        Raises:
            StateError: If that has not helped.
        """
        partition = situation.partition
        self._model.store.begin(
            partition,
            expected=situation.stored.applied if situation.stored else None,
            applied=decision.applied,
            start=decision.start,
            partitions=situation.partitions,
        )
        if decision.damage is not None:  # not counted where a late save has come in between
            self.damages.count_restart(
                partition, decision.position, situation.name, decision.damage
            )
            _log.warning(
                "%s: damaged in Redis: %s; its states start over at %d and are replayed to %d",
                *(situation.name, decision.damage, decision.applied, decision.position),
            )
        self.damages.clear(partition)

    def recover_again(self, partition: int) -> None:
        """Bring a partition that this worker has back in line with the store, and read it there."""
        # What waits would only move `applied` on while it is looked at.
        self._model.saver.drop(partition)
        self.recover([partition])
        self._log.rewind(self._partitions.positions([partition]))
        if partition in self.replays:
            self._log.pause(partition)
        else:
            self._log.resume(partition)

    def forget(self, partition: int) -> None:
        """Release a partition."""
        self._stop_replay(partition)
        self._partitions.release(partition)
        self.uncommitted.discard(partition)
        self.damages.forget(partition)
        self._model.forget(partition)

    def finish_replay(self, partition: int) -> None:
        """Continue predicting in a partition whose replay is complete."""
        # The last offsets of the part may be transaction markers, or compacted away.
        self._save_position(partition)
        self._stop_replay(partition)
        self._log.resume(partition)
        position = self._partitions[partition].position
        _log.info("partition %d: replay done, at %d", partition, position)

    def _save_position(self, partition: int) -> None:
        """Move `applied` up to the position, if no event before it is left to replay."""
        owned = self._partitions[partition]
        if owned.queued < owned.position:
            save = Save(owned.move_applied(owned.position))
            self._model.saver.put(lambda: [save])

    def _stop_replay(self, partition: int) -> None:
        replay = self.replays.pop(partition, None)
        if replay is not None:
            replay.close()
