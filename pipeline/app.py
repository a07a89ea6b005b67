"""The worker: the one place where the parts meet."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable
from typing import Any

import mode
import torch

from livestep.models.devices import choose_device, device_of
from livestep.models.disk.loading import load_model
from livestep.models.loaded_model import LoadedModel
from livestep.models.model_errors import ModelError
from livestep.models.sequences.rules import GAP_ENDS_MAX
from livestep.pipeline.batch.codec import codec_for
from livestep.pipeline.batch.sessions import Sessions
from livestep.pipeline.batch.stepping import Stepper
from livestep.pipeline.engine.cycle import Cycle
from livestep.pipeline.engine.engine import Engine
from livestep.pipeline.engine.log import Log
from livestep.pipeline.engine.retention import compaction_warning
from livestep.pipeline.engine.saver import Saver
from livestep.pipeline.engine.status import Meter
from livestep.pipeline.errors import ConfigError, EngineError, StoppedError
from livestep.pipeline.exit_codes import ExitCode
from livestep.pipeline.kafka.faust_transport import (
    Delivery,
    DeliverySchema,
    EngineApp,
    EngineThread,
    Transport,
)
from livestep.pipeline.kafka.kafka_log import KafkaLog
from livestep.pipeline.process.deadline import Deadline
from livestep.pipeline.process.defects import reported_defect
from livestep.pipeline.process.identity import WorkerId
from livestep.pipeline.process.stopping import Stop
from livestep.pipeline.settings import Settings
from livestep.pipeline.state.no_store import NoStore
from livestep.pipeline.state.pool import Pool
from livestep.pipeline.state.store import RedisStore, Store

_log = logging.getLogger("livestep.worker")

#: New objects after which Python looks for garbage in cycles.  A batch makes some hundred thousand,
#: none of them in a cycle; the default of 700 costs 0.8 us an event.
GC_OBJECTS = 200_000


def build_engine(
    settings: Settings,
    model: LoadedModel,
    log: Log,
    store: Store,
    *,
    output_partitions: dict[str, int],
    is_saving_behind: bool = True,
    deadline: Deadline | None = None,
) -> Engine:
    """Put an engine together over any log and store.

    Args:
        settings: Limits and topics.
        model: The model, on its device.
        log: Kafka, or the one in memory.
        store: Redis, or the one in memory.
        output_partitions: Partitions of the output and of the dead-letter topic.
        is_saving_behind: Save in a thread of its own; else at the end of each cycle.
        deadline: Of a stop; one of its own if None.
    """
    deadline = deadline or Deadline(settings.drain_timeout_s)
    model.net.eval()
    stepper = Stepper(model, device_of(model.net))
    if model.rules.session_gap_ms is not None and settings.pool_slots < 2 * (1 + GAP_ENDS_MAX):
        raise ConfigError(
            f"--pool-slots {settings.pool_slots} is too small for a model with a session gap: one "
            f"event may end {GAP_ENDS_MAX} sequences, and {2 * (1 + GAP_ENDS_MAX)} have to fit"
        )
    # A model that keeps nothing needs no slots.
    pool = Pool(stepper.layout, 0 if model.rules.is_stateless else settings.pool_slots)
    saver = Saver(store, settings.save_queue_batches_max if is_saving_behind else 0, deadline)
    gap_ms = model.rules.session_gap_ms
    sessions = None if gap_ms is None else Sessions(gap_ms)
    meter = Meter()
    cycle = Cycle(
        settings=settings,
        log=log,
        store=store,
        model=model,
        codec=codec_for(model),
        stepper=stepper,
        pool=pool,
        saver=saver,
        sessions=sessions,
        output_partitions=output_partitions,
        meter=meter,
    )
    return Engine(
        settings=settings,
        log=log,
        store=store,
        cycle=cycle,
        pool=pool,
        saver=saver,
        sessions=sessions,
        model=model,
        meter=meter,
        deadline=deadline,
    )


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
        engine: Polled and run on a thread of its own.
        on_failure: Gets each error for which the app has to end.
        on_end: Called when a burst has read the log to its end.
    """
    app = EngineApp(
        settings.group,
        broker=f"kafka://{settings.bootstrap_servers.split(',')[0]}",
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        store="memory://",
        agent_supervisor=mode.CrashingSupervisor,
        stream_buffer_maxsize=2,
    )
    app.transport = Transport(app.conf.broker_consumer, app)
    app.producer_transport = Transport(app.conf.broker_producer, app)
    app.on_failure = on_failure
    app.on_end = on_end if settings.burst else lambda: None
    app.thread = EngineThread(engine, lambda: torch.set_num_threads(settings.torch_threads))
    # acks=False: the cycle's own transaction commits, not Faust.
    events = app.topic(settings.input_topic, schema=DeliverySchema(), acks=False)

    @app.agent(events)
    async def predict(deliveries: Any) -> None:
        """Step one batch after the other."""
        delivery: Delivery
        async for delivery in deliveries:
            try:
                await app.thread.call(engine.run, delivery.work)
            except Exception as error:
                # `done` stays unset: nothing may be polled after a batch that has failed.
                on_failure(error)
            else:
                if not delivery.done.cancelled():  # by a consumer that has stopped meanwhile
                    delivery.done.set_result(None)

    return app


