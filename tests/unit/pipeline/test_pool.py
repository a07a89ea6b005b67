"""The pool: states of live keys, and only of what is saved may one be given away."""

import numpy as np

from livestep.pipeline.columns.keys import Keys
from livestep.pipeline.state.pool import Pool
from tests.support.states import LAYOUT, states


def keys(text, partition=0):
    return Keys.of((partition, letter.encode()) for letter in text)


def write(pool, text, *values, ticket=1, saved=1, partition=0):
    return pool.write(keys(text, partition), states(*values), ticket=ticket, saved_ticket=saved)


def present(pool, text="abcdefg", partition=0):
    slots = pool.find(keys(text, partition))
    return "".join(letter for letter, slot in zip(text, slots, strict=True) if slot >= 0)


def test_what_is_written_is_read_back_for_each_key():
    pool = Pool(LAYOUT, 4)
    assert write(pool, "abc", 1, 2, 3) == 0
    write(pool, "b", 7)
    found = pool.read(pool.find(keys("cab")))
    assert found.offsets.tolist() == [3, 1, 7]
    assert found.timesteps.tolist() == [30, 10, 70]
    assert [float(row.max()) for row in found.tensors[0]] == [3, 1, 7]
    assert len(pool) == 3


def test_equal_keys_of_two_partitions_are_different_keys():
    pool = Pool(LAYOUT, 4)
    write(pool, "a", 1)
    write(pool, "a", 2, partition=1)
    assert pool.read(pool.find(Keys.of([(0, b"a"), (1, b"a")]))).offsets.tolist() == [1, 2]


def test_the_least_recently_used_key_is_given_away_first():
    # Given a full pool in which b was used longest ago
    pool = Pool(LAYOUT, 3)
    for text, value in (("a", 1), ("b", 2), ("c", 3), ("a", 4)):
        write(pool, text, value)
    # When a new key comes, then b goes
    assert write(pool, "d", 5) == 0
    assert present(pool) == "acd"
    assert pool.read(pool.find(keys("acd"))).offsets.tolist() == [4, 3, 5]


def test_a_slot_that_is_not_saved_is_never_given_away():
    # Given a full pool, of which only the save with ticket 1 is done
    pool = Pool(LAYOUT, 3)
    write(pool, "a", 1, ticket=1, saved=0)
    write(pool, "b", 2, ticket=2, saved=0)
    write(pool, "c", 3, ticket=3, saved=0)
    # When two new keys come, then there is no room and nothing is written
    assert write(pool, "de", 8, 9, ticket=4, saved=1) > 0
    assert present(pool) == "abc"
    assert pool.read(pool.find(keys("abc"))).offsets.tolist() == [1, 2, 3]
    # Until the next save is done
    assert write(pool, "de", 8, 9, ticket=4, saved=2) == 0
    assert present(pool) == "cde"


def test_a_saved_slot_that_is_written_again_waits_for_its_new_save():
    pool = Pool(LAYOUT, 2)
    write(pool, "ab", 1, 2, ticket=1, saved=1)
    write(pool, "a", 3, ticket=2, saved=1)
    write(pool, "b", 3, ticket=3, saved=1)
    assert write(pool, "c", 4, ticket=4, saved=1) == 1
    assert write(pool, "c", 4, ticket=4, saved=2) == 0
    assert present(pool) == "bc"


def test_a_batch_never_gives_away_the_slots_of_its_own_keys():
    pool = Pool(LAYOUT, 3)
    for text, value in (("a", 1), ("b", 2), ("c", 3)):
        write(pool, text, value)
    assert write(pool, "ad", 5, 6) == 0
    assert present(pool) == "acd"


def test_forgetting_a_partition_frees_its_slots_saved_or_not():
    pool = Pool(LAYOUT, 4)
    write(pool, "ab", 1, 2, ticket=9, saved=0)
    write(pool, "a", 3, ticket=9, saved=9, partition=1)
    pool.forget(0)
    pool.forget(5)
    assert (present(pool), present(pool, partition=1), len(pool)) == ("", "a", 1)
    # The free slots can all be used again.
    assert write(pool, "bcd", 4, 5, 6, ticket=10, saved=0, partition=1) == 0
    assert len(pool) == 4


def test_reading_returns_a_copy():
    pool = Pool(LAYOUT, 2)
    write(pool, "a", 1)
    found = pool.read(pool.find(keys("a")))
    found.tensors[0].zero_()
    found.offsets[:] = 99
    again = pool.read(pool.find(keys("a")))
    assert (float(again.tensors[0].max()), again.offsets.tolist()) == (1, [1])


def test_a_pool_under_random_use_holds_what_a_dictionary_holds():
    rng = np.random.default_rng(0)
    pool, truth = Pool(LAYOUT, 40), {}
    for ticket in range(1, 300):
        chosen = [b"%d" % n for n in rng.choice(100, rng.integers(1, 20), replace=False)]
        values = rng.integers(0, 1000, len(chosen)).tolist()
        batch = Keys.of((0, key) for key in chosen)
        missing = pool.write(batch, states(*values), ticket=ticket, saved_ticket=ticket - 1)
        assert missing == 0
        truth.update(zip(chosen, values, strict=True))
        everyone = Keys.of((0, key) for key in truth)
        slots = pool.find(everyone)
        assert (pool.find(batch) >= 0).all()
        here = [i for i, slot in enumerate(slots) if slot >= 0]
        assert len(set(slots[here])) == len(here) == len(pool) <= 40
        found = pool.read(slots[here]).offsets.tolist()
        assert found == [truth[everyone[i][1]] for i in here]
