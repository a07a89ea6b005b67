"""What to do with a partition that is assigned: continue, replay, take over, or refuse.

Kafka's committed offset C is what has been done; Redis' `applied` A is how far the states
have it.  The commit also has a mark: which model made it, and where its states begin.  `decide` is
the whole table, as a pure function.

    commit            applied      then
    none              none         first run: states begin where the group begins
    none              A == start   the first run died before its first commit: continue at A
    none              A, beyond    refuse: the group was deleted under the states
    ours              A == C       continue
    ours              A <  C       replay A..C without outputs (crash before save, lost writes)
    ours              none         replay start..C (Redis lost everything)
    any               A >  C       refuse: the offsets were reset under the states
    ours              damaged      start over, replay start..C (Redis was changed)
    other model's     A == C       continue: this model has already taken over
    other model's     else         as set: refuse; zeros: begin at C; warm: replay the history
    other model's     damaged      A == C: start over, replay start..C; else as if there were none
    without mark      none         states begin at C: the offsets were set by hand
    without mark      damaged      start over, replay start..C; refuse if `start` is invalid
    none              damaged      refuse if there are states; else begin where the group begins
    another topic's   any          as if there were none, and the group begins at the log's start

A commit is another topic's if its mark names another topic id: that topic was deleted, and one of
the same name created. Kafka forgets the commits of a deleted topic, but not at once, and a worker
that has not noticed may have made this one after that.
A state is damaged if it is not what was saved; so is an impossible field next to the states.
`start` is that of the commit, if it is ours; else that of the store.

A model that keeps no states has no row in the table: it continues at C.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from livestep.pipeline.engine.commit_mark import (
    CommitMark,
    check_partitions,
    is_of_another_topic,
)
from livestep.pipeline.errors import (
    HistoryMissingError,
    OffsetsResetError,
    OtherModelError,
    StateError,
)
from livestep.pipeline.state.stored_partition import DamagedPartition, StoredPartition
from livestep.pipeline.types import Offset


@dataclass(frozen=True, slots=True)
class Situation:
    """All that is known about a partition when it is assigned.

    Attributes:
        topic: Input topic, for messages.
        partition: Index.
        partitions: Partitions of the topic now.
        model: Fingerprint of this worker's model.
        committed: The group's committed offset, None if there is none.
        mark: The commit's mark, None if it has none.
        stored: What the store holds, None if nothing.
        log_start: First offset that the log still has.
        log_end: Offset after its last.
        group_start: Where a group without commits begins.
        topic_id: Id of the topic.
        is_stateless: Whether the model keeps nothing from one event to the next.
        damaged_state: What is wrong with a state that was read, None if nothing is known.
    """

    topic: str
    partition: int
    partitions: int
    model: str
    committed: Offset | None
    mark: CommitMark | None
    stored: StoredPartition | DamagedPartition | None
    log_start: Offset
    log_end: Offset
    group_start: Offset
    topic_id: str
    is_stateless: bool = False
    damaged_state: str | None = None

    @property
    def name(self) -> str:
        """The partition, for messages."""
        return f"{self.topic}/{self.partition}"

    @property
    def our_mark(self) -> CommitMark | None:
        """The commit's mark, if it is of this worker's model."""
        return self.mark if self.mark is not None and self.mark.model == self.model else None

    @property
    def damage(self) -> str | None:
        """What in the store is not what was saved there; None if nothing is known."""
        stored, mark = self.stored, self.our_mark
        if self.damaged_state is not None or stored is None:
            return self.damaged_state
        if isinstance(stored, DamagedPartition):
            return stored.detail
        if mark is None:
            return None
        if stored.partitions != mark.partitions:
            return (
                f"field `partitions` is {stored.partitions}, and the commit has {mark.partitions}"
            )
        # They may differ where a history was accepted as missing, until the next commit.
        if stored.start != mark.start and mark.start >= self.log_start:
            return f"field `start` is {stored.start}, and the commit has {mark.start}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do.

    Attributes:
        position: Where to continue predicting.
        start: Where the states begin.
        applied: `applied` to continue from; a replay goes from here to `position`.
        is_fresh: Whether the partition's states first have to be started over in the store.
        reason: For the log.
        is_first_run: Whether the group has never been here.
        damage: What is wrong with what the store holds; None if nothing is.
    """

    position: Offset
    start: Offset
    applied: Offset
    is_fresh: bool
    reason: str
    is_first_run: bool = False
    damage: str | None = None

    @classmethod
    def at(
        cls,
        offset: Offset,
        reason: str,
        *,
        is_fresh: bool,
        is_first_run: bool = False,
        damage: str | None = None,
    ) -> Decision:
        """Begin states at an offset, and continue predicting there: nothing is replayed."""
        return cls(
            position=offset,
            start=offset,
            applied=offset,
            is_fresh=is_fresh,
            reason=reason,
            is_first_run=is_first_run,
            damage=damage,
        )

    @property
    def is_replay(self) -> bool:
        """Whether the store is behind."""
        return self.applied < self.position


