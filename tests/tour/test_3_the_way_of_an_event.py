"""3. An event's way: poll -> pack -> load -> step -> send -> commit -> save.

Here on a log and a store in memory; the engine is the worker's own.
"""

import json

import numpy as np

from tests.support.world import World


def test_an_event_goes_through_the_seven_verbs():
    # Given a topic with one event, and a worker
    world = World(partitions=1)
    world.publish("flat-7", {"x": [1.0, 2.0]}, timestamp_ms=1_700_000_000_000)
    worker = world.start()

    # When the worker polls, and runs what it got through the other six verbs
    work = worker.poll(timeout_s=0)
    assert work.records.keys.to_list() == [b"flat-7"]
    worker.run(work)

    # Then its prediction was sent under its key and its time, and says which event it is for
    (prediction,) = world.broker.records("predictions")
    assert prediction.key() == b"flat-7"
    assert prediction.timestamp()[1] == 1_700_000_000_000
    assert dict(prediction.headers())["source"] == b"events/0/0"
    (truth,) = world.model.unroll_events([{"x": [1.0, 2.0]}])
    assert np.float32(json.loads(prediction.value())["y"]) == np.float32(truth["y"])
    # And it was committed that the event is done, and its state is saved up to there
    assert world.broker.group.offsets[0][0] == 1
    assert world.store.describe([0])[0].applied == 1
