"""A thousand seeds of the simulator, most new with each commit, and the proof that it can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch

from tests.simulation.ablations import ABLATIONS, ablated
from tests.simulation.coverage import missing
from tests.simulation.editions import EDITION, draw_plan
from tests.simulation.seeds import FAILED, FIXED, derived_seeds, repeat_line
from tests.simulation.shrink import shrink, size
from tests.simulation.simulated_faults import KINDS
from tests.simulation.simulation import simulate

#: Seeds of one test, so that a failure is named early.
BLOCK = 100

FIRST_FIXED = range(FIXED.start, FIXED.stop, BLOCK)
DERIVED = derived_seeds()


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Step small nets as the worker does on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def hits():
    """What has struck in the blocks of fixed seeds that have run, and which these are."""
    return {"blocks": set(), "faults": Counter()}


def run(seed, edition=EDITION):
    """Run a seed: no checker may find anything."""
    outcome = simulate(draw_plan(seed, edition))
    assert outcome.failure is None, f"{repeat_line(seed, edition)}: {outcome.failure}"
    return outcome


@pytest.mark.parametrize("first", FIRST_FIXED)
def test_no_fault_makes_a_check_fail(first, hits):
    for seed in range(first, first + BLOCK):
        hits["faults"] += run(seed).hits
    hits["blocks"].add(first)


@pytest.mark.parametrize("number", range(len(DERIVED) // BLOCK))
def test_seeds_that_no_earlier_commit_has_run_pass(number):
    for seed in DERIVED[number * BLOCK : (number + 1) * BLOCK]:
        run(seed)


@pytest.mark.parametrize("failed", FAILED, ids=lambda one: f"{one.edition}/{one.seed}")
def test_seeds_that_failed_once_pass(failed):
    run(failed.seed, failed.edition)


def test_each_fault_has_struck_wherever_it_can_and_each_story_has_run(hits):
    if hits["blocks"] != set(FIRST_FIXED):
        pytest.skip("not all fixed seeds have run")
    assert missing(hits["faults"]) == []


def test_other_commits_run_other_seeds_and_the_same_commit_the_same():
    assert derived_seeds("one") == derived_seeds("one")
    assert not set(derived_seeds("one")) & set(derived_seeds("another"))
    assert not set(derived_seeds()) & {*FIXED, *(one.seed for one in FAILED)}


@pytest.mark.parametrize("name", ABLATIONS)
def test_each_mechanism_is_missed_when_it_is_removed(name):
    # Given an engine, a log or a store without one of their pieces
    found, one = None, ABLATIONS[name]
    # When it runs, the seed first that is known to show it, then all others
    for seed in (one.seed, *FIXED):
        outcome = simulate(draw_plan(seed, one.edition), ablated(name))
        if outcome.failure is not None:
            found = outcome
            break
    # Then a checker finds it, by what is in log and store
    assert found is not None
    assert found.check != "defect", found.failure


def test_a_seed_repeats_the_same_run_in_another_process():
    # Given a seed with faults of the newest kind, and another hash seed of Python
    newest = {name for name, kind in KINDS.items() if kind.edition == EDITION}
    seed = next(s for s in FIXED if newest & {kind for kind, _, _ in simulate(draw_plan(s)).hits})
    code = (
        "import json\n"
        "from tests.simulation.editions import draw_plan\n"
        "from tests.simulation.simulation import simulate\n"
        f"print(json.dumps(simulate(draw_plan({seed})).story))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    # Then what happens is the same, word for word
    story = simulate(draw_plan(seed)).story
    assert json.loads(done.stdout) == [list(line) for line in story]


def test_shrinking_leaves_a_short_story_that_still_fails():
    # Given a seed that fails without the generation fence
    name = "no-generation-fence"
    plan = draw_plan(ABLATIONS[name].seed, ABLATIONS[name].edition)
    outcome = simulate(plan, ablated(name))
    assert outcome.failure is not None

    def is_failing(smaller):
        return simulate(smaller, ablated(name)).check == outcome.check

    # When it is shrunk
    small = shrink(plan, is_failing, runs_max=60)
    # Then less is left, it fails in the same way, and its story is told in the verbs
    assert size(small) < size(plan)
    again = simulate(small, ablated(name))
    assert again.check == outcome.check
    assert len(again.story) <= len(outcome.story)
    assert any("commit" in text for _, _, text in again.story)
