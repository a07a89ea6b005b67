"""step: a whole batch in one call, and what would make a state NaN is left out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from livestep import GRU, LSTM, ModelError, SequenceRules, StepModel, VanillaRNN
from livestep.pipeline.batch.marks import END
from livestep.pipeline.batch.packing import Batch
from livestep.pipeline.batch.stepping import Stepper, count_before
from livestep.pipeline.columns.keys import Keys
from livestep.pipeline.columns.log_records import records_of
from livestep.pipeline.memory.memory_broker import MemoryRecord
from tests.support.world import loaded


class Reciprocal(StepModel):
    """y = 1 / x, and the state is the sum of all y: x = 0 would make it infinite."""

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, self.input_size)

    def step(self, inputs, prev_state=None):
        outputs = 1 / inputs
        state = outputs if prev_state is None else prev_state + outputs
        return state, state


def record(offset):
    return MemoryRecord(("events", 0, offset), (b"k", b"x"))


def batch_of(key_index, inputs, first_offset=0):
    count = len(key_index)
    return Batch(
        records=records_of("events", [record(first_offset + i) for i in range(count)]),
        inputs=np.array(inputs, np.float32).reshape(count, -1 if count else 1),
        key_index=np.array(key_index, np.int64),
        marks=np.zeros(count, np.uint8),
        steps_max=np.zeros(count, np.int64),
        keys=Keys.of((0, b"%d" % key) for key in range(max(key_index, default=-1) + 1)),
        next_offsets={},
    )


def stepper_of(net):
    stepper = Stepper(loaded(net), torch.device("cpu"))
    return stepper, stepper.layout


def left_out(stepped):
    assert {reason for _, reason, _ in stepped.refusals} <= {"not-finite-step"}
    return [event for event, _, _ in stepped.refusals]


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=30),
    st.lists(st.integers(0, 30), max_size=4),
    st.sampled_from([VanillaRNN, GRU, LSTM]),
)
def test_split_anywhere_the_result_is_the_same(key_index, cuts, kind):
    # Given events of some keys
    torch.manual_seed(0)
    net = kind(2, 3, 2)
    stepper, layout = stepper_of(net)
    inputs = torch.randn(len(key_index), 2)

    # When they are stepped in batches that are cut anywhere
    states, outputs, timesteps = layout.fresh(4), [], []
    edges = sorted({0, len(key_index), *(cut for cut in cuts if cut < len(key_index))})
    for start, end in zip(edges, edges[1:], strict=False):
        batch = batch_of([*key_index[start:end]], inputs[start:end].numpy(), start)
        batch.keys = [(0, b"%d" % key) for key in range(4)]
        stepped = stepper.step(batch, states)
        states = stepped.states
        outputs += stepped.answers.outputs.tolist()
        timesteps += stepped.answers.timesteps.tolist()

    # Then each key's outputs are those of its unroll, and its timesteps count from 0
    for key in range(4):
        events = [i for i, one in enumerate(key_index) if one == key]
        assert states.timesteps[key] == len(events)
        assert states.offsets[key] == max(events, default=-1)
        if events:
            truth = loaded(net).unroll_rows(inputs[events].numpy())
            assert np.array_equal(np.float32([outputs[i] for i in events]), truth)
            assert [timesteps[i] for i in events] == list(range(len(events)))


def test_states_that_come_in_are_not_written_to():
    stepper, layout = stepper_of(GRU(1, 3, 1))
    states = layout.fresh(1)
    stepper.step(batch_of([0, 0], [1, 2]), states)
    assert states.offsets.tolist() == [-1]
    assert states.timesteps.tolist() == [0]
    assert not states.tensors[0].any()


def test_answers_to_sequences_stand_in_the_order_of_the_events_that_end_them():
    # Given two keys whose sequences end in turn
    rules = SequenceRules("many-to-one")
    stepper = Stepper(loaded(Reciprocal(1, 1), rules=rules), torch.device("cpu"))
    batch = batch_of([0, 1, 1, 0], [1, 2, 4, 8])
    batch.marks[:] = END

    # When they are stepped, then the answers come as the ends do
    answers = stepper.step(batch, stepper.layout.fresh(2)).answers
    assert answers.event.tolist() == [0, 1, 2, 3]
    assert answers.outputs.ravel().tolist() == [1, 0.5, 0.25, 0.125]


class Growing(StepModel):
    """Its state, or its output, becomes one column wider."""

    def __init__(self, what):
        super().__init__(1, 1)
        self.what, self.is_grown = what, False

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 1)

    def step(self, inputs, prev_state=None):
        widths = {"state": 1, "output": 1, self.what: 1 + self.is_grown}
        outputs, state = (torch.zeros(len(inputs), widths[name]) for name in ("output", "state"))
        return outputs, state


@pytest.mark.parametrize("rounding", ["exact", "free"])
@pytest.mark.parametrize(
    ("what", "text"), [("state", "changed the state's shape"), ("output", "the wrong width")]
)
def test_a_model_that_changes_its_shapes_is_refused_when_it_does(what, text, rounding):
    net = Growing(what)
    stepper = Stepper(loaded(net), torch.device("cpu"), rounding)
    stepper.step(batch_of([0], [1]), stepper.layout.fresh(1))
    net.is_grown = True
    with pytest.raises(ModelError, match=text):
        stepper.step(batch_of([0], [1]), stepper.layout.fresh(1))


def test_a_batch_without_events_leaves_the_states():
    stepper, layout = stepper_of(GRU(1, 3, 2))
    stepped = stepper.step(batch_of([], []), layout.fresh(0))
    assert stepped.answers.outputs.shape == (0, 2)
    assert len(stepped.states) == len(stepped.answers.event) == len(stepped.refusals) == 0


def test_an_event_that_would_poison_its_key_is_left_out_and_its_neighbours_are_unharmed():
    # Given a zero among each key's events: first, in the middle, last, and twice
    stepper, layout = stepper_of(Reciprocal(1, 1))
    key_index = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]
    inputs = [0, 1, 1, 0, 2, 0, 2, 0, 4, 4, 0, 8]
    stepped = stepper.step(batch_of(key_index, inputs), layout.fresh(4))

    # Then only the zeros are left out
    assert left_out(stepped) == [i for i, x in enumerate(inputs) if x == 0]
    assert stepped.answers.event.tolist() == [i for i, x in enumerate(inputs) if x != 0]
    assert stepped.answers.outputs.ravel().tolist() == [1, 1, 0.5, 1.5, 0.75, 1.25, 0.125]
    assert stepped.states.tensors[0].ravel().tolist() == [0.75, 1.25, 1.5, 0.125]
    # They count as seen, and not as timesteps
    assert stepped.states.offsets.tolist() == [8, 9, 10, 11]
    assert stepped.states.timesteps.tolist() == [2, 2, 2, 1]
    assert stepped.answers.timesteps.tolist() == [0, 0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize("cut", range(1, 6))
def test_what_is_left_out_does_not_depend_on_the_batches(cut):
    stepper, layout = stepper_of(Reciprocal(1, 1))
    key_index, inputs = [0, 1, 0, 0, 1, 0], [1, 0, 0, 2, 1, 4]
    whole = stepper.step(batch_of(key_index, inputs), layout.fresh(2))
    head_batch = batch_of(key_index[:cut], inputs[:cut])
    tail_batch = batch_of(key_index[cut:], inputs[cut:], cut)
    head_batch.keys = tail_batch.keys = [(0, b"0"), (0, b"1")]
    head = stepper.step(head_batch, layout.fresh(2))
    tail = stepper.step(tail_batch, head.states)
    assert [*left_out(head), *(cut + event for event in left_out(tail))] == left_out(whole)
    timesteps = [*head.answers.timesteps, *tail.answers.timesteps]
    assert timesteps == whole.answers.timesteps.tolist()
    assert torch.equal(tail.states.tensors[0], whole.states.tensors[0])
    assert tail.states.timesteps.tolist() == whole.states.timesteps.tolist()


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40))
def test_events_of_a_key_are_counted_up_to_each_event(events):
    key_index = np.array([key for key, _ in events], np.int64)
    is_counted = np.array([counted for _, counted in events], bool)
    expected = [
        sum(counted for other, counted in events[:i] if other == key)
        for i, (key, _) in enumerate(events)
    ]
    assert count_before(key_index, is_counted).tolist() == expected
