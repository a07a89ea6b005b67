"""What chance decides about a run, and what it can't."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.chaos_faults import FAULTS
from tests.chaos.schedule import KINDS, Fault, kinds_for, make_schedule


def schedule(seed: int, duration_s: float = 600.0) -> list[Fault]:
    return make_schedule(seed, KINDS, duration_s=duration_s, interval_s=4.0, session_timeout_s=2.0)


def test_a_seed_repeats_its_faults_and_another_has_others() -> None:
    assert schedule(1) == schedule(1)
    assert schedule(1) != schedule(2)


def test_a_shorter_run_is_the_begin_of_a_longer_one() -> None:
    # Given a run, when it is made longer, then it begins as before
    short = schedule(3, 100)
    assert schedule(3, 200)[: len(short)] == short


@pytest.mark.parametrize("seed", range(20))
def test_each_kind_comes_before_any_comes_twice(seed: int) -> None:
    first = [fault.kind for fault in schedule(seed)][: len(KINDS)]
    assert Counter(first) == Counter(kind.name for kind in KINDS)


def test_faults_come_in_order_within_the_run_and_at_the_rate_asked_for() -> None:
    # Given ten minutes with a fault every four seconds
    times = [fault.at_s for fault in schedule(4)]

    # Then they are 150, more or less, in order
    assert times == sorted(times)
    assert times[-1] < 600
    assert 120 <= len(times) <= 180


def test_half_of_the_faults_are_kills() -> None:
    # Given a long run, then about as many are kills as the weights say
    is_kill = {kind.name: kind.is_kill for kind in KINDS}
    faults = schedule(5, 4_000)
    share = sum(is_kill[fault.kind] for fault in faults) / len(faults)
    assert share == pytest.approx(
        sum(kind.weight for kind in KINDS if kind.is_kill) / sum(kind.weight for kind in KINDS),
        abs=0.05,
    )
    assert share > 0.5


def test_a_pause_outlives_the_session_and_other_faults_last_as_long_as_they_may() -> None:
    limits = {kind.name: kind.lasts_s for kind in KINDS}
    for fault in schedule(6, 4_000):
        if fault.kind == "worker-pause":
            assert fault.lasts_s > 2.0
        else:
            least, most = limits[fault.kind]
            assert least <= fault.lasts_s <= most


def test_each_kind_can_be_done_and_a_cluster_has_no_kind_for_one_node() -> None:
    assert FAULTS.keys() == {kind.name for kind in KINDS}
    assert {"kafka-kill", "redis-kill", "worker-kill"} <= {
        kind.name for kind in kinds_for(is_cluster=True)
    }
    assert not [kind for kind in kinds_for(is_cluster=True) if kind.needs_one_node]
