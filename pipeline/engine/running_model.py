"""A model at run time: all that one model of a worker needs, and keeps, while it predicts.

Several can run next to each other: they share nothing, unless they are given the same store.
"""

from __future__ import annotations

from livestep.models.devices import device_of
from livestep.models.loaded_model import LoadedModel
from livestep.models.sequences.rules import GAP_ENDS_MAX, SequenceRules
from livestep.pipeline.batch.codec import codec_for
from livestep.pipeline.batch.sessions import Sessions
from livestep.pipeline.batch.stepping import Stepper
from livestep.pipeline.engine.saver import Saver
from livestep.pipeline.errors import ConfigError
from livestep.pipeline.process.deadline import Deadline
from livestep.pipeline.settings import Settings
from livestep.pipeline.state.open_sequences import read_open_sequences
from livestep.pipeline.state.pool import Pool
from livestep.pipeline.state.state_records import StateRecords
from livestep.pipeline.state.store import Store
from livestep.pipeline.types import Offset

#: Records that a batch may generate: a transaction of this size is some tens of megabytes, and
#: takes seconds.  A shape that generates polls fewer events at a time for it.
GENERATED_RECORDS_MAX = 100_000

#: Keys and bytes of one save with a session gap, which is one command: Redis takes a million
#: arguments, and serves no other client meanwhile, some tenths of a second at these bounds.
GAP_SAVE_KEYS_MAX, GAP_SAVE_BYTES_MAX = 50_000, 64 << 20


class RunningModel:
    """A loaded model with its wire format, its stepper, and the states of its keys.

    Args:
        model: The model, on its device.
        store: Where its states are saved.
        settings: Limits, and whose the states are: topic and group.
        deadline: Of a stop.
        is_saving_behind: Save in a separate thread; else at the end of each cycle.

    Attributes:
        loaded: The model.
        fingerprint: Names the model in headers, commits and the store.
        rules: Its shape, and what follows from that.
        codec: Its wire format.
        stepper: Steps it.
        layout: What a state of one of its keys looks like.
        pool: Slots on the device; none for a model that keeps nothing.
        store: Where its states are saved.
        saver: Saves behind the cycle.
        records: How states are written for the store.
        sessions: Finds what a session gap ends; None without one.
        replay_events_max: Events of one read in a replay, which generates nothing.
        poll_events_max: Events of one poll.

    Raises:
        ConfigError: If the pool is too small for the model.
    """

    def __init__(
        self,
        model: LoadedModel,
        store: Store,
        settings: Settings,
        deadline: Deadline,
        *,
        is_saving_behind: bool = True,
    ) -> None:
        _check_pool(settings, model.rules)
        self.loaded = model
        self.fingerprint = model.fingerprint
        self.rules = model.rules
        self.codec = codec_for(model)
        model.net.eval()
        self.stepper = Stepper(model, device_of(model.net), settings.rounding)
        self.layout = self.stepper.layout
        self.pool = Pool(self.layout, 0 if self.rules.is_stateless else settings.pool_slots)
        self.store = store
        self.saver = Saver(
            store, settings.save_queue_batches_max if is_saving_behind else 0, deadline
        )
        self.records = StateRecords(
            self.layout, f"{settings.input_topic}/{settings.group}/{model.fingerprint}"
        )
        gap_ms = self.rules.session_gap_ms
        self.sessions = None if gap_ms is None else Sessions(gap_ms)
        self.replay_events_max = _replay_events_max(settings, self.rules, self.records.record_bytes)
        self.poll_events_max = _poll_events_max(self.replay_events_max, self.rules)

    def begin(self, partition: int, applied: Offset) -> int:
        """Follow a partition's states from `applied` on, which the store has reached.

        Returns:
            epoch: To be named in the partition's saves.

        Raises:
            SaveRefusedError: If another worker's save has come in between.
            DamagedStateError: If what the store holds of open sequences is not what was saved.
        """
        epoch = self.saver.begin(partition, applied)
        if self.sessions is not None:
            clock, times = read_open_sequences(self.store, self.records, partition, applied)
            self.sessions.begin(partition, clock, times)
        return epoch

    def forget(self, partition: int) -> None:
        """Drop what is in memory of a partition's states."""
        self.pool.forget(partition)
        if self.sessions is not None:
            self.sessions.forget(partition)


def _check_pool(settings: Settings, rules: SequenceRules) -> None:
    """Check that what one event may change fits into the pool, saved and unsaved."""
    slots_min = 2 * (1 + GAP_ENDS_MAX)
    if rules.session_gap_ms is not None and settings.pool_slots < slots_min:
        raise ConfigError(
            f"--pool-slots {settings.pool_slots} is too small for a model with a session gap: one "
            f"event may end {GAP_ENDS_MAX} sequences, and {slots_min} have to fit"
        )


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
