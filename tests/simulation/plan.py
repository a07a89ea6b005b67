"""What happens in a run: drawn from a seed, and plain data, so that shrinking can take from it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from livestep import LoadedModel
from livestep.models.sequences.rules import GAP_ENDS_MAX, Shape
from tests.simulation.simulated_faults import Fault, draw_fault
from tests.support.shaped import (
    SHAPES,
    ShapedEvents,
    ShapedRecord,
    shaped_model,
    with_other_weights,
)

#: A publisher writes by itself, or in a transaction that is committed, or aborted.
PLAIN, COMMITTED, ABORTED = "plain", "committed", "aborted"


#: Keys of a crowded plan: some more than it has slots.
_CROWD = 12


@dataclass(frozen=True, slots=True)
class Sizes:
    """How a worker is set up; it comes back from each crash with the next of its sizes.

    Attributes:
        batch_events_max: As the setting.
        pool_slots: As the setting.
        save_queue_batches_max: As the setting; 0 saves at once.
        is_ragged: Whether its polls give fewer records than there are.
        save_share: How readily its saves are done: 1 as soon as anything else.
    """

    batch_events_max: int
    pool_slots: int
    save_queue_batches_max: int
    is_ragged: bool
    save_share: float


@dataclass(frozen=True, slots=True)
class Published:
    """An event.

    Attributes:
        tick: When it is published.
        record: What.
        mode: How: `PLAIN`, `COMMITTED` or `ABORTED`.
        open_ticks: How long its transaction stays open.
    """

    tick: int
    record: ShapedRecord
    mode: str
    open_ticks: int


@dataclass(frozen=True, slots=True)
class Rebalance:
    """Partitions that move.

    Attributes:
        tick: When.
        owners: Of each partition, the worker's number, or -1 for one that no worker gets.
        left_out: A worker that the group has lost, if it is one of them; it joins again.
    """

    tick: int
    owners: tuple[int, ...]
    left_out: int


@dataclass(frozen=True, slots=True)
class Takeover:
    """Workers with another model take over, one after another.

    Attributes:
        tick: From when on all that start have the other model, and the first worker has to leave.
        gap_ticks: Between two workers.
        on_new_model: As the setting of those that start.
    """

    tick: int
    gap_ticks: int
    on_new_model: str


@dataclass(frozen=True, slots=True)
class TopicChange:
    """The input topic becomes another one.

    Attributes:
        tick: When.
        added: Partitions that it gets; 0 if it is deleted and created again.
        is_group_told: Whether the group forgets at once what it has committed to a deleted topic.
    """

    tick: int
    added: int
    is_group_told: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run depends on.

    Attributes:
        seed: Where it was drawn from; draws the model and the order of what runs.
        shape: Of the model.
        partitions: Of all topics.
        sizes: Of each worker, one after another.
        save_keys_max: States of one write.
        switch_share: How often a worker is interrupted at a point where it could be.
        session_ticks: How long the group waits for a member that is silent.
        transaction_ticks: How long the broker waits for a transaction.
        restart_ticks: How long a dead worker stays away.
        trim_tick: When the log forgets what nobody needs; 0 for never.
        events: In the order in which they are published.
        rebalances: In their order.
        faults: In any order.
        guarantee: As the setting.
        takeover: By another model, if there is one.
        topic_change: Of the input topic, if there is one.
    """

    seed: int
    shape: Shape
    partitions: int
    sizes: tuple[tuple[Sizes, ...], ...]
    save_keys_max: int
    switch_share: float
    session_ticks: int
    transaction_ticks: int
    restart_ticks: tuple[int, ...]
    trim_tick: int
    events: tuple[Published, ...]
    rebalances: tuple[Rebalance, ...]
    faults: tuple[Fault, ...]
    guarantee: Literal["exactly-once", "at-least-once"] = "exactly-once"
    takeover: Takeover | None = None
    topic_change: TopicChange | None = None

    @property
    def last_tick(self) -> int:
        """When the last thing of the plan happens that has a time."""
        ends = [event.tick + event.open_ticks for event in self.events]
        if self.takeover is not None:
            ends.append(self.takeover.tick + len(self.sizes) * self.takeover.gap_ticks)
        if self.topic_change is not None:
            ends.append(self.topic_change.tick)
        return max([*ends, *[one.tick for one in self.rebalances], self.trim_tick, 1])

    @property
    def is_refused_in_the_end(self) -> bool:
        """Whether workers have to refuse: keys may have moved away from their states."""
        is_added = self.topic_change is not None and self.topic_change.added > 0
        return is_added and not self.model().rules.is_stateless

    def model(self) -> LoadedModel:
        """Make the model that the seed says."""
        return shaped_model(random.Random(f"{self.seed}/model"), self.shape)

    def next_model(self) -> LoadedModel:
        """Make the model that takes over: other weights."""
        return with_other_weights(self.model(), self.seed)


