"""Threads of which one runs at a time, and time that is counted in ticks.

The engine waits in the middle of its verbs: for a save, for the queue, after an abort.  So each of
its threads is a real one; but it runs only while it holds the baton, and the simulation says who
gets it.  What the engine takes from `threading`, `queue` and `time` is replaced by what stands
here, so that its waiting hands the baton back, and a run depends on nothing but its plan.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

#: Seconds of one tick, for whatever waits in seconds.
TICK_S = 0.25


class Ended(BaseException):
    """Raised in the threads of a process that is no more; nothing in the engine may catch it."""


class Task:
    """One thread of a process.

    Args:
        scheduler: Who hands the baton on.
        process: Whose thread it is; its `is_over` ends it, its `asleep_until` holds it.
        name: For the story.
        run: What it does.

    Attributes:
        error: What it ended with.
        is_done: Whether it has ended.
        asleep_until: Tick before which it is not to run.
        verb: The verb that it is in.
    """

    def __init__(
        self, scheduler: Scheduler, process: Any, name: str, run: Callable[[], None]
    ) -> None:
        self.process = process
        self.name = name
        self.error: BaseException | None = None
        self.is_done = False
        self.asleep_until = 0
        self.verb = "save" if name == "saver" else "poll"
        self._scheduler = scheduler
        self._run = run
        self._is_ready: Callable[[], bool] | None = None
        self._deadline = 0.0
        self._go = threading.Lock()
        self._go.acquire()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    @property
    def is_runnable(self) -> bool:
        """Whether it would do something with the baton."""
        now = self._scheduler.now
        if self.is_done or max(self.asleep_until, self.process.asleep_until) > now:
            return False
        return self._is_ready is None or now >= self._deadline or self._is_ready()

    def resume(self) -> None:
        """Hand it the baton, and take it back."""
        self._scheduler.current = self
        self._go.release()
        self._scheduler.back.acquire()
        self._scheduler.current = None
        if self.is_done:
            self._thread.join()

    def pause(self, is_ready: Callable[[], bool] | None = None, timeout_s: float = 1e9) -> None:
        """Hand the baton back; called in the thread itself.

        Args:
            is_ready: What it waits for.
            timeout_s: How long at most.

        Raises:
            Ended: If its process is no more.
        """
        self._is_ready = is_ready
        self._deadline = self._scheduler.now + max(1.0, timeout_s / TICK_S)
        self._scheduler.back.release()
        self._go.acquire()
        self._is_ready = None
        if self.process.is_over:
            raise Ended

    def _main(self) -> None:
        self._go.acquire()
        try:
            if not self.process.is_over:
                self._run()
        except BaseException as error:  # handed to the simulation, which judges it
            self.error = error
        finally:
            self.is_done = True
            self._scheduler.back.release()


class Scheduler:
    """Keeps the time and the tasks.

    Attributes:
        now: The tick.
        tasks: All that have not ended.
        current: Who has the baton.
        back: Released when the baton comes back.
    """

    def __init__(self) -> None:
        self.now = 0
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self.back = threading.Lock()
        self.back.acquire()

    @property
    def running(self) -> Task:
        """The task that has the baton."""
        assert self.current is not None
        return self.current

    def spawn(self, process: Any, name: str, run: Callable[[], None]) -> Task:
        """Begin a thread of a process."""
        task = Task(self, process, name, run)
        self.tasks.append(task)
        return task

    def bury(self) -> list[Task]:
        """Let the threads of processes that are over end; give all that have ended."""
        for task in self.tasks:
            while task.process.is_over and not task.is_done:
                task.resume()
        ended = [task for task in self.tasks if task.is_done]
        self.tasks = [task for task in self.tasks if not task.is_done]
        return ended


class Threading:
    """What `pipeline.engine.saver` takes from `threading`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def Thread(self, target: Callable[[], None], **_: Any) -> _Thread:  # noqa: N802
        """See `threading.Thread`."""
        return _Thread(self._scheduler, target)

    def Condition(self) -> _Condition:  # noqa: N802
        """See `threading.Condition`."""
        return _Condition(self._scheduler)


class _Thread:
    def __init__(self, scheduler: Scheduler, target: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._target = target
        self._task: Task | None = None

    def start(self) -> None:
        process = self._scheduler.running.process
        self._task = self._scheduler.spawn(process, "saver", self._target)

    def join(self, _: float) -> None:
        task = self._task
        assert task is not None
        while not task.is_done:
            self._scheduler.running.pause(lambda: task.is_done)

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.is_done


class _Condition:
    """Without a lock: who has the baton has it alone."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._notified = 0

    def __enter__(self) -> _Condition:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float) -> None:
        before = self._notified
        self._scheduler.running.pause(lambda: self._notified != before, timeout)

    def notify_all(self) -> None:
        self._notified += 1


class Queues:
    """What `pipeline.engine.saver` takes from `queue`."""

    Empty = queue.Empty
    Full = queue.Full

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def Queue(self, maxsize: int) -> _Queue:  # noqa: N802
        """See `queue.Queue`."""
        made = _Queue(self._scheduler, maxsize)
        self._scheduler.running.process.queue = made
        return made


class _Queue:
    def __init__(self, scheduler: Scheduler, maxsize: int) -> None:
        self._scheduler = scheduler
        self.maxsize = maxsize
        self.items: deque[Any] = deque()

    @property
    def is_full(self) -> bool:
        return 0 < self.maxsize <= len(self.items)

    def put(self, item: Any, timeout: float = 1e9) -> None:
        if self.is_full:
            self._scheduler.running.pause(lambda: not self.is_full, timeout)
        if self.is_full:
            raise queue.Full
        self.items.append(item)

    def get(self) -> Any:
        while not self.items:
            self._scheduler.running.pause(lambda: bool(self.items))
        return self.items.popleft()

    def get_nowait(self) -> Any:
        if not self.items:
            raise queue.Empty
        return self.items.popleft()


class Clock:
    """What the engine takes from `time` where it waits."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def monotonic(self) -> float:
        """See `time.monotonic`."""
        return self._scheduler.now * TICK_S

    def sleep(self, seconds: float) -> None:
        """See `time.sleep`."""
        self._scheduler.running.pause(lambda: False, seconds)
