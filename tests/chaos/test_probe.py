"""How long there was no prediction, and which fault is to blame."""

from __future__ import annotations

from tests.chaos.probe import Arrivals, Recovery, Silence


def arrivals_at(*times_s: float, partition: int = 0) -> Arrivals:
    arrivals = Arrivals()
    for now_s in times_s:
        arrivals.note(now_s, {partition: 5})
    return arrivals


def test_short_pauses_between_transactions_do_not_count_as_silence() -> None:
    arrivals = arrivals_at(1.0, 1.4, 1.8, 2.2)
    assert (arrivals.count, arrivals.silences, arrivals.longest_silence_s) == (20, [], 0.0)


def test_a_kill_is_answered_for_by_the_silence_after_it() -> None:
    # Given predictions that stop at 2 s and come again at 6.5 s, and a kill at 2.5 s
    arrivals = arrivals_at(1.2, 1.6, 2.0, 6.5, 6.7)

    # Then the silence counts from the kill on
    assert arrivals.silences == [Silence(0, 2.0, 6.5)]
    assert arrivals.longest_silence_s == 4.5
    assert arrivals.recoveries([0], 2.5, 2.5) == [Recovery(4.0, 4.0)]


def test_a_fault_that_lasts_has_a_recovery_after_its_end() -> None:
    # Given a fault from 2 s to 5 s whose silence begins later, as memory still holds states
    arrivals = arrivals_at(2.0, 2.4, 2.8, 5.5)

    # Then the silence counts from its own begin, and what is left of it after the end
    assert arrivals.recoveries([0], 2.0, 5.0) == [Recovery(2.7, 0.5)]


def test_a_fault_that_nobody_felt_has_none() -> None:
    arrivals = arrivals_at(1.0, 1.3, 1.6, 1.9, 2.2, 8.0)

    # Given a silence that begins long after a fault, or has ended before it, then it is not its
    assert arrivals.recoveries([0], 0.2, 0.3) == [Recovery(0.0, 0.0)]
    assert arrivals.recoveries([0], 8.0, 8.5) == [Recovery(0.0, 0.0)]


def test_each_partition_has_its_own_silence() -> None:
    # Given two partitions, one of them silent from 1 s to 4 s
    arrivals = Arrivals()
    for tenth in range(10, 50):
        arrivals.note(tenth / 10, {0: 1} if 10 < tenth < 40 else {0: 1, 1: 1})

    # Then only that one has something to recover from
    assert arrivals.partitions == [0, 1]
    assert arrivals.recoveries([0, 1], 1.5, 1.5) == [Recovery(0.0, 0.0), Recovery(2.5, 2.5)]


def test_a_partition_that_is_silent_to_the_end_is_noticed() -> None:
    # Given a partition without predictions at the end of the run
    arrivals = arrivals_at(1.0)

    # When the books are closed, then that is a silence, and no prediction
    arrivals.finish(30.0)
    assert arrivals.longest_silence_s == 29.0
    assert arrivals.count == 5
