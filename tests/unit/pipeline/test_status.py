"""The status line: since the last one, in the words of the seven verbs."""

import numpy as np

from pipeline.batch import Batch, DeadRecord
from pipeline.status import VERBS, Meter


def batch(events, dead=0):
    marks = np.zeros(events, np.uint8)
    return Batch(
        [None] * events, None, None, None, marks, None, [], {}, [DeadRecord(None, "", "")] * dead
    )


def line(meter, **changes):
    return meter.line(**{"lag": 0, "pool_keys": 0, "partitions": 1, "replaying": 0, **changes})


def test_a_line_names_what_an_operator_asks_for():
    meter = Meter()
    meter.count(batch(30, dead=2), is_replay=False)
    meter.count(batch(10), is_replay=False)
    text = line(meter, lag=1_234_567, pool_keys=1_000, partitions=3)
    assert "lag 1,234,567, 1,000 keys in pool, 20 events a batch, 3 partitions" in text
    assert "2 dead letters" in text
    assert "replay" not in text
    assert all(f"{verb} 0.0" in text for verb in VERBS[1:])


def test_a_line_counts_since_the_last_one():
    meter = Meter()
    meter.count(batch(30), is_replay=False)
    line(meter)
    meter.count(batch(7), is_replay=False)
    assert "7 events a batch" in line(meter)
    assert line(meter).startswith("0 events/s")


def test_an_idle_worker_says_nothing_about_microseconds():
    assert "us an event" not in line(Meter())


def test_replayed_events_are_told_apart():
    meter = Meter()
    meter.count(batch(30, dead=5), is_replay=True)
    text = line(meter, replaying=1)
    assert text.startswith("0 events/s")
    assert "(1 in replay, " in text
    # Their dead letters were sent before.
    assert "dead letter" not in text


def test_a_verb_gets_the_time_of_its_block_also_when_it_fails():
    meter = Meter()
    for failure in (None, ValueError()):
        before = meter.seconds["step"]
        try:
            with meter.time("step"):
                sum(range(1000))
                if failure:
                    raise failure
        except ValueError:
            pass
        assert meter.seconds["step"] > before
    assert meter.seconds["send"] == 0
