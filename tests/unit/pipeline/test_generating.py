"""Generated sequences: together as one after another, one model call a step."""

import numpy as np
import pytest
import torch

from livestep import GRU, Category, Feedback, Generation, SequenceRules, StepModel
from livestep.models.contract import state_tensors
from livestep.models.sequences.feedback import FedBack, key_seed
from livestep.models.sequences.generation import generate
from livestep.pipeline.batch.generating import AT_BOUND, GOES_ON, STOPPED, Generator, Openings
from tests.support.world import loaded

CPU = torch.device("cpu")
LETTERS = ("a", "b", "c", ".")
FIELDS = (Category("letter", LETTERS, optional=True),)


class Counting(StepModel):
    """Its state counts steps; it says "." at the count that its start was given, or NaN."""

    def __init__(self):
        super().__init__(4, 4)
        self.calls = []

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 1)

    def step(self, inputs, prev_state=None):
        state = self.initial_state(len(inputs)) if prev_state is None else prev_state
        self.calls.append(len(inputs))
        state = state - 1
        outputs = torch.zeros(len(inputs), 4)
        outputs[:, 3] = torch.where(state[:, 0] == 0, 1.0, -1.0)
        return torch.where(state == -100, torch.nan, outputs), state


def model_of(net, *, steps_max=6, temperature=0.0, with_stop=True):
    stop = ("letter", ".") if with_stop else (None, None)
    rules = SequenceRules(
        "encode-decode",
        feedback=(Feedback("letter", "letter", temperature),),
        generation=Generation(steps_max, *stop),
    )
    return loaded(net, inputs=FIELDS, outputs=FIELDS, rules=rules)


def generator_of(model, rounding="exact"):
    rules = model.rules
    net = FedBack(model.net, FIELDS, FIELDS, rules.feedback).eval()
    return Generator(model, net, CPU, rounding)


def openings(tensors, steps_max, keys=()):
    count = len(steps_max)
    seeds = np.array([key_seed(key) for key in keys], np.uint64)
    return Openings(tensors, seeds, np.arange(count), np.array(steps_max))


def run(net, starts, steps_max, rounding="exact"):
    states = (torch.tensor(starts, dtype=torch.float32).reshape(-1, 1),)
    generator = generator_of(model_of(net), rounding)
    net.calls.clear()  # those that have chosen its blocks
    with torch.inference_mode():
        return generator.generate(openings(states, steps_max))


def test_each_sequence_ends_with_its_end_value_or_at_its_own_bound():
    # Given sequences that stop at their third, first and ninth step, with bounds of 6, 6, 2 and 3
    found = run(Counting(), [3, 1, 9, 3], [6, 6, 2, 3])

    # Then each has its own steps, in order, and only the last says how it ended
    assert found.opening.tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 3]
    assert found.step.tolist() == [0, 1, 2, 0, 0, 1, 0, 1, 2]
    on = GOES_ON
    # The last of the fourth stops at its bound: it has stopped by itself.
    ends = [on, on, STOPPED, STOPPED, on, AT_BOUND, on, on, STOPPED]
    assert found.finish.tolist() == ends
    assert found.is_finite.all()


def test_all_advance_together_one_call_a_step_and_the_ended_are_left_out():
    net = Counting()
    run(net, [3, 1, 9, 3], [6, 6, 2, 3], rounding="free")
    assert net.calls == [4, 3, 2]
    run(net, [3, 1, 9, 3], [6, 6, 2, 3])
    assert len(net.calls) == 3


def test_a_sequence_that_becomes_nan_has_no_records_and_its_neighbours_are_unharmed():
    found = run(Counting(), [2, -98, 2], [6, 6, 6])
    assert found.is_finite.tolist() == [True, False, True]
    assert found.opening.tolist() == [0, 0, 2, 2]
    assert np.isfinite(found.outputs).all()


def test_nothing_to_generate_returns_nothing():
    found = run(Counting(), [], [])
    assert (len(found.step), found.outputs.shape) == (0, (0, 4))


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("with_stop", [True, False])
def test_generating_together_equals_one_after_another(temperature, with_stop):
    # Given a lively net and the states of some sequences
    torch.manual_seed(1)
    net = GRU(4, 8, 4)
    with torch.no_grad():
        for weights in net.parameters():
            weights.mul_(3)
    model = model_of(net, steps_max=9, temperature=temperature, with_stop=with_stop)
    count = 40
    keys = [b"key-%d" % i for i in range(count)]
    bounds = [1 + i % 9 for i in range(count)]
    states = torch.randn(count, 1, 8)

    # When all are generated together
    with torch.inference_mode():
        found = generator_of(model).generate(openings((states,), bounds, keys))

    # Then each is what the plain loop says of it
    for i in range(count):
        truth = generate(
            net, model.rules, FIELDS, FIELDS, states[i : i + 1],
            steps_max=bounds[i], key=keys[i], offset=i,
        )  # fmt: skip
        mine = found.opening == i
        assert np.array_equal(found.outputs[mine, :4], truth.values)
        assert np.array_equal(found.outputs[mine, 4:].astype(int), truth.chosen)
        ends = {"stop": STOPPED, "steps-max": AT_BOUND}
        assert found.finish[mine][-1] == ends[truth.finish]
    lengths = np.bincount(found.opening)
    assert (lengths < bounds).any() == with_stop


def test_the_states_that_come_in_are_not_written_to():
    net = Counting()
    states = (torch.tensor([[3.0]]),)
    with torch.inference_mode():
        generator_of(model_of(net)).generate(openings(states, [6]))
    assert state_tensors(states)[0].tolist() == [[3.0]]
