"""The time in which a worker has to leave: what bounds a wait, and what ends one."""

import threading
import time

import pytest
import redis

from livestep import MemoryStore
from livestep.pipeline.engine.saver import Move, Save, Saver
from livestep.pipeline.errors import StoppedError, StoreError, UnsavedError
from livestep.pipeline.process.deadline import Deadline
from livestep.pipeline.state.redis_connection import RedisConnection
from livestep.pipeline.types import Offset

#: Where nothing listens.
NOWHERE = "redis://127.0.0.1:1/0"

#: Bounds what should come at once, so that a test that fails doesn't hang.
SOON_S = 60


def test_there_is_no_deadline_before_a_stop():
    deadline = Deadline(30)
    assert deadline.work_s(1_000) == deadline.leave_s(1_000) == 1_000


def test_work_ends_before_leaving_does_and_a_call_leaves_time_for_both():
    deadline = Deadline(30)
    assert deadline.call_s(1_000) <= 10
    deadline.begin()
    assert deadline.work_s(1_000) + deadline.call_s(1_000) < deadline.leave_s(1_000) <= 30
    assert deadline.work_s(1) == deadline.leave_s(1) == 1


def test_only_the_first_beginning_counts():
    deadline = Deadline(0.05)
    deadline.begin()
    while deadline.leave_s(1):
        time.sleep(0.01)
    deadline.begin()
    assert deadline.leave_s(1) == deadline.work_s(1) == 0


class HeldStore(MemoryStore):
    """Saves when it is let."""

    def __init__(self):
        super().__init__()
        self.begin(0, expected=None, applied=Offset(0), start=Offset(0), partitions=1)
        self.gate = threading.Event()
        self.has_begun = threading.Event()

    def save(self, partition, **arguments):
        self.has_begun.set()
        assert self.gate.wait(SOON_S)
        super().save(partition, **arguments)


def save(at):
    record = at.to_bytes(8, "little") + (1).to_bytes(8, "little")
    return lambda: [Save(Move(0, 1, Offset(at), Offset(at + 1)), [b"k"], [record])]


@pytest.fixture
def held():
    """A saver whose store does not answer, and the deadline that it looks at."""
    store, deadline = HeldStore(), Deadline(0.3)
    saver = Saver(store, 1, deadline)
    saver.begin(0, Offset(0))
    saver.put(save(0))
    assert store.has_begun.wait(SOON_S)
    yield saver, deadline, store
    store.gate.set()


def in_thread(function):
    """Call a function in a thread; return the thread, and where its result or error will be."""
    found = []

    def run():
        try:
            found.append(function())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


def test_a_stop_ends_the_wait_for_room_in_the_queue_and_what_had_none_counts_as_unsaved(held):
    saver, deadline, store = held
    saver.put(save(1))
    waiting, found = in_thread(lambda: saver.put(save(2)))
    deadline.begin()
    waiting.join(SOON_S)
    assert isinstance(found[0], StoppedError)
    # Also when the store answers after all
    store.gate.set()
    saver.close()
    with pytest.raises(UnsavedError):
        saver.check_saved()


@pytest.mark.parametrize("wait", ["flush", "wait_for_progress"])
def test_a_stop_ends_a_wait_that_has_begun_before_it(held, wait):
    saver, deadline, _ = held
    waiting, found = in_thread(lambda: getattr(saver, wait)(SOON_S if wait == "flush" else 0.4))
    deadline.begin()
    waiting.join(SOON_S / 2)
    assert not waiting.is_alive()
    assert found[0] is False if wait == "flush" else isinstance(found[0], StoppedError)
    assert saver.is_behind


def test_leaving_does_not_wait_for_a_save_that_hangs(held):
    saver, deadline, _ = held
    deadline.begin()
    assert saver.close() is False


def test_a_stop_ends_reading_from_a_redis_that_is_away():
    deadline = Deadline(SOON_S)
    connection = RedisConnection(NOWHERE, SOON_S, deadline=deadline)
    waiting, found = in_thread(lambda: connection.call(lambda client: client.ping()))
    waiting.join(0.2)
    assert waiting.is_alive()
    deadline.begin()
    waiting.join(SOON_S / 2)
    assert isinstance(found[0], StoppedError)
    assert "127.0.0.1:1" in str(found[0])


def test_a_save_waits_for_redis_until_the_worker_gives_up():
    deadline = Deadline(SOON_S)
    connection = RedisConnection(NOWHERE, SOON_S, deadline=deadline)
    waiting, found = in_thread(lambda: connection.call(lambda client: client.ping(), is_save=True))
    deadline.begin()
    waiting.join(0.5)
    assert waiting.is_alive()
    connection.give_up_waiting()
    waiting.join(SOON_S / 2)
    assert isinstance(found[0], StoreError)


def test_a_refusal_of_redis_is_not_a_stop():
    deadline = Deadline(SOON_S)
    connection = RedisConnection(NOWHERE, SOON_S, deadline=deadline)
    deadline.begin()

    def refuse(_):
        raise redis.exceptions.NoPermissionError("no permissions")

    with pytest.raises(StoreError, match="no permissions"):
        connection.call(refuse)