def draw_first_edition(seed: int) -> Plan:
    """Draw a plan of the first edition; see `editions.py`."""
    rng = random.Random(f"{seed}/plan")
    # Of the shapes with states there are more: they are what a fault can hurt.
    shape = rng.choice([*SHAPES, *(s for s in SHAPES if s not in ("one-to-one", "one-to-many"))])
    model = shaped_model(random.Random(f"{seed}/model"), shape)
    workers, partitions = rng.choice([2, 2, 3]), rng.choice([1, 1, 2, 3])
    slots_min = 10 if model.rules.session_gap_ms is None else 2 * (1 + GAP_ENDS_MAX)
    faults = tuple(draw_fault(rng, workers) for _ in range(rng.choice([0, 1, 2, 3, 4, 6, 9])))
    # Saves of many small writes, and something that strikes between two of them.
    chunks = random.Random(f"{seed}/chunks")
    is_chunked = chunks.random() < 0.12
    if is_chunked:
        faults += (_draw_fault_in_save(chunks, workers),)
    # Half of the others get many more: most of the calls that a fault waits for never come.
    more = random.Random(f"{seed}/more")
    if not is_chunked and more.random() < 0.5:
        faults += tuple(draw_fault(more, workers) for _ in range(more.randint(4, 16)))
    # Many keys, few slots, and saves that lag behind.
    is_crowded = rng.random() < 0.15
    partitions = 1 if is_crowded else partitions
    events = _draw_events(rng, model, is_crowded=is_crowded)
    span = events[-1].tick
    losses = {"flushed", "failover", "evicted"}
    is_trimmed = rng.random() < 0.3 and losses.isdisjoint(fault.kind for fault in faults)
    return Plan(
        seed=seed,
        shape=shape,
        partitions=partitions,
        sizes=tuple(
            tuple(_draw_sizes(rng, slots_min, is_crowded=is_crowded) for _ in range(3))
            for _ in range(workers)
        ),
        save_keys_max=min(rng.choice([1, 1, 2, 3, 1_000]), 1 if is_chunked else 1_000),
        switch_share=rng.choice([0.0, 0.02, 0.1, 0.3]),
        session_ticks=rng.choice([8, 20, 40]),
        transaction_ticks=rng.choice([10, 30, 90]),
        restart_ticks=tuple(rng.choice([1, 5, 30, 60]) for _ in range(4)),
        trim_tick=rng.randint(1, max(span, 1)) if is_trimmed else 0,
        events=events,
        rebalances=tuple(
            _draw_rebalance(rng, tick, workers, partitions)
            for tick in sorted(rng.randrange(span + 1) for _ in range(rng.choice([0, 0, 1, 3])))
        ),
        faults=faults,
    )


def _draw_fault_in_save(rng: random.Random, workers: int) -> Fault:
    return Fault(
        kind=rng.choice(["crash", "failover"]),
        worker=rng.randrange(workers),
        verb="save",
        phase="within",
        call=rng.randrange(4),
        point=rng.randint(3, 8),
        length=rng.choice([1, 1, 2, 3]),
    )


def _draw_sizes(rng: random.Random, slots_min: int, *, is_crowded: bool) -> Sizes:
    if is_crowded:
        return Sizes(5, slots_min, 4, is_ragged=False, save_share=0.02)
    batch = rng.choice([1, 2, 4, 5, 8])
    return Sizes(
        batch_events_max=batch,
        pool_slots=max(2 * batch, slots_min) + rng.choice([0, 0, 20]),
        save_queue_batches_max=rng.choice([0, 1, 2, 4]),
        is_ragged=rng.random() < 0.4,
        save_share=rng.choice([0.02, 0.1, 0.3, 1.0]),
    )


def _draw_events(
    rng: random.Random, model: LoadedModel, *, is_crowded: bool
) -> tuple[Published, ...]:
    """Draw many keys, then a few of them, then many again: some come back after long."""
    records: list[ShapedRecord] = []
    many, now_ms = 24 if is_crowded else rng.choice([3, 8, 16, 30]), 1_000
    for keys, count in (
        (many, 24 if is_crowded else rng.randint(4, 24)),
        (rng.choice([1, 2]), 0 if is_crowded else rng.randint(0, 20)),
        (many, 16 if is_crowded else rng.randint(4, 20)),
    ):
        drawn = ShapedEvents(model, rng, keys=keys, begin_ms=now_ms, is_fragile=rng.random() < 0.3)
        records += drawn.take(count)
        now_ms = records[-1].timestamp_ms + (0 if is_crowded else rng.choice([0, 0, 150, 5_000]))
    pace = 0.1 if is_crowded else rng.choice([0.3, 1.0, 3.0])
    if is_crowded:
        # Each of them comes back as soon as its slot may have gone to another.
        records = [
            record._replace(key=b"key-%d" % (number % _CROWD))
            for number, record in enumerate(records)
        ]
    tick, events = 0.0, []
    is_gapped = rng.random() < 0.4
    for record in records:
        tick += rng.expovariate(1 / pace) if rng.random() < 0.5 else 0
        mode, open_ticks = PLAIN, 0
        if is_gapped:
            mode = rng.choice([PLAIN, PLAIN, COMMITTED, ABORTED])
            open_ticks = rng.choice([0, 0, 0, 10]) if mode != PLAIN else 0
        events.append(Published(int(tick), record, mode, open_ticks))
    return tuple(events)


def _draw_rebalance(rng: random.Random, tick: int, workers: int, partitions: int) -> Rebalance:
    left_out = rng.randrange(workers) if rng.random() < 0.3 else -1
    owners = tuple(rng.randrange(workers) for _ in range(partitions))
    return Rebalance(tick, owners, left_out)
