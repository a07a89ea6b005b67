"""The Faust app around an engine: what it does when a stop comes between a poll and its batch."""

import asyncio
import queue
import threading

import pytest

from livestep.pipeline.engine.engine import Work
from livestep.pipeline.errors import BrokerError, UnsavedError
from livestep.pipeline.faust_app import make_app
from livestep.pipeline.memory.memory_broker import MemoryRecord
from livestep.pipeline.settings import Settings

#: Bounds what should come at once, so that a test that fails doesn't hang.
SOON_S = 60


class ScriptedEngine:
    """An engine that polls what a test says, and keeps what it was given to run.

    Args:
        answers: Of one poll after the other: work, or a function that gives it.
    """

    is_at_end = False

    def __init__(self, *answers):
        self.answers = queue.Queue()
        for answer in answers:
            self.answers.put(answer)
        self.ran = []
        self.has_run = threading.Event()
        self.is_drained = False
        self.drain_failure = None
        self.failure = None

    def join(self):
        """Nothing to join."""

    def poll(self, timeout_s):
        assert not self.is_drained
        try:
            answer = self.answers.get(timeout=timeout_s)
        except queue.Empty:
            return None
        return answer() if callable(answer) else answer

    def run(self, work):
        try:
            if callable(work.records[-1].value()):
                work.records[-1].value()()
            self.ran.append(work)
        except Exception as error:
            self.failure = error
            raise
        finally:
            self.has_run.set()

    def drain(self):
        self.is_drained = True
        if self.drain_failure is not None:
            raise self.drain_failure


class Held:
    """A call that waits until it is released."""

    def __init__(self, result=None):
        self.result = result
        self.has_begun = threading.Event()
        self.release = threading.Event()

    def __call__(self):
        self.has_begun.set()
        assert self.release.wait(SOON_S)
        return self.result


def work_of(partition, value=b"value"):
    record = MemoryRecord(("events", partition, 0), (b"key", value), 0, [])
    return Work([record], is_replay=False)


async def begun(event):
    """Wait for something on another thread, in one of its own: the default pool may be busy."""
    assert await asyncio.to_thread(event.wait, SOON_S)


def app_around(engine):
    """Make an app.

    Returns:
        app: With the errors that it has told in `failures`.
    """
    settings = Settings(model="model", input_topic="events", output_topic="predictions")
    failures = []
    app = make_app(settings, engine, on_failure=failures.append, on_end=lambda: None)
    return app, failures


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_partition_assigned_while_the_app_stops_is_not_a_failure():
    # Given a worker that has run a batch of partition 0, and is polling
    held = Held(work_of(1))
    engine = ScriptedEngine(work_of(0), held)

    async def scenario():
        app, failures = app_around(engine)

        async def release(_, **options):
            held.release.set()
            await app.thread.call(lambda: None)  # after the poll
            await asyncio.sleep(0)

        app.on_before_shutdown.connect(release, weak=False)
        starting = asyncio.create_task(app.start())
        await begun(held.has_begun)
        await starting
        # When it is asked to stop, and this very poll gives it partition 1 and records of it
        await app.stop()
        return failures

    # Then it leaves in order: the records are dropped, and their next owner polls them
    assert asyncio.run(scenario()) == []
    assert engine.ran == [work_of(0)]
    assert engine.is_drained


def test_batches_of_any_partition_are_run_whenever_it_came():
    engine = ScriptedEngine()

    async def scenario():
        app, failures = app_around(engine)
        starting = asyncio.create_task(app.start())
        for partition in (3, 0, 7):
            engine.has_run.clear()
            engine.answers.put(work_of(partition))
            await begun(engine.has_run)
        await starting
        await app.stop()
        return failures

    assert asyncio.run(scenario()) == []
    assert engine.ran == [work_of(partition) for partition in (3, 0, 7)]


def test_a_batch_in_flight_when_the_app_stops_is_finished_first():
    held = Held()
    engine = ScriptedEngine(work_of(0, held))

    async def scenario():
        app, failures = app_around(engine)
        starting = asyncio.create_task(app.start())
        await begun(held.has_begun)
        await starting
        stopping = asyncio.create_task(app.stop())
        # When its turn on the engine's thread is after the batch
        asyncio.get_running_loop().call_soon(held.release.set)
        await stopping
        return failures

    assert asyncio.run(scenario()) == []
    assert len(engine.ran) == 1
    assert engine.is_drained


def test_a_batch_in_flight_that_fails_when_the_app_stops_is_not_passed_over():
    failure = BrokerError("the transaction can't be ended")

    class Failing(Held):
        def __call__(self):
            super().__call__()
            raise failure

    held = Failing()
    engine = ScriptedEngine(work_of(0, held))

    async def scenario():
        app, failures = app_around(engine)
        starting = asyncio.create_task(app.start())
        await begun(held.has_begun)
        await starting
        stopping = asyncio.create_task(app.stop())
        asyncio.get_running_loop().call_soon(held.release.set)
        await stopping
        return failures

    assert set(asyncio.run(scenario())) == {failure}
    assert engine.is_drained


def test_nothing_of_fausts_own_kafka_side_is_started():
    engine = ScriptedEngine(work_of(0))

    async def scenario():
        app, failures = app_around(engine)
        await app.start()
        await begun(engine.has_run)
        services = [app.consumer, app.topics, app.tables, app.producer, app.tables.recovery]
        started = [service for service in services if service.started]
        await app.stop()
        return failures, started

    assert asyncio.run(scenario()) == ([], [])


def test_what_fails_while_the_worker_leaves_is_not_passed_over():
    engine = ScriptedEngine(work_of(0))
    engine.drain_failure = UnsavedError("states unsaved")

    async def scenario():
        app, failures = app_around(engine)
        starting = asyncio.create_task(app.start())
        await begun(engine.has_run)
        await starting
        await app.stop()
        return failures

    assert asyncio.run(scenario()) == [engine.drain_failure]


def test_after_a_batch_that_failed_nothing_is_polled():
    def fail():
        raise ZeroDivisionError

    engine = ScriptedEngine(work_of(0, fail))

    async def scenario():
        app, failures = app_around(engine)
        starting = asyncio.create_task(app.start())
        await starting
        await begun(engine.has_run)
        await app.stop()
        return failures

    # One error, which leaving tells again: the app keeps the first.
    (failure,) = set(asyncio.run(scenario()))
    assert isinstance(failure, ZeroDivisionError)
    assert engine.is_drained
