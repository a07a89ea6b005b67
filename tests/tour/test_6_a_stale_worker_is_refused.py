"""6. A worker that was away too long can do no harm.

It may not know that others have its place.  Its transaction is refused by the broker, and its late
save by the store: states are written by compare-and-set on the offset up to which they are right.
"""

import random

import pytest

from livestep import run_to_end
from livestep.pipeline.errors import FencedError
from livestep.pipeline.state.store import SaveRefusedError
from tests.support.world import World


def test_a_worker_that_comes_back_too_late_writes_nothing():
    # Given a worker that has states in its pool, and hangs in the middle of a batch
    world = World(partitions=1)
    world.publish_random(random.Random(0), events=8, keys=1)
    stale = world.start()
    run_to_end(stale)
    world.publish_random(random.Random(0), events=8, keys=1)
    batch = stale.poll(timeout_s=0)

    # When another takes its place and does its work, and then the first one continues
    fresh = world.start()
    run_to_end(fresh)
    with pytest.raises(FencedError):
        stale.run(batch)

    # Then there is one prediction for each event
    assert len(world.broker.records("predictions")) == 16
    world.assert_truth()

    # And a save that builds on what the store held before is refused
    with pytest.raises(SaveRefusedError):
        world.store.save(0, expected=8, applied=12, keys=[b"key-0"], records=[bytes(32)])