def decide(
    situation: Situation, *, on_new_model: str = "refuse", accept_missing_history: bool = False
) -> Decision:
    """Decide what to do with an assigned partition; see the table above.

    Args:
        situation: What is known.
        on_new_model: `Settings.on_new_model`.
        accept_missing_history: `Settings.accept_missing_history`.

    Raises:
        StateError: If the operator has to decide; lists what can be done.
    """
    if is_of_another_topic(situation.mark, situation.topic_id):
        first, committed = situation.log_start, situation.committed
        situation = replace(situation, committed=None, mark=None, group_start=first)
        decision = decide(
            situation, on_new_model=on_new_model, accept_missing_history=accept_missing_history
        )
        gone = f"the commit at {committed} was made against a topic that has been deleted"
        return replace(decision, reason=f"{decision.reason}: {gone}")
    if situation.is_stateless:
        return _without_states(situation, accept_missing_history)
    written: list[CommitMark | StoredPartition | None] = [situation.mark]
    if situation.damage is None and not isinstance(situation.stored, DamagedPartition):
        written.append(situation.stored)
    check_partitions(situation.topic, situation.topic_id, situation.partitions, written)
    if situation.committed is None:
        decision = _without_commit(situation)
    else:
        decision = _with_commit(situation, situation.committed, on_new_model)
    return _check_history(situation, decision, accept_missing_history)


def _without_states(situation: Situation, accept_missing_history: bool) -> Decision:
    """Continue at the commit: a model that keeps nothing has nothing to replay."""
    committed, first = situation.committed, situation.log_start
    at = situation.group_start if committed is None else committed
    _check_log_end(situation, at)
    reason = "continue without states"
    if at < first:
        if not accept_missing_history:
            missing, remedy = _missing_history(situation, at)
            raise HistoryMissingError(
                f"{situation.name}: {missing}, and have no prediction. {remedy} without them"
            )
        at, reason = first, f"{reason}, history before {first} accepted as missing"
    return Decision.at(at, reason, is_fresh=False, is_first_run=committed is None)


def _without_commit(situation: Situation) -> Decision:
    stored, damage = situation.stored, situation.damage
    if stored is None or (isinstance(stored, DamagedPartition) and not stored.has_states):
        start = situation.group_start
        return Decision.at(start, "first run", is_fresh=True, is_first_run=True, damage=damage)
    if isinstance(stored, DamagedPartition):
        raise OffsetsResetError(
            f"{situation.name}: Redis holds states, and it is unknown which events they have seen: "
            f"{damage}, and the group has no committed offset. Use another group, or delete this "
            "one's states"
        )
    if stored.has_states or stored.applied != stored.start:
        raise OffsetsResetError(_ahead(situation, stored, "the group has no committed offset"))
    # A crash after `begin` and before the first commit: nothing has been stepped.
    return Decision.at(
        stored.applied, "first run, begun before", is_fresh=damage is not None, damage=damage
    )


def _with_commit(situation: Situation, committed: Offset, on_new_model: str) -> Decision:
    stored, mark = situation.stored, situation.mark
    if isinstance(stored, StoredPartition) and stored.applied > committed:
        commit = f"the group's committed offset is {committed}"
        raise OffsetsResetError(_ahead(situation, stored, commit))
    if situation.damage is not None:
        return _heal(situation, committed, situation.damage, on_new_model)
    assert not isinstance(stored, DamagedPartition)
    ours = situation.our_mark
    if stored is not None and (stored.applied == committed or ours or mark is None):
        start = ours.start if ours else stored.start
        reason = "continue" if stored.applied == committed else "states are behind"
        return Decision(
            position=committed, start=start, applied=stored.applied, is_fresh=False, reason=reason
        )
    if mark is not None and ours is None:
        return _take_over(situation, stored, committed, mark, on_new_model)
    if mark is None:
        return Decision.at(committed, "offset set by hand", is_fresh=True)
    return _replay_all(committed, mark.start, "states are lost")


