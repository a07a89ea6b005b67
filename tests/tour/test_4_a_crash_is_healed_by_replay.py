"""4. A crash between commit and save is healed by replay.

Kafka decides what is done, Redis follows.  Where Redis is behind, the events in between are stepped
again without sending anything: a state is nothing but the model and the key's events.
"""

import random

import pytest

from livestep.pipeline.engine.cycle import Cycle
from tests.support.world import World


class Crash(BaseException):
    """The worker's end."""


def crash(*arguments):
    raise Crash


def test_a_crash_after_the_commit_loses_and_repeats_nothing(monkeypatch):
    # Given a worker that dies when its batch is committed, before the states are saved
    world = World(partitions=1)
    world.publish_random(random.Random(0), events=8)
    with monkeypatch.context() as patch:
        patch.setattr(Cycle, "save", crash)
        with pytest.raises(Crash):
            world.run_to_end()
    assert world.broker.group.offsets[0][0] == 8  # What is done ...
    assert world.store.describe([0])[0].applied == 0  # ... and what the states have seen of it.

    # When another worker takes its place, and the same keys continue
    world.publish_random(random.Random(1), events=8)
    world.run_to_end()

    # Then each of the 16 events has one prediction, and each is what the unroll of its key says
    assert len(world.broker.records("predictions")) == 16
    world.assert_truth()
