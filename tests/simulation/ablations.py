"""The mechanisms behind the guarantees, removed one by one: the simulation has to notice."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import livestep.pipeline.engine.cycle
from livestep import LoadedModel, MemoryStore
from livestep.models.contract import state_tensors
from livestep.pipeline.batch.packing import Batch
from livestep.pipeline.engine.cycle import Cycle
from livestep.pipeline.engine.recovery import Decision, Situation
from livestep.pipeline.engine.running_model import RunningModel
from livestep.pipeline.engine.takeover import Takeover
from livestep.pipeline.memory.memory_broker import MemoryGroup, MemoryProducer
from livestep.pipeline.memory.memory_log import MemoryLog
from livestep.pipeline.state.pool import Pool
from livestep.pipeline.state.state_records import StateRecords
from livestep.pipeline.state.store import SaveRefusedError
from livestep.pipeline.types import Offset, Outgoing

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, slots=True)
class Ablation:
    """A mechanism to remove.

    Attributes:
        text: What is missing then.
        take_away: Removes it.
        seed: One of the first that show it.
        edition: Of its plan.
    """

    text: str
    take_away: Callable[[Patch], None]
    seed: int = 0
    edition: int = 1


def _no_generation_fence(patch: Patch) -> None:
    def commit(self: MemoryGroup, generation: int, offsets: Any) -> None:
        self.offsets.update(offsets)

    patch.setattr(MemoryGroup, "commit", commit)


def _no_replay(patch: Patch) -> None:
    patch.setattr(Decision, "is_replay", property(lambda _: False))


def _no_compare_and_set(patch: Patch) -> None:
    def is_expected(self: MemoryStore, partition: int, expected: Any, applied: Offset) -> bool:
        if partition not in self._hashes and expected is not None:
            raise SaveRefusedError(partition, None)
        return True

    patch.setattr(MemoryStore, "_is_expected", is_expected)


def _save_before_commit(patch: Patch) -> None:
    send, save = Cycle.send, Cycle.save
    saved: list[Batch] = []

    def save_and_send(self: Cycle, batch: Batch, stepped: Any) -> None:
        save(self, batch, stepped)
        saved[:] = [batch]
        send(self, batch, stepped)

    def save_once(self: Cycle, batch: Batch, stepped: Any) -> None:
        if not saved or batch is not saved[0]:
            save(self, batch, stepped)

    patch.setattr(Cycle, "send", save_and_send)
    patch.setattr(Cycle, "save", save_once)


def _slot_given_away_unsaved(patch: Patch) -> None:
    write = Pool.write

    def write_anywhere(self: Pool, keys: Any, states: Any, **tickets: int) -> int:
        return write(self, keys, states, **{**tickets, "saved_ticket": 1 << 60})

    patch.setattr(Pool, "write", write_anywhere)


def _offset_plus_one(patch: Patch) -> None:
    pack = livestep.pipeline.engine.cycle.pack

    def pack_and_count(records: Any, *args: Any, **options: Any) -> Batch:
        batch = pack(records, *args, **options)
        counts: dict[int, int] = {}
        for record in reversed(list(records)):
            partition = record.partition
            counts[partition] = counts.get(partition, 0) + 1
            batch.next_offsets[partition] = Offset(record.offset + counts[partition])
        return batch

    patch.setattr(livestep.pipeline.engine.cycle, "pack", pack_and_count)


def _feedback_not_saved(patch: Patch) -> None:
    init, write = RunningModel.__init__, StateRecords.write
    places: dict[int, int] = {}

    def init_and_note(self: RunningModel, model: LoadedModel, *parts: Any, **options: Any) -> None:
        init(self, model, *parts, **options)
        if model.rules.feedback and model.rules.is_feeding_events:
            places[id(self.records)] = len(state_tensors(model.net.initial_state(1)))

    def write_without(self: StateRecords, partition: int, keys: Any, states: Any) -> list[bytes]:
        place = places.get(id(self))
        if place is not None:
            tensors = list(states.tensors)
            tensors[place] = tensors[place] * 0
            states = copy.copy(states)
            states.tensors = tuple(tensors)
        return write(self, partition, keys, states)

    patch.setattr(RunningModel, "__init__", init_and_note)
    patch.setattr(StateRecords, "write", write_without)


def _no_rewind(patch: Patch) -> None:
    patch.setattr(MemoryLog, "rewind", lambda *_: None)


def _slots_kept(patch: Patch) -> None:
    patch.setattr(Pool, "forget", lambda *_: None)


def _no_chunk_chain(patch: Patch) -> None:
    write = MemoryStore.write

    def write_unchained(self: MemoryStore, *args: Any, chunk: int = 0, is_last: bool) -> None:
        write(self, *args, chunk=0, is_last=is_last)

    patch.setattr(MemoryStore, "write", write_unchained)


def _applied_first(patch: Patch) -> None:
    write = MemoryStore.write

    def write_first(self: MemoryStore, *args: Any, chunk: int = 0, is_last: bool) -> None:
        partition, expected, applied, records = args
        if chunk:
            fields = self._hashes.get(partition, {})
            fields.update({b"k" + key: record for key, record in records.items()})
        else:
            write(self, partition, expected, applied, records, chunk=0, is_last=True)

    patch.setattr(MemoryStore, "write", write_first)


def _no_replay_skip(patch: Patch) -> None:
    load = Cycle.load

    def load_all(self: Cycle, batch: Batch, *, is_replay: bool) -> Any:
        # What is dropped is dropped from the copy.
        return load(self, copy.copy(batch) if is_replay else batch, is_replay=is_replay)

    patch.setattr(Cycle, "load", load_all)


def _commit_read_first(patch: Patch) -> None:
    recover, committed = Takeover.recover, MemoryLog.committed
    early: list[Any] = []

    def recover_late(self: Takeover, partitions: Any) -> None:
        early[:] = [self._log.committed()]  # noqa: SLF001
        recover(self, partitions)

    def committed_early(self: MemoryLog, partitions: Any = None) -> Any:
        return early.pop() if early else committed(self, partitions)

    patch.setattr(Takeover, "recover", recover_late)
    patch.setattr(MemoryLog, "committed", committed_early)


def _no_transaction(patch: Patch) -> None:
    def send(self: MemoryProducer, topic: str, records: Iterable[Outgoing]) -> None:
        self.check()
        for record in records:
            self._broker.append(topic, record)

    patch.setattr(MemoryProducer, "send", send)


def _no_producer_fence(patch: Patch) -> None:
    patch.setattr(MemoryProducer, "check", lambda _: None)
    _no_generation_fence(patch)


def _taken_when_asked(patch: Patch) -> None:
    def rebalance(self: MemoryLog) -> None:
        group, listener = self._group, self._listener
        assert listener is not None
        target = group.target(self)
        self._give_up(self._positions.keys() - target)
        free = {p for p in target - self._positions.keys() if group.owner(p) is None}
        if not free and self._generation == group.generation:
            return
        self._generation = group.generation
        for partition, start in listener.assigned(sorted(free)).items():
            group.take(self, partition)
            self._positions[partition] = start.position
            if start.is_paused:
                self._paused.add(partition)

    patch.setattr(MemoryLog, "_rebalance", rebalance)


def _clock_not_saved(patch: Patch) -> None:
    write = StateRecords.write_clock

    def write_nothing(self: StateRecords, partition: int, applied: Offset, clock: int) -> bytes:
        return write(self, partition, applied, -1)

    patch.setattr(StateRecords, "write_clock", write_nothing)


def _no_checksum(patch: Patch) -> None:
    def verified(self: StateRecords, _: int, keys: Any, records: Any) -> Any:
        size = self.record_bytes
        bodies = [record[:size].ljust(size, b"\0") for record in records]
        return np.frombuffer(b"".join(bodies), dtype=np.uint8).reshape(len(keys), size)

    patch.setattr(StateRecords, "_verified", verified)


def _topic_by_name(patch: Patch) -> None:
    patch.setattr(MemoryLog, "check_topic", lambda _: None)


def _model_not_asked(patch: Patch) -> None:
    patch.setattr(Situation, "our_mark", property(lambda situation: situation.mark))


def _commit_before_send(patch: Patch) -> None:
    send, commit = Cycle.send, Cycle.commit
    waiting: dict[int, Any] = {}

    def keep(self: Cycle, batch: Batch, stepped: Any) -> None:
        if self._settings.guarantee == "exactly-once":  # noqa: SLF001
            send(self, batch, stepped)
        else:
            waiting[id(batch)] = stepped

    def commit_and_send(self: Cycle, batch: Batch) -> None:
        commit(self, batch)
        if id(batch) in waiting:
            send(self, batch, waiting.pop(id(batch)))

    patch.setattr(Cycle, "send", keep)
    patch.setattr(Cycle, "commit", commit_and_send)


#: All by their names.
ABLATIONS: dict[str, Ablation] = {
    "no-generation-fence": Ablation(
        "a worker that has missed a rebalance can commit", _no_generation_fence, 14
    ),
    "no-replay": Ablation("missing states are not replayed", _no_replay, 1),
    "no-compare-and-set": Ablation(
        "a save is written without comparing `applied`", _no_compare_and_set, 107
    ),
    "save-before-commit": Ablation("states are saved before their commit", _save_before_commit, 2),
    "slot-given-away-unsaved": Ablation(
        "a slot is reused before its state is saved", _slot_given_away_unsaved, 22
    ),
    "offset-plus-one": Ablation("offsets are assumed to have no gaps", _offset_plus_one, 16),
    "feedback-not-saved": Ablation("the fed-back outputs are not saved", _feedback_not_saved),
    "no-rewind": Ablation("after an abort, the next batch follows without a rewind", _no_rewind),
    "slots-kept": Ablation("the slots of a revoked partition are kept", _slots_kept, 4),
    "no-chunk-chain": Ablation(
        "a chunk of a save is written without the previous one", _no_chunk_chain, 886
    ),
    "applied-first": Ablation("`applied` moves in the first chunk of a save", _applied_first, 4),
    "no-replay-skip": Ablation(
        "a replay steps events that a state has already seen", _no_replay_skip, 549
    ),
    "commit-read-first": Ablation("the commit is read before the store", _commit_read_first, 6),
    "no-transaction": Ablation("predictions are sent outside the transaction", _no_transaction, 3),
    "no-producer-fence": Ablation(
        "old producers and old generations are not refused", _no_producer_fence, 3
    ),
    "taken-when-asked": Ablation(
        "a member learns nothing of the group while its listener is busy",
        _taken_when_asked,
        1440,
    ),
    "clock-not-saved": Ablation("the clock of a partition is not saved", _clock_not_saved, 1),
    "no-checksum": Ablation("a state in Redis is loaded unchecked", _no_checksum, 1033, edition=2),
    "topic-by-name": Ablation(
        "an input topic is identified by its name", _topic_by_name, 3, edition=2
    ),
    "model-not-asked": Ablation(
        "every commit is assumed to be this model's", _model_not_asked, 28, edition=2
    ),
    "commit-before-send": Ablation(
        "at least once, a batch is committed before it is sent", _commit_before_send, 328, edition=2
    ),
}


@contextlib.contextmanager
def ablated(name: str | None) -> Iterator[None]:
    """Take a piece away for a while; None takes nothing."""
    with Patch.context() as patch:
        if name is not None:
            ABLATIONS[name].take_away(patch)
        yield
