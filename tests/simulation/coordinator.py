"""What happens around the workers: the group, the broker's clock, restarts, an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from livestep.pipeline.errors import (
    BrokerError,
    EngineError,
    FencedError,
    HistoryMissingError,
    OtherModelError,
    PartitionsChangedError,
    StoreError,
    TopicReplacedError,
)
from tests.simulation.plan import Rebalance, Takeover, TopicChange
from tests.simulation.process import Process
from tests.support.world import INPUT

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation


class Coordinator:
    """Starts processes, deals out partitions, and changes what the plan says.

    Args:
        simulation: What it is part of.

    Attributes:
        processes: All that there ever were.
        is_leaving: Whether the run comes to its end.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._plan = simulation.plan
        self._broker = simulation.broker
        self._rebalances = list(self._plan.rebalances)
        self._newest: dict[int, Process] = {}
        self._holders: dict[int, Process] = {}
        self._fenced: set[Process] = set()
        self.processes: list[Process] = []
        self.is_leaving = False

    @property
    def is_taking_over(self) -> bool:
        """Whether who starts now has the next model."""
        takeover = self._plan.takeover
        return takeover is not None and self._simulation.scheduler.now >= takeover.tick

    @property
    def has_refused(self) -> bool:
        """Whether all have left that had partitions, because keys may have moved to others."""
        has_left = any(isinstance(one.left, PartitionsChangedError) for one in self.processes)
        return has_left and not any(one.partitions for one in self.processes if not one.is_over)

    def is_newest(self, process: Process) -> bool:
        """Whether no other process has been started under its name."""
        return process is self._newest[process.worker]

    def note_joined(self, process: Process) -> None:
        """Note that a process has joined: it has its worker's transactional id now."""
        if process.worker in self._holders:
            self._fenced.add(self._holders[process.worker])
        self._holders[process.worker] = process

    def start(self, worker: int) -> None:
        """Start a worker, or another process under its name."""
        sizes, life = self._plan.sizes[worker], 0
        if worker in self._newest:
            life = self._newest[worker].life + 1
        process = Process(self._simulation, worker, life, sizes[life % len(sizes)])
        self.processes.append(process)
        self._newest[worker] = process
        what = f"starts: batch {process.sizes.batch_events_max}, pool {process.sizes.pool_slots}"
        if self.is_taking_over:
            what += ", the next model"
        self._simulation.say(what, process.name)

    def is_excused(self, process: Process, error: EngineError) -> bool:
        """Whether a worker may leave with an error: one that a fault or a change has made."""
        struck = {kind for kind, _, _ in self._simulation.faults.hits}
        excuses = {
            FencedError: process in self._fenced,
            BrokerError: "unknown" in struck,
            StoreError: "refused" in struck,
            HistoryMissingError: bool(self._plan.trim_tick),
            OtherModelError: self.is_taking_over and not process.is_next_model,
            PartitionsChangedError: self._plan.is_refused_in_the_end and "added" in struck,
            TopicReplacedError: "recreated" in struck,
        }
        return excuses.get(type(error), False)

    def look_after_members(self) -> None:
        """Be the group's coordinator, the broker's clock, and what starts workers again."""
        now, plan = self._simulation.scheduler.now, self._plan
        for process in list(self._newest.values()):
            away = plan.restart_ticks[process.life % len(plan.restart_ticks)]
            is_gone = process.is_over and now >= process.died_at + away
            if is_gone and not self.is_leaving:
                self.start(process.worker)
        for process in self.processes:
            silent = process.silent_ticks(now)
            is_member = process.log in self._broker.group.members
            if silent > plan.session_ticks and is_member:
                self._simulation.say(f"the group continues without {process.name}")
                self.deal([log for log in self.members() if log is not process.log])
            elif silent > plan.transaction_ticks and process.log.is_open:
                self.time_out(process)
            elif not silent and not is_member and self._would_join(process):
                self._simulation.say(f"{process.name} joins again")
                self.deal([*self.members(), process.log])

    def _would_join(self, process: Process) -> bool:
        is_here = process.has_joined and not process.is_leaving
        is_free = self.is_newest(process) and not process.partitions
        return is_here and is_free and self._simulation.rng.random() < 0.2

    def time_out(self, process: Process) -> None:
        """Let the broker give a transaction up, if no other process has its id by now."""
        process.log.is_open = False
        if self._holders.get(process.worker) is process:
            self._simulation.say(f"the broker's time for {process.name} is out")
            self._fenced.add(process)
            self._broker.fence(process.log.worker_id)

    def members(self) -> list[Any]:
        """Return the group's members."""
        return list(self._broker.group.members)

    def deal(self, members: list[Any]) -> None:
        """Begin a generation in which the partitions are dealt out evenly."""
        self._simulation.rng.shuffle(members)
        self._broker.group.rebalance_evenly(members, self._broker.partition_counts[INPUT])
        self._say_group()

    def move(self) -> None:
        """Let partitions move, the log forget what nobody needs, and models and topics change."""
        now, plan = self._simulation.scheduler.now, self._plan
        while self._rebalances and self._rebalances[0].tick <= now:
            self._rebalance(self._rebalances.pop(0))
        if now == plan.trim_tick:
            for partition, before in self._simulation.checkers.not_needed().items():
                what = f"the log of partition {partition} begins at {before} from now on"
                self._simulation.say(what)
                self._broker.delete_records(INPUT, partition, before)
        if plan.takeover is not None and now >= plan.takeover.tick:
            self._take_over(plan.takeover, now)
        if plan.topic_change is not None and now >= plan.topic_change.tick:
            self._change_topic(plan.topic_change)

    def _rebalance(self, one: Rebalance) -> None:
        members = set(self.members())
        shares: dict[Any, list[int]] = {
            process.log: []
            for process in self._newest.values()
            if process.log in members and process.worker != one.left_out
        }
        for partition in range(self._broker.partition_counts[INPUT]):
            worker = one.owners[partition % len(one.owners)]
            if worker in self._newest and self._newest[worker].log in shares:
                shares[self._newest[worker].log].append(partition)
        if shares:
            self._broker.group.rebalance(shares)
            self._say_group()

    def _take_over(self, takeover: Takeover, now: int) -> None:
        """Let the workers of the old model leave, one after another."""
        self._simulation.faults.hits[f"takeover-{takeover.on_new_model}", "", ""] |= 1
        for worker, process in self._newest.items():
            is_due = now >= takeover.tick + worker * takeover.gap_ticks
            if is_due and not process.is_next_model:
                process.is_told_to_leave = True

    def _change_topic(self, change: TopicChange) -> None:
        """Give the input topic more partitions, or delete it and create another of its name."""
        simulation, era = self._simulation, self._simulation.checkers.era
        hits = simulation.faults.hits
        if hits["recreated", "", ""] or hits["added", "", ""]:
            return
        if not change.added:
            hits["recreated", "", ""] += 1
            simulation.say("the input topic is deleted and created again")
            self._broker.recreate(INPUT, is_group_told=change.is_group_told)
            simulation.checkers.begin_era()
        elif not self._plan.is_refused_in_the_end or len(era.committed) == self._plan.partitions:
            # Where nothing is committed yet, there are no states from which a key could move.
            hits["added", "", ""] += 1
            count = self._plan.partitions + change.added
            simulation.say(f"the input topic has {count} partitions from now on")
            self._broker.add_partitions(INPUT, count)
            era.is_frozen = self._plan.is_refused_in_the_end

    def _say_group(self) -> None:
        group = self._broker.group
        shares = [
            f"{process.name} {sorted(group.target(process.log))}"
            for process in self.processes
            if process.log in group.members
        ]
        self._simulation.say(f"generation {group.generation}: {', '.join(shares)}")
