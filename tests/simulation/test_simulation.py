"""A thousand seeds of the simulator, and the proof that it can fail."""

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
from tests.simulation.plan import draw_plan
from tests.simulation.shrink import shrink, size
from tests.simulation.simulation import simulate

#: Seeds that have to run without a failure, and within which each ablation has to be found.
SEEDS = 1_000

#: Seeds of one test, so that a failure is named early.
BLOCK = 100


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Step small nets as the worker does on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def hits():
    """What has struck in the blocks that have run so far, and which these are."""
    return {"blocks": set(), "faults": Counter()}


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_nothing_is_wrong_whatever_strikes(first, hits):
    # Given workers, events and faults from a seed, when they have run to the end
    for seed in range(first, first + BLOCK):
        outcome = simulate(draw_plan(seed))
        # Then no checker has found anything
        assert outcome.failure is None, f"make simulate SEED={seed}: {outcome.failure}"
        hits["faults"] += outcome.hits
    hits["blocks"].add(first)


def test_each_fault_has_struck_wherever_it_can(hits):
    if hits["blocks"] != set(range(0, SEEDS, BLOCK)):
        pytest.skip("not all seeds have run")
    assert missing(hits["faults"]) == []


@pytest.mark.parametrize("name", ABLATIONS)
def test_what_the_promise_rests_on_is_missed_when_it_is_taken_away(name):
    # Given an engine, a log or a store without one of their pieces
    found = None
    # When it runs, the seed first that is known to show it, then all others
    for seed in (ABLATIONS[name].seed, *range(SEEDS)):
        outcome = simulate(draw_plan(seed), ablated(name))
        if outcome.failure is not None:
            found = outcome
            break
    # Then a checker finds it, by what is in log and store
    assert found is not None
    assert found.check != "defect", found.failure


def test_a_seed_gives_the_same_story_in_another_process():
    # Given a seed with faults, and another hash seed of Python
    seed = next(seed for seed in range(SEEDS) if len(draw_plan(seed).faults) > 5)
    code = (
        "import json\n"
        "from tests.simulation.plan import draw_plan\n"
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
    plan = draw_plan(ABLATIONS[name].seed)
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