def _heal(situation: Situation, committed: Offset, damage: str, on_new_model: str) -> Decision:
    """Start damaged states over, from where they began."""
    stored, mark, ours = situation.stored, situation.mark, situation.our_mark
    if ours is not None:
        start = ours.start
    elif isinstance(stored, StoredPartition) and (mark is None or stored.applied == committed):
        start = stored.start
    elif mark is not None:
        decision = _take_over(situation, None, committed, mark, on_new_model)
        return replace(decision, damage=damage)
    else:
        raise StateError(
            f"{situation.name}: the states in Redis are damaged: {damage}. The committed offset, "
            f"{committed}, was set by hand, so it is unknown where they begin, and they can't be "
            "replayed. Delete this group's states, and they begin at zeros from there on"
        )
    return replace(_replay_all(committed, start, "replay all"), damage=damage)


def _replay_all(committed: Offset, start: Offset, reason: str) -> Decision:
    return Decision(position=committed, start=start, applied=start, is_fresh=True, reason=reason)


def _take_over(
    situation: Situation,
    stored: StoredPartition | None,
    committed: Offset,
    mark: CommitMark,
    on_new_model: str,
) -> Decision:
    if on_new_model == "zeros":
        return Decision.at(committed, f"zeros after {mark.model}", is_fresh=True)
    if on_new_model == "warm":
        reason = f"history of {mark.model}"
        if stored is not None:
            return Decision(
                position=committed,
                start=stored.start,
                applied=stored.applied,
                is_fresh=False,
                reason=reason,
            )
        return _replay_all(committed, min(situation.log_start, committed), reason)
    raise OtherModelError(
        f"{situation.name}: the last commit, at offset {committed}, was made by model "
        f"{mark.model}, and this worker has model {situation.model}. --on-new-model zeros begins "
        f"all states at zeros from offset {committed} on; --on-new-model warm first replays the "
        "history that the log holds through this model, without outputs"
    )


def _check_history(
    situation: Situation, decision: Decision, accept_missing_history: bool
) -> Decision:
    """Check that the log still has what the decision needs."""
    _check_log_end(situation, decision.position)
    first, needed = situation.log_start, decision.applied
    if needed >= first:
        return decision
    if not accept_missing_history:
        why = decision.reason
        if decision.damage is not None:
            why = f"the states in Redis are damaged: {decision.damage}"
        missing, remedy = _missing_history(situation, needed)
        raise HistoryMissingError(
            f"{situation.name}: {missing}, and the states need them ({why}). {remedy} "
            "with states that have not seen them"
        )
    return replace(
        decision,
        position=max(decision.position, first),
        start=first if decision.is_fresh else decision.start,
        applied=first if decision.is_fresh else decision.applied,
        reason=f"{decision.reason}, history before {first} accepted as missing",
    )


def _check_log_end(situation: Situation, position: Offset) -> None:
    if position > situation.log_end:
        raise OffsetsResetError(
            f"{situation.name}: the group's position is {position}, and the log ends at "
            f"{situation.log_end}: the log has lost records. Reset the group's offsets, and start "
            "with another group or model directory"
        )


def _missing_history(situation: Situation, needed: Offset) -> tuple[str, str]:
    """Describe what the log no longer has, and the setting that accepts it."""
    first = situation.log_start
    return (
        f"offsets {needed} to {first - 1} are no longer in the log",
        f"--accept-missing-history continues from offset {first}",
    )


def _ahead(situation: Situation, stored: StoredPartition, commit: str) -> str:
    return (
        f"{situation.name}: the states have seen events up to offset {stored.applied}, "
        f"and {commit}: events would be stepped twice. Set the group's offset back to "
        f"{stored.applied}, or use another group and delete this one's states"
    )
