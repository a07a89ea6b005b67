"""The worker: the one place where the parts meet."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging

from livestep.models.devices import choose_device
from livestep.models.disk.loading import load_model
from livestep.models.loaded_model import LoadedModel
from livestep.models.model_errors import ModelError
from livestep.pipeline.engine.engine import build_engine
from livestep.pipeline.engine.retention import compaction_warning
from livestep.pipeline.errors import EngineError, StoppedError
from livestep.pipeline.exit_codes import ExitCode
from livestep.pipeline.faust_app import make_app
from livestep.pipeline.kafka.kafka_log import KafkaLog
from livestep.pipeline.memory.memory_store import MemoryStore
from livestep.pipeline.native import loops_text
from livestep.pipeline.process.defects import reported_defect
from livestep.pipeline.process.identity import WorkerId
from livestep.pipeline.process.stopping import Stop
from livestep.pipeline.settings import Settings
from livestep.pipeline.state.store import RedisStore, Store

_log = logging.getLogger("livestep.worker")

#: New objects after which Python looks for garbage in cycles.  A batch makes some hundred thousand,
#: none of them in a cycle; the default of 700 costs 0.8 us an event.
GC_OBJECTS = 200_000


class Worker:
    """One process that predicts: a Faust app whose agent runs the cycle.

    Args:
        settings: All of them.
        stop: Makes it leave.

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
        _log.info("loops: %s", loops_text())

    def _open_store(self, log: KafkaLog, model: LoadedModel) -> Store:
        """Connect to Redis, if the model has anything to keep; else nothing is ever stored."""
        if model.rules.is_stateless:
            return MemoryStore()
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
        tasks = [asyncio.create_task(app.start()), asyncio.create_task(self._log_status())]
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
        """Return exit code and error of a worker that has not left in time."""
        limit = f"--drain-timeout-s {self._settings.drain_timeout_s:g} has passed"
        if self._failure is not None:
            code = getattr(self._failure, "exit_code", ExitCode.MODEL)
            return code, f"{self._failure} ({limit}: the worker left its group without a word)"
        if self._engine.is_behind:
            return ExitCode.UNSAVED, f"{limit}, with states unsaved: the next worker replays them"
        return ExitCode.KAFKA, (
            f"{limit}, and Kafka has not answered, or a step takes so long: the next worker "
            "continues from the last commit, when this one's session has timed out"
        )

    async def _log_status(self) -> None:
        while self._settings.status_interval_s:
            await asyncio.sleep(self._settings.status_interval_s)
            _log.info("%s", self._engine.status_line())


def run_worker(settings: Settings) -> None:
    """Run one worker until it ends; see `Worker`."""
    with Stop(settings.drain_timeout_s) as stop:
        worker = Worker(settings, stop)
        # What exists by now (torch, Faust, the model) remains: the garbage collector need
        # not visit it in the middle of a batch, which would cost tens of milliseconds.
        thresholds = gc.get_threshold()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_OBJECTS)
        try:
            asyncio.run(worker.serve())
        finally:
            gc.unfreeze()
            gc.set_threshold(*thresholds)
