"""The Faust app around an engine: its agent runs the cycle, batch after batch.

Faust provides the app, the agent, the web server, and their supervision; reading, transactions and
rebalances are the engine's.  So nothing of Faust's own Kafka side is started: a service polls on
the engine's thread, and hands each batch to the agent through a channel, one at a time.  Faust
never learns of a partition, so what it keeps for each of them can't be wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import faust
import mode
import torch
from faust.app.base import BootStrategy
from faust.transport import base

from livestep.pipeline.engine.engine import Engine, Work
from livestep.pipeline.settings import Settings

#: Seconds that a poll waits for a first record; bounds the time to leave.
POLL_TIMEOUT_S = 0.1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Delivery:
    """Work on its way to the agent; the next poll waits until `done` is set."""

    work: Work
    done: asyncio.Future[None]


class EngineThread:
    """The one thread on which everything happens: polls, rebalances, cycles, leaving."""

    def __init__(self, engine: Engine, on_start: Callable[[], None]) -> None:
        self.engine = engine
        self._executor = ThreadPoolExecutor(1, "livestep-engine", initializer=on_start)

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function on the thread, after all calls before it."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, function, *arguments
        )

    def close(self) -> None:
        """Wait for what is running, and end."""
        self._executor.shutdown(wait=True)


class Poller(mode.Service):
    """Polls on the engine's thread and hands each batch to the agent, one at a time.

    Args:
        app: With its engine; the channel's agent has been started.
    """

    def __init__(self, app: EngineApp, **options: Any) -> None:
        super().__init__(**options)
        self.app = app

    @mode.Service.task
    async def _poll_forever(self) -> None:
        """Join the group; then poll, deliver, and wait until the agent is done."""
        app, thread = self.app, self.app.thread
        # Faust's queues are closed until its own consumer has partitions.
        app.flow_control.resume()
        try:
            await thread.call(thread.engine.join)
            while not self.should_stop:
                work = await thread.call(thread.engine.poll, POLL_TIMEOUT_S)
                if app.should_stop:  # before its services do, and the agent accepts no more
                    break
                if work is not None:
                    done = asyncio.get_running_loop().create_future()
                    await app.deliveries.put(Delivery(work, done))
                    await self.wait(done)
                elif thread.engine.is_at_end:
                    app.on_end()
        except Exception as error:
            app.on_failure(error)
        if app.crashed:
            reason = app.crash_reason
            app.on_failure(reason or RuntimeError("a service of the app has crashed"))

    async def on_stop(self) -> None:
        """Leave, after the batch in flight: `Engine.drain` waits its turn on the thread."""
        engine = self.app.thread.engine
        try:
            await self.app.thread.call(engine.drain)
        except Exception as error:
            self.app.on_failure(error)  # Faust would only log it
        if engine.failure is not None:
            # The agent may have been cancelled before the batch in flight has failed.
            self.app.on_failure(engine.failure)
        self.app.thread.close()


class IdleConsumer(mode.Service):
    """What Faust's streams and its app ask a consumer for; it is never started."""

    def __init__(self, _: base.Transport, **options: Any) -> None:
        super().__init__(beacon=options["beacon"])
        self.unacked = self._unacked_messages = set[Any]()

    def assignment(self) -> set[Any]:
        """Return no partition."""
        return set()


class IdleTransport(base.Transport):
    """A transport of no messages."""

    Consumer: ClassVar[Any] = IdleConsumer
    driver_version = "none"


class Boot(BootStrategy):
    """Starts sensors, web server and agents, and after these the poller; no client of Kafka."""

    enable_kafka = False
    app: EngineApp

    def server(self) -> Iterable[Any]:
        """Return the services to start."""
        return [*super().server(), Poller(self.app)]


class EngineApp(faust.App):
    """A Faust app that knows its engine, and what to call when it has to end."""

    BootStrategy = Boot
    thread: EngineThread
    deliveries: Any
    on_failure: Callable[[BaseException], None]
    on_end: Callable[[], None]

    def _create_directories(self) -> None:
        """Leave out Faust's data directory: it would be made where the worker is started."""


def make_app(
    settings: Settings,
    engine: Engine,
    *,
    on_failure: Callable[[BaseException], None],
    on_end: Callable[[], None],
) -> EngineApp:
    """Put a Faust app around an engine: its agent runs the cycle, batch after batch.

    Args:
        settings: Group, topics, threads.
        engine: Polled and run on one separate thread.
        on_failure: Called with each error for which the app has to end.
        on_end: Called when a burst has read the log to its end.
    """
    app = EngineApp(
        settings.group,
        web_enabled=False,
        store="memory://",
        agent_supervisor=mode.CrashingSupervisor,
    )
    app.transport = IdleTransport([], app)
    app.on_failure = on_failure
    app.on_end = on_end if settings.burst else lambda: None
    app.thread = EngineThread(engine, lambda: torch.set_num_threads(settings.torch_threads))
    app.deliveries = app.channel(maxsize=1)

    @app.agent(app.deliveries)
    async def predict(deliveries: Any) -> None:
        """Step one batch after the other."""
        delivery: Delivery
        async for delivery in deliveries:
            try:
                await app.thread.call(engine.run, delivery.work)
            except Exception as error:
                # `done` remains unset: nothing may be polled after a batch that has failed.
                on_failure(error)
            else:
                if not delivery.done.cancelled():  # by a poller that has stopped meanwhile
                    delivery.done.set_result(None)

    return app
