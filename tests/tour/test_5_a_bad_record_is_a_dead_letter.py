"""5. A record that can't be used becomes a dead letter, and its neighbours are not disturbed.

It goes to the dead-letter topic in the same transaction as the predictions of its batch.
"""

from tests.support.world import World


def test_a_bad_record_is_put_aside_with_its_reason():
    # Given a record that is not JSON, between two good events of the same key
    world = World(partitions=1)
    world.publish("a", {"x": [1, 2]})
    world.publish("a", b"what is this?")
    world.publish("a", {"x": [3, 4]})

    # When all three come in one batch
    world.run_to_end()

    # Then the bad one is kept unchanged, with the reason and its source
    (letter,) = world.broker.records("events.dead-letter")
    assert (letter.key(), letter.value()) == (b"a", b"what is this?")
    assert dict(letter.headers())["dead-letter-reason"] == b"not-json"
    assert dict(letter.headers())["source"] == b"events/0/1"

    # And the good ones are timesteps 0 and 1 of their key
    predictions = world.broker.records("predictions")
    assert [dict(one.headers())["timestep"] for one in predictions] == [b"0", b"1"]
    world.assert_truth()
