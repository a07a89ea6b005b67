"""A Faust transport on librdkafka: one poll of all partitions is one Faust event.

Faust gives the app, the agent, the stream and their supervision; reading, transactions and
rebalancing are the engine's.  Faust's own fetcher takes one message at a time and starts only after
a rebalance, while librdkafka rebalances within `poll`: so a task of the consumer polls.

Faust knows one partition, from the beginning to the end (`BatchConsumer.partition`), and each batch
comes from it.  The real assignment is the engine's: what Faust keeps for each partition could only
be behind it, since a rebalance, or a stop, may come between a poll and its delivery.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, cast

import faust
import mode
from faust.transport import base
from faust.transport.consumer import Consumer
from faust.transport.consumer import TransactionManager as FaustTransactionManager
from faust.transport.producer import Producer
from faust.types import TP, ConsumerMessage, Message

from livestep.pipeline.engine.engine import Engine, Work

#: Seconds that a poll waits for a first record; bounds how long leaving takes.
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
        """Run a function on the thread, after all that was asked of it before."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, function, *arguments
        )

    def close(self) -> None:
        """Wait for what is running, and end."""
        self._executor.shutdown(wait=True)


class EngineApp(faust.App):
    """A Faust app that knows its engine, and whom to tell when it has to end."""

    thread: EngineThread
    on_failure: Callable[[BaseException], None]
    on_end: Callable[[], None]

    def _create_directories(self) -> None:
        """Leave out Faust's data directory: it would be made where the worker is started."""


class BatchConsumer(Consumer):
    """Polls on the engine's thread and hands each batch to the agent, one at a time."""

    app: EngineApp
    consumer_stopped_errors: ClassVar[tuple[type[BaseException], ...]] = ()

    def on_init(self) -> None:
        """Begin without a subscription; Faust subscribes when its agents are up."""
        self._topics: frozenset[str] = frozenset()

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group, once the agent's topic is known."""
        if self._topics:
            return
        self._topics = frozenset(topics)
        try:
            await self.app.thread.call(self.app.thread.engine.join)
        except Exception as error:
            self.app.on_failure(error)

    @mode.Service.task
    async def _poll_forever(self) -> None:
        """Poll, deliver, wait until the agent is done."""
        thread = self.app.thread
        while not self._topics and not self.should_stop:
            await self.sleep(0.01)
        has_begun = False
        try:
            while not self.should_stop:
                work = await thread.call(thread.engine.poll, POLL_TIMEOUT_S)
                if not has_begun:
                    has_begun = True
                    await self._begin_deliveries()
                if self.app.should_stop:  # before its consumer does, and it delivers no more
                    break
                if work is not None:
                    await self._deliver(work)
                elif thread.engine.is_at_end:
                    self.app.on_end()
        except Exception as error:
            self.app.on_failure(error)
        if self.app.crashed:
            reason = self.app.crash_reason
            self.app.on_failure(reason or RuntimeError("a service of the app has crashed"))

    async def _begin_deliveries(self) -> None:
        """Assign the one partition that Faust knows of."""
        self.app.on_rebalance_start()
        self.app.consumer_generation_id += 1
        await self.on_partitions_assigned(self.assignment(), self.app.consumer_generation_id)

    async def _deliver(self, work: Work) -> None:
        record = work.records[-1]
        tp = self.partition
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        message = ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=record.offset(),
            timestamp=record.timestamp()[1] / 1000,
            timestamp_type=record.timestamp()[0],
            headers=None,
            key=None,
            value=cast(Any, Delivery(work, done)),
            checksum=None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )
        await self.callback(message)
        await self.wait(done)

    async def on_stop(self) -> None:
        """Leave, after the batch in flight: `Engine.drain` waits its turn on the thread."""
        engine = self.app.thread.engine
        try:
            await self.app.thread.call(engine.drain)
        except Exception as error:
            self.app.on_failure(error)  # Faust would log it, and no more
        if engine.failure is not None:
            # The agent may have been cancelled before the batch in flight has failed.
            self.app.on_failure(engine.failure)
        self.app.thread.close()

    @property
    def partition(self) -> TP:
        """The partition that Faust takes all batches to be of."""
        return TP(next(iter(self._topics), ""), 0)

    def assignment(self) -> set[TP]:
        """Give the one partition."""
        return {self.partition}

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Do nothing: the cycle's transaction has committed."""
        return False

    async def wait_empty(self) -> None:
        """Do nothing: `on_stop` waits for the batch in flight."""

    async def perform_seek(self) -> None:
        """Do nothing: the engine has given each partition its position."""

    async def _drain_messages(self, fetcher: Any) -> None:
        """Keep Faust's fetcher waiting: `_poll_forever` does its work."""
        # It is cancelled in order to stop, which Faust would take for a crash in a rebalance.
        with contextlib.suppress(asyncio.CancelledError):
            await fetcher.wait_until_stopped()

    # What follows is asked by parts of Faust that are not used here: tables, per-event acks.

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Give nothing to be sought."""
        return {}

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Do nothing."""

    async def _seek(self, partition: TP, offset: int) -> None:
        raise NotImplementedError("the engine seeks")

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        raise NotImplementedError("the cycle commits")

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        raise NotImplementedError("the engine polls")

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        raise NotImplementedError("one message is one batch")

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: topics are the operator's."""

    async def position(self, tp: TP) -> int | None:
        """Know nothing: positions are the engine's."""
        return None

    def highwater(self, tp: TP) -> int:
        """Know nothing: the status line tells the lag."""
        return 0

    def topic_partitions(self, topic: str) -> int | None:
        """Know nothing."""
        return None

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        """Know nothing."""
        return {}

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Know nothing."""
        return {}

    def key_partition(
        self, topic: str, key: bytes | None, partition: int | None = None
    ) -> int | None:
        """Know nothing: outputs go to their event's partition."""
        return None


class TransactionManager(FaustTransactionManager):
    """Faust's side of a transaction: none, since the cycle has the whole of it."""

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Do nothing: no batch is in flight when partitions go."""

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP]
    ) -> None:
        """Do nothing: one transactional id serves all partitions (KIP-447)."""

    async def commit(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        """Do nothing."""
        return True


class Transport(base.Transport):
    """What `faust.App` takes as `transport`."""

    Consumer: ClassVar[Any] = BatchConsumer
    Producer: ClassVar[Any] = Producer
    TransactionManager: ClassVar[Any] = TransactionManager
    driver_version = "librdkafka"


class DeliverySchema(faust.Schema[Any, Any]):
    """Hands a delivery to the agent as it is: bytes are decoded in pack, all at once."""

    def loads_key(self, app: Any, message: Message, **kwargs: Any) -> Any:
        """Give no key: a batch has many."""
        return None

    def loads_value(self, app: Any, message: Message, **kwargs: Any) -> Any:
        """Give the delivery."""
        return message.value
