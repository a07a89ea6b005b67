"""Polls for one thread, and the lag for another, which must not wait for a rebalance."""

import threading

from livestep.pipeline.kafka.polling import MessageReader, Polling
from livestep.pipeline.memory.memory_broker import MemoryRecord
from livestep.pipeline.types import Offset

#: Bounds what should come at once, so that a test that fails doesn't hang.
SOON_S = 60


class Consumer:
    """Gives messages; a poll may be held, as by a rebalance, and then no other call is answered."""

    def __init__(self, messages=()):
        self.messages = list(messages)
        self.ends = {0: 10, 1: 20}
        self.is_held = False
        self.has_begun = threading.Event()
        self.release = threading.Event()

    def poll(self, timeout_s):
        if self.is_held:
            self.has_begun.set()
            assert self.release.wait(SOON_S)
        return self.messages.pop(0) if self.messages else None

    def consume(self, count, timeout_s):
        assert timeout_s == 0
        taken, self.messages = self.messages[:count], self.messages[count:]
        return taken

    def get_watermark_offsets(self, place, cached):
        assert cached
        assert not self.has_begun.is_set() or self.release.is_set(), "waits for the rebalance"
        return 0, self.ends[place.partition]


def test_a_poll_returns_the_first_record_and_all_that_arrived_with_it():
    reader = MessageReader(
        Consumer(MemoryRecord(("events", 0, Offset(i)), (b"k", b"v")) for i in range(6)), "events"
    )
    for records_max, expected in ((4, [0, 1, 2, 3]), (1, [4]), (4, [5]), (4, [])):
        assert reader.poll(records_max, 0.0).records.offsets.tolist() == expected


def test_the_lag_is_the_distance_from_position_to_end():
    consumer, positions = Consumer(), {0: Offset(4), 1: Offset(25)}
    polling = Polling(consumer, MessageReader(consumer, "events"), "events", positions)
    assert polling.lag() == 6
    positions[0] = Offset(9)
    assert polling.lag() == 1


def test_during_a_rebalance_the_last_lag_is_returned_without_waiting():
    # Given a worker that has seen its lag, and more that has come since
    consumer, positions = Consumer(), {0: Offset(4), 1: Offset(20)}
    polling = Polling(consumer, MessageReader(consumer, "events"), "events", positions)
    polling.poll(10, 0.0)
    consumer.ends[0] = 11
    # When a poll is in a rebalance that waits
    consumer.is_held = True
    thread = threading.Thread(target=lambda: polling.poll(10, 0.0))
    thread.start()
    assert consumer.has_begun.wait(SOON_S)
    # Then another thread gets the old answer at once, and the new one after the poll
    assert polling.lag() == 6
    consumer.release.set()
    thread.join(SOON_S)
    assert polling.lag() == 7
