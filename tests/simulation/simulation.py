"""One run of a plan: who runs when, what strikes, what the group and the broker's clock do."""

from __future__ import annotations

import contextlib
import logging
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.errors import (
    BrokerError,
    EngineError,
    FencedError,
    HistoryMissingError,
    StoreError,
)
from pipeline.memory import memory_broker
from tests.simulation.baton import Ended, Scheduler, Task
from tests.simulation.checkers import CheckError, Checkers
from tests.simulation.faults import GAPS, Fault, Faults, Phase, Place
from tests.simulation.plan import Plan
from tests.simulation.process import Process
from tests.simulation.publisher import Publisher
from tests.simulation.services import SimulatedStore
from tests.simulation.verbs import in_place_of_the_real_ones
from tests.world import INPUT

#: Ticks after the last event in which faults may still strike.
_FAULTS_TICKS = 40

#: Ticks within which all has to be committed and saved once the faults have stopped, for each
#: event that is left beyond that, and within which all workers have to have left after that.
#: The batch of a small pool is one event, and a worker may be interrupted at a third of its calls.
_CALM_TICKS, _EVENT_TICKS, _LEAVING_TICKS = 1_000, 50, 400

#: What ends the longest sleep once the faults have stopped.
_WAKING_TICKS = 20

StoryLine = tuple[int, str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a plan.

    Attributes:
        failure: What a checker has found, or None.
        check: Name of that checker.
        story: Tick, who, what.
        hits: How often each fault has struck at each moment.
    """

    failure: str | None
    check: str
    story: list[StoryLine]
    hits: Counter[tuple[str, str, str]]


class Simulation:
    """A run; see `simulate`.

    Args:
        plan: What happens.

    Attributes:
        rng: Draws who runs next, and nothing else.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.model = plan.model()
        self.rng = random.Random(f"{plan.seed}/order")
        self.scheduler = Scheduler()
        self.broker = memory_broker(plan.partitions)
        self.store = SimulatedStore(plan.save_keys_max, self.meet, self.tell)
        self.checkers = Checkers(self.model, self.broker, self.store)
        self.faults = Faults(plan.faults)
        self.story: list[StoryLine] = []
        self.processes: list[Process] = []
        self._newest: dict[int, Process] = {}
        self._holders: dict[int, Process] = {}
        self._fenced: set[Process] = set()
        self._publisher = Publisher(plan, self.broker, self.checkers.take_event)
        self._rebalances = list(plan.rebalances)
        self._is_calm = self._is_leaving = False

    # What the processes call.

    def tell(self, text: str) -> None:
        """Tell what the process that runs has done."""
        self.story.append((self.scheduler.now, self.scheduler.running.process.name, text))

    def tell_poll(self, work: Any) -> None:
        """Tell what a poll gave."""
        if work is None:
            return
        offsets: dict[int, list[int]] = {}
        for record in work.records:
            offsets.setdefault(record.partition(), []).append(record.offset())
        if any(last - found[0] >= len(found) for found in offsets.values() for last in found[-1:]):
            self.faults.hits[GAPS, "poll", "within"] += 1
        texts = [f"{p}: {' '.join(map(str, found))}" for p, found in offsets.items()]
        self.tell(f"poll    {'replay ' if work.is_replay else ''}{'; '.join(texts)}")

    def note_joined(self, process: Process) -> None:
        """Note that a process has joined: it has its worker's transactional id now."""
        if process.worker in self._holders:
            self._fenced.add(self._holders[process.worker])
        self._holders[process.worker] = process

    @contextlib.contextmanager
    def verb(self, name: str) -> Iterator[None]:
        """Be in a verb."""
        task = self.scheduler.running
        outer, task.verb = task.verb, name
        self.faults.begin_call(task.process.worker, name)
        try:
            self._strike("before")
            yield
            self._strike("after")
        finally:
            task.verb = outer

    def meet(self, place: Place, when: str, what: str) -> list[Fault]:
        """Be at a point within a verb."""
        return self._strike("within", place, when)

    def _strike(self, phase: Phase, place: Place = "", when: str = "") -> list[Fault]:
        task = self.scheduler.running
        process: Process = task.process
        if process.is_over:
            raise Ended
        faults = self.faults.take(process.worker, task.verb, phase, place, when)
        for fault in faults:
            self.tell(f"FAULT   {fault.kind} {phase} {task.verb}")
            self._act(fault, task, process)
        if process.is_over:
            raise Ended
        is_held = max(task.asleep_until, process.asleep_until) > self.scheduler.now
        if is_held or self.rng.random() < self.plan.switch_share:
            task.pause()
        return faults

    def _act(self, fault: Fault, task: Task, process: Process) -> None:
        now = self.scheduler.now
        match fault.kind:
            case "crash":
                process.end(now)
            case "zombie":
                process.asleep_since, process.asleep_until = now, now + fault.length
            case "broker-late" | "redis-late":
                task.asleep_until = now + fault.length
            case "nothing-polled":
                process.log.silent_polls = fault.length
            case "rebalance":
                self._deal(self._members())
            case "fenced":
                self._start(process.worker)
            case "restart":
                process.is_told_to_leave = True
            case "flushed":
                self.store.lose_all()
            case "failover":
                self.store.fail_over(fault.length)
            case "evicted":
                self.store.evict(fault.point % self.plan.partitions)
            case "aborted":
                process.log.is_to_abort = True
            case "timed-out":
                self._time_out(process)

    # What goes on beside them.

    def run(self) -> None:
        """Run to the end.

        Raises:
            CheckError: If a checker has found something.
        """
        try:
            for worker in range(len(self.plan.sizes)):
                self._start(worker)
            while self.scheduler.now < self.plan.last_tick + _FAULTS_TICKS:
                self._tick()
            self._calm_down()
            calm_ticks = _CALM_TICKS + _EVENT_TICKS * self.checkers.count_left()
            deadline = self.scheduler.now + calm_ticks
            while not self.checkers.is_all_done():
                if self.scheduler.now > deadline:
                    raise CheckError("progress", self.checkers.what_is_left())
                self._tick()
            self._is_leaving = True
            deadline = self.scheduler.now + _LEAVING_TICKS
            for process in self.processes:
                process.is_told_to_leave = True
            while not all(process.is_over for process in self.processes):
                if self.scheduler.now > deadline:
                    raise CheckError("progress", "a worker that was told to leave does not")
                self._tick()
            # Readers of committed records wait for what the dead have left open.
            for process in self.processes:
                if process.log.is_open:
                    self._time_out(process)
            self.checkers.check_end()
        finally:
            for process in self.processes:
                process.is_over = True
            self.scheduler.bury()

    def _calm_down(self) -> None:
        """Let the faults stop."""
        self._is_calm = True
        self.faults.stop()
        self._publisher.publish_last(self.scheduler.now)
        latest = self.scheduler.now + _WAKING_TICKS
        for process in self.processes:
            process.log.silent_polls = 0
            process.asleep_until = min(process.asleep_until, latest)
            if process is not self._newest[process.worker]:
                process.is_told_to_leave = True
        for task in self.scheduler.tasks:
            task.asleep_until = min(task.asleep_until, latest)

    def _tick(self) -> None:
        self.scheduler.now += 1
        self._publisher.publish(self.scheduler.now)
        self._move()
        self._look_after_members()
        tasks = [task for task in self.scheduler.tasks if self._is_next(task)]
        if tasks:
            self.rng.choice(tasks).resume()
        for task in self.scheduler.bury():
            self._judge(task)
        self.checkers.look(self.processes)

    def _is_next(self, task: Task) -> bool:
        if not task.is_runnable:
            return False
        is_slow = task.name == "saver" and not self._is_calm
        return not is_slow or self.rng.random() < task.process.sizes.save_share

    def _judge(self, task: Task) -> None:
        """Look at how a task has ended."""
        process: Process = task.process
        if task.error is not None and not isinstance(task.error, Ended):
            raise CheckError("defect", f"{process.name}: {task.error!r}") from task.error
        if task.name == "saver" or process.is_over:
            return
        process.end(self.scheduler.now)
        if process.left is not None and not self._is_excused(process, process.left):
            raise CheckError("error", f"{process.name} left: {process.left!r}") from process.left

    def _is_excused(self, process: Process, error: EngineError) -> bool:
        """Whether a worker may leave with an error: one that a fault has made."""
        struck = {kind for kind, _, _ in self.faults.hits}
        excuses = {
            FencedError: process in self._fenced,
            BrokerError: "unknown" in struck,
            StoreError: "refused" in struck,
            HistoryMissingError: bool(self.plan.trim_tick),
        }
        return excuses.get(type(error), False)

    def _start(self, worker: int) -> None:
        """Start a worker, or another process under its name."""
        sizes, life = self.plan.sizes[worker], 0
        if worker in self._newest:
            life = self._newest[worker].life + 1
        process = Process(self, worker, life, sizes[life % len(sizes)])
        self.processes.append(process)
        self._newest[worker] = process
        what = f"starts: batch {process.sizes.batch_events_max}, pool {process.sizes.pool_slots}"
        self.story.append((self.scheduler.now, process.name, what))

    def _look_after_members(self) -> None:
        """Be the group's coordinator, the broker's clock, and what starts workers again."""
        now, plan = self.scheduler.now, self.plan
        for process in list(self._newest.values()):
            away = plan.restart_ticks[process.life % len(plan.restart_ticks)]
            is_gone = process.is_over and now >= process.died_at + away
            if is_gone and not self._is_leaving:
                self._start(process.worker)
        for process in self.processes:
            silent = process.silent_ticks(now)
            is_member = process.log in self.broker.group.members
            if silent > plan.session_ticks and is_member:
                self._say(f"the group goes on without {process.name}")
                self._deal([log for log in self._members() if log is not process.log])
            elif silent > plan.transaction_ticks and process.log.is_open:
                self._time_out(process)
            elif not silent and not is_member and self._would_join(process):
                self._say(f"{process.name} joins again")
                self._deal([*self._members(), process.log])

    def _would_join(self, process: Process) -> bool:
        is_here = process.has_joined and not process.is_leaving
        is_newest = process is self._newest[process.worker]
        return is_here and is_newest and not process.partitions and self.rng.random() < 0.2

    def _time_out(self, process: Process) -> None:
        """Let the broker give a transaction up, if no other process has its id by now."""
        process.log.is_open = False
        if self._holders.get(process.worker) is process:
            self._say(f"the broker's time for {process.name} is out")
            self._fenced.add(process)
            self.broker.fence(process.log.worker_id)

    def _members(self) -> list[Any]:
        return list(self.broker.group.members)

    def _deal(self, members: list[Any]) -> None:
        self.rng.shuffle(members)
        self.broker.group.rebalance_evenly(members, self.plan.partitions)
        self._say_group()

    def _move(self) -> None:
        """Let partitions move, and the log forget what nobody needs."""
        now = self.scheduler.now
        while self._rebalances and self._rebalances[0].tick <= now:
            one = self._rebalances.pop(0)
            members = set(self._members())
            shares: dict[Any, list[int]] = {
                process.log: []
                for process in self._newest.values()
                if process.log in members and process.worker != one.left_out
            }
            for partition, worker in enumerate(one.owners):
                if worker in self._newest and self._newest[worker].log in shares:
                    shares[self._newest[worker].log].append(partition)
            if shares:
                self.broker.group.rebalance(shares)
                self._say_group()
        if now == self.plan.trim_tick:
            for partition, before in self.checkers.not_needed().items():
                self._say(f"the log of partition {partition} begins at {before} from now on")
                self.broker.delete_records(INPUT, partition, before)

    def _say(self, text: str) -> None:
        self.story.append((self.scheduler.now, "", text))

    def _say_group(self) -> None:
        group = self.broker.group
        shares = [
            f"{process.name} {sorted(group.target(process.log))}"
            for process in self.processes
            if process.log in group.members
        ]
        self._say(f"generation {group.generation}: {', '.join(shares)}")


def simulate(plan: Plan, ablation: AbstractContextManager[Any] | None = None) -> Outcome:
    """Run a plan.

    Args:
        plan: What happens.
        ablation: Takes something away that the promise rests on.
    """
    logging.disable(logging.CRITICAL)
    try:
        with ablation or contextlib.nullcontext(), pytest.MonkeyPatch.context() as patch:
            simulation = Simulation(plan)
            in_place_of_the_real_ones(simulation, patch)
            failure, check = None, ""
            try:
                simulation.run()
            except CheckError as error:
                failure, check = str(error), error.check
                if error.__cause__ is not None:
                    failure += _where(error.__cause__)
            return Outcome(failure, check, simulation.story, simulation.faults.hits)
    finally:
        logging.disable(logging.NOTSET)


def _where(error: BaseException) -> str:
    """Say in which line an error was raised."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "" if at is None else f" ({at.tb_frame.f_code.co_filename}:{at.tb_lineno})"
