"""A hundred thousand bad records in a row: all are put aside, and the log stays short."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.support.world import DEAD, INPUT, World

BAD = {b"": "empty-value", b"[]": "not-an-object", b"{}": "missing-feature", b"{": "not-json"}

COUNT = 100_000


def test_a_hundred_thousand_dead_letters_are_few_lines_that_count_them_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given bad records of four kinds, and one good event behind them
    world = World(partitions=1)
    values = list(BAD)
    for number in range(COUNT):
        world.broker.publish(INPUT, b"key-%d" % (number % 100), values[number % len(values)])
    world.published = COUNT
    world.publish("key-0", {"x": [1, 2]})

    # When a worker meets them in batches of a thousand
    world.run_to_end(batch_events_max=1_000, pool_slots=2_000)

    # Then each is a dead letter, the good event is predicted, and the log has every one of them in
    # far fewer lines than there are batches
    assert len(world.broker.records(DEAD)) == COUNT
    world.assert_truth()
    lines = [one.getMessage() for one in caplog.records if one.name == "livestep.dead_letters"]
    assert 1 <= len(lines) < COUNT / 1_000 / 2
    told: Counter[str] = Counter()
    for line in lines:
        reasons = line.partition(" dead letters: ")[2]
        for reason, count in re.findall(r"([a-z-]+) ([0-9,]+)[,;]", reasons):
            told[reason] += int(count.replace(",", ""))
    assert told == dict.fromkeys(BAD.values(), COUNT // len(BAD))
