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

from livestep import memory_broker
from tests.simulation.baton import Ended, Scheduler, Task
from tests.simulation.check_error import CheckError
from tests.simulation.checkers import Checkers
from tests.simulation.coordinator import Coordinator
from tests.simulation.plan import Plan
from tests.simulation.process import Process
from tests.simulation.simulated_faults import GAPS, Fault, Faults, Phase, Place
from tests.simulation.simulated_publisher import Publisher
from tests.simulation.simulated_services import SimulatedStore
from tests.simulation.verbs import in_place_of_the_real_ones

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
    """What happened in the run of a plan.

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
        self.rng = random.Random(f"{plan.seed}/order")
        self.scheduler = Scheduler()
        self.broker = memory_broker(plan.partitions)
        self.faults = Faults(plan.faults)
        self.checkers = Checkers(plan, self.broker, self._make_store)
        self.story: list[StoryLine] = []
        self.coordinator = Coordinator(self)
        self._publisher = Publisher(plan, self.broker, self.checkers.take_event)
        self._is_calm = False
        if plan.guarantee == "at-least-once":
            self.faults.hits["at-least-once", "", ""] += 1

    def _make_store(self) -> SimulatedStore:
        return SimulatedStore(self.plan.save_keys_max, self.meet, self.tell)

    # What the processes call.

    def tell(self, text: str) -> None:
        """Return what the process that runs has done."""
        self.story.append((self.scheduler.now, self.scheduler.running.process.name, text))

    def tell_poll(self, work: Any) -> None:
        """Return what a poll gave."""
        if work is None:
            return
        offsets: dict[int, list[int]] = {}
        for record in work.records:
            offsets.setdefault(record.partition, []).append(record.offset)
        if any(last - found[0] >= len(found) for found in offsets.values() for last in found[-1:]):
            self.faults.hits[GAPS, "poll", "within"] += 1
        texts = [f"{p}: {' '.join(map(str, found))}" for p, found in offsets.items()]
        self.tell(f"poll    {'replay ' if work.is_replay else ''}{'; '.join(texts)}")

    def say(self, text: str, name: str = "") -> None:
        """Return what happens around the processes, or to one of them."""
        self.story.append((self.scheduler.now, name, text))

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
                self.coordinator.deal(self.coordinator.members())
            case "fenced":
                self.coordinator.start(process.worker)
            case "restart":
                process.is_told_to_leave = True
            case "flushed":
                for store in self.checkers.stores:
                    store.lose_all()
            case "failover":
                for store in self.checkers.stores:
                    store.fail_over(fault.length)
            case "evicted":
                for store in self.checkers.stores:
                    store.evict(fault.point % self.plan.partitions)
            case "changed":
                self._change_bytes(fault)
            case "aborted":
                process.log.is_to_abort = True
            case "timed-out":
                self.coordinator.time_out(process)

    def _change_bytes(self, fault: Fault) -> None:
        """Change something of a partition in Redis, once its beginning is committed."""
        partition = fault.point % self.plan.partitions
        side = self.checkers.era.side_of(partition)
        if side is not None:
            rng = random.Random(f"{self.plan.seed}/changed/{fault.call}/{fault.length}")
            self.tell(f"        {side.store.change_some(partition, rng, side.model)}")

    # What happens around them.

    def run(self) -> None:
        """Run to the end.

        Raises:
            CheckError: If a checker has found something.
        """
        try:
            for worker in range(len(self.plan.sizes)):
                self.coordinator.start(worker)
            while self.scheduler.now < self.plan.last_tick + _FAULTS_TICKS:
                self._tick()
            self._calm_down()
            calm_ticks = _CALM_TICKS + _EVENT_TICKS * self.checkers.count_left()
            deadline = self.scheduler.now + calm_ticks
            while not self._is_done():
                if self.scheduler.now > deadline:
                    raise CheckError("progress", self.checkers.what_is_left() or "none has refused")
                self._tick()
            self.coordinator.is_leaving = True
            deadline = self.scheduler.now + _LEAVING_TICKS
            for process in self.coordinator.processes:
                process.is_told_to_leave = True
            while not all(process.is_over for process in self.coordinator.processes):
                if self.scheduler.now > deadline:
                    raise CheckError("progress", "a worker that was told to leave does not")
                self._tick()
            # Readers of committed records wait for what the dead have left open.
            for process in self.coordinator.processes:
                if process.log.is_open:
                    self.coordinator.time_out(process)
            self.checkers.look(self.coordinator.processes)
            self.checkers.check_end()
        finally:
            for process in self.coordinator.processes:
                process.is_over = True
            self.scheduler.bury()

    def _is_done(self) -> bool:
        if self.checkers.era.is_frozen:
            return self.coordinator.has_refused
        return self.checkers.is_all_done()

    def _calm_down(self) -> None:
        """Let the faults stop."""
        self._is_calm = True
        self.faults.stop()
        self._publisher.publish_last(self.scheduler.now)
        latest = self.scheduler.now + _WAKING_TICKS
        for process in self.coordinator.processes:
            process.log.silent_polls = 0
            process.asleep_until = min(process.asleep_until, latest)
            if not self.coordinator.is_newest(process):
                process.is_told_to_leave = True
        for task in self.scheduler.tasks:
            task.asleep_until = min(task.asleep_until, latest)

    def _tick(self) -> None:
        self.scheduler.now += 1
        self._publisher.publish(self.scheduler.now)
        self.coordinator.move()
        self.coordinator.look_after_members()
        tasks = [task for task in self.scheduler.tasks if self._is_next(task)]
        if tasks:
            self.rng.choice(tasks).resume()
        for task in self.scheduler.bury():
            self._judge(task)
        self.checkers.look(self.coordinator.processes)

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
        left = process.left
        if left is not None and not self.coordinator.is_excused(process, left):
            raise CheckError("error", f"{process.name} left: {left!r}") from left


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
