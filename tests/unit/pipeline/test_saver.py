"""save: in the order of the commits, behind the cycle, and what fails is not passed over."""

import threading

import pytest

from livestep import MemoryStore
from livestep.pipeline.engine.saver import Move, Save, Saver
from livestep.pipeline.errors import StoreError
from livestep.pipeline.types import Offset


class GateStore(MemoryStore):
    """Saves only while the gate is open; notes what came."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.applied_in_order = []
        self.failure = None

    def save(self, partition, *, applied, **arguments):
        self.entered.set()
        assert self.gate.wait(30)
        if self.failure is not None:
            raise self.failure
        super().save(partition, applied=applied, **arguments)
        self.applied_in_order.append(applied)


@pytest.fixture
def store():
    store = GateStore()
    store.begin(0, expected=None, applied=Offset(0), start=Offset(0), partitions=1)
    yield store
    store.gate.set()


def saves(expected, applied, epoch=1, partition=0):
    record = applied.to_bytes(8, "little") + (1).to_bytes(8, "little")
    return lambda: [Save(Move(partition, epoch, expected, applied), [b"k"], [record])]


def open_saver(store, batches_max):
    saver = Saver(store, batches_max)
    saver.begin(0, Offset(0))
    return saver


@pytest.mark.parametrize("batches_max", [0, 3])
def test_saves_reach_the_store_in_the_order_of_their_commits(store, batches_max):
    store.gate.set()
    saver = open_saver(store, batches_max)
    for at in range(20):
        assert saver.next_ticket == at + 1
        saver.put(saves(at, at + 1))
    assert saver.flush(30)
    assert store.applied_in_order == list(range(1, 21))
    assert (saver.applied(0), saver.saved_ticket) == (20, 20)
    assert saver.take_refused() == set()
    saver.close()


def test_a_save_in_the_callers_thread_is_done_when_put_returns(store):
    store.gate.set()
    saver = open_saver(store, 0)
    saver.put(saves(0, 5))
    assert (saver.applied(0), saver.saved_ticket) == (5, 1)


def test_only_so_many_batches_wait_then_committing_waits_for_the_store(store):
    # Given a store that does not answer, one save with it and two that wait
    saver = open_saver(store, 2)
    saver.put(saves(0, 1))
    assert store.entered.wait(30)
    saver.put(saves(1, 2))
    saver.put(saves(2, 3))
    # When a fourth comes
    fourth = threading.Thread(target=saver.put, args=(saves(3, 4),))
    fourth.start()
    fourth.join(0.2)
    # Then it waits, and so does a flush, until the store answers
    assert fourth.is_alive()
    assert not saver.flush(0.01)
    assert saver.saved_ticket == 0
    store.gate.set()
    fourth.join(30)
    assert saver.flush(30)
    assert store.applied_in_order == [1, 2, 3, 4]
    saver.close()


def test_a_refused_save_refuses_those_that_build_on_it(store):
    # Given a store that somebody else has moved
    store.gate.set()
    saver = open_saver(store, 0)
    store.save(0, expected=0, applied=7, keys=[], records=[])
    # When saves come that begin where this worker was
    saver.put(saves(0, 5))
    saver.put(saves(5, 7))
    # Then none is written, though the second would land on the same offset, and it is told once
    assert store.load(0, [b"k"]) == (7, [None])
    assert saver.applied(0) is None
    assert saver.take_refused() == {0}
    assert saver.take_refused() == set()


def test_saves_from_before_a_recovery_are_dropped(store):
    # Given a save that waits while its partition is recovered
    saver = open_saver(store, 3)
    saver.put(saves(0, 1))
    assert store.entered.wait(30)
    saver.put(saves(1, 2))
    saver.put(saves(2, 3))
    assert saver.begin(0, Offset(1)) == 2
    # When the store answers
    store.gate.set()
    assert saver.flush(30)
    # Then only the save that was on its way has landed, though the next would fit
    assert store.applied_in_order == [1]
    assert saver.applied(0) == 1
    assert saver.take_refused() == set()
    saver.close()


def test_partitions_are_independent_of_each_other(store):
    store.gate.set()
    store.begin(1, expected=None, applied=Offset(0), start=Offset(0), partitions=2)
    saver = open_saver(store, 0)
    saver.begin(1, Offset(0))
    saver.put(lambda: [*saves(4, 5)(), *saves(0, 9, partition=1)()])
    assert (saver.applied(0), saver.applied(1)) == (None, 9)
    assert saver.take_refused() == {0}


@pytest.mark.parametrize("batches_max", [0, 2])
@pytest.mark.parametrize("failure", [StoreError("Redis is away"), ZeroDivisionError("a defect")])
def test_a_store_that_fails_is_raised_in_the_workers_thread(store, batches_max, failure):
    store.gate.set()
    store.failure = failure
    saver = open_saver(store, batches_max)
    saver.put(saves(0, 1))
    assert not saver.flush(30)
    with pytest.raises(type(failure), match=str(failure)):
        saver.check()
    with pytest.raises(type(failure), match=str(failure)):
        saver.put(saves(1, 2))
    assert saver.failure is failure
    saver.close()


def test_a_full_queue_before_a_store_that_fails_ends_in_the_error(store):
    # Given a full queue before a store that does not answer
    saver = open_saver(store, 1)
    saver.put(saves(0, 1))
    assert store.entered.wait(30)
    saver.put(saves(1, 2))
    store.failure = StoreError("Redis is away")
    threading.Timer(0.1, store.gate.set).start()
    # When it fails while the worker waits, then the worker hears of it
    with pytest.raises(StoreError, match="away"):
        for at in range(2, 10):
            saver.put(saves(at, at + 1))
    saver.close()


def test_leaving_drops_what_waits(store):
    # Given saves that wait
    saver = open_saver(store, 3)
    for at in range(3):
        saver.put(saves(at, at + 1))
    assert store.entered.wait(30)
    # When the worker leaves, and then the store answers
    closing = threading.Thread(target=saver.close)
    closing.start()
    closing.join(0.1)
    store.gate.set()
    closing.join(30)
    # Then only the save that was on its way is done
    assert store.applied_in_order == [1]