class Worker:
    """One process that predicts: a Faust app whose agent runs the cycle.

    Args:
        settings: All of them.
        stop: Tells it to leave.

    Raises:
        EngineError: If a service or topic is missing or refuses.
        ModelError: If the model can't be loaded.
    """

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._failure: BaseException | None = None
        with contextlib.ExitStack() as undo:
            self._identity = WorkerId(settings.group, settings.worker_id)
            undo.callback(self._identity.close)
            model = load_model(
                settings.model, str(choose_device(settings.device)), settings.allowed_packages
            )
            log = KafkaLog(settings, self._identity.name, stop.deadline)
            undo.callback(log.close)
            store = self._open_store(log, model)
            undo.callback(store.close)
            if not model.rules.is_stateless:
                self._warn_of_compaction(log)
            self._engine = build_engine(
                settings,
                model,
                log,
                store,
                output_partitions=log.partition_counts,
                deadline=stop.deadline,
            )
            undo.pop_all()
        _log.info(
            "worker %s: model %s (%s), %s -> %s, %s",
            self._identity.name,
            model.name,
            model.fingerprint,
            settings.input_topic,
            settings.output_topic,
            settings.guarantee,
        )

    def _open_store(self, log: KafkaLog, model: LoadedModel) -> Store:
        """Connect to Redis, if the model has anything to keep."""
        if model.rules.is_stateless:
            return NoStore()
        settings = self._settings
        store = RedisStore(
            settings.redis_url,
            topic_id=log.topic_id,
            fingerprint=model.fingerprint,
            group=settings.group,
            wait_s=settings.redis_wait_s,
            credentials=settings.redis_credentials,
            deadline=self._stop.deadline,
        )
        with contextlib.ExitStack() as undo:
            undo.callback(store.close)
            store.check()
            undo.pop_all()
        return store

    def _warn_of_compaction(self, log: KafkaLog) -> None:
        topic = self._settings.input_topic
        if warning := compaction_warning(topic, log.topic_setting(topic, "cleanup.policy")):
            _log.warning("%s", warning)

    async def serve(self) -> None:
        """Predict until a signal, the end of the log in a burst, or an error.

        Raises:
            EngineError: What made the worker leave.
        """
        self._stop.listen(self._last_words)

        def fail_if_it_has(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._fail(error)

        app = make_app(self._settings, self._engine, on_failure=self._fail, on_end=self._stop.begin)
        tasks = [asyncio.create_task(app.start()), asyncio.create_task(self._tell_status())]
        for task in tasks:
            task.add_done_callback(fail_if_it_has)
        # Starting ends when the first assignment is known, which a signal need not wait for.
        await self._stop.has_begun.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await app.stop()
        finally:
            self._identity.close()
            if self._failure is not None:
                raise self._failure

    def _fail(self, error: BaseException) -> None:
        """Keep the first error, which is why the worker leaves."""
        if isinstance(error, StoppedError):
            _log.info("the stop has ended a wait: %s", error)
        elif self._failure is None:
            is_ours = isinstance(error, EngineError | ModelError)
            self._failure = error if is_ours else reported_defect(error)
        elif error not in (self._failure, self._failure.__cause__):
            _log.warning("while leaving: %r", error)
        self._stop.begin()

    def _last_words(self) -> tuple[int, str]:
        """Say how a worker ends whose time to leave is over."""
        limit = f"--drain-timeout-s {self._settings.drain_timeout_s:g} is over"
        if self._failure is not None:
            code = getattr(self._failure, "exit_code", ExitCode.MODEL)
            return code, f"{self._failure} ({limit}: the worker left its group without a word)"
        if self._engine.is_behind:
            return ExitCode.UNSAVED, f"{limit}, with states unsaved: the next worker replays them"
        return ExitCode.KAFKA, (
            f"{limit}, and Kafka has not answered, or a step takes so long: the next worker goes "
            "on from the last commit, when this one's session has timed out"
        )

    async def _tell_status(self) -> None:
        while self._settings.status_interval_s:
            await asyncio.sleep(self._settings.status_interval_s)
            _log.info("%s", self._engine.status_line())


def run_worker(settings: Settings) -> None:
    """Run one worker until it ends; see `Worker`."""
    with Stop(settings.drain_timeout_s) as stop:
        worker = Worker(settings, stop)
        # What is there by now (torch, Faust, the model) stays: the collector need not look at it in
        # the middle of a batch again, which would take tens of milliseconds.
        thresholds = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_OBJECTS)
        try:
            asyncio.run(worker.serve())
        finally:
            gc.unfreeze()
            gc.set_threshold(*thresholds)
