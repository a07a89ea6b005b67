"""Steps in blocks: a row's result is equal bit for bit, whatever else is in its batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from livestep import (
    GRU,
    LSTM,
    Category,
    EncoderDecoder,
    FedBack,
    Feedback,
    FullyConnected,
    Glimpses,
    ModelError,
    Number,
    StepModel,
    VanillaRNN,
)
from livestep.models.checks.packed_sequences import pack, unpack
from livestep.models.contract import State, like_state, state_tensors
from livestep.models.fields.encoding import activate
from livestep.models.sequences.block_sizes import BlockSizes
from livestep.models.sequences.blocks import (
    BLOCK_ROWS,
    BlockStepper,
    block_sizes,
    block_stepper,
)

LETTERS = Category("letter", ("a", "b", "c", "d"))
LAST = Category("last", ("a", "b", "c", "d"), optional=True)

#: Widths that fill the vectors of a CPU, and widths that don't.
NETS = {
    "GRU": lambda: GRU(12, 64, 9),
    "GRU, two layers": lambda: GRU(3, 16, 2, num_layers=2),
    "GRU, odd": lambda: GRU(5, 33, 3),
    "VanillaRNN, odd": lambda: VanillaRNN(3, 7, 2),
    "LSTM": lambda: LSTM(4, 32, 5),
    "LSTM, odd": lambda: LSTM(1, 50, 9),
    "EncoderDecoder": lambda: EncoderDecoder(3, 5, 10, 4),
    "FullyConnected": lambda: FullyConnected(9, 7, 3),
    "Glimpses": lambda: Glimpses(8, 8, 14, 10),
}


class BatchSized(StepModel):
    """Its outputs depend on the number of rows of a call, as a kernel's rounding may."""

    def initial_state(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, self.input_size)

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        state = self.initial_state(len(inputs)) if prev_state is None else prev_state
        following = state_tensors(state)[0] + inputs
        return following + 1e-3 * len(inputs), following


class PackedOtherwise(GRU):
    """Its own `step_packed` rounds in another way than its steps."""

    def step_packed(
        self, sequence: PackedSequence, prev_state: State | None = None
    ) -> tuple[Tensor, State]:
        outputs, state = super().step_packed(sequence, prev_state)
        return outputs * (1 + 2**-22), state


class Choosy(BatchSized):
    """Refuses most inputs."""

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        if (inputs < 0).any():
            raise ModelError("a negative input")
        return super().step(inputs, prev_state)


def numbers(net: StepModel) -> list[Number]:
    return [Number("x", net.input_size)]


def random_states(stepper: StepModel, inputs: Tensor) -> State:
    """Return states that are not zeros, after one step of each key."""
    return stepper.step(inputs)[1]


def some(state: State, rows: list[int]) -> State:
    return like_state([tensor[rows] for tensor in state_tensors(state)], state)


def assert_equal(left: State, right: State) -> None:
    pairs = zip(state_tensors(left), state_tensors(right), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@torch.inference_mode()
def assert_rows_are_independent(stepper: BlockStepper, inputs: Tensor) -> None:
    """Step rows together, in another order, in parts, and alone."""
    state = random_states(stepper, inputs)
    outputs, following = stepper.step(inputs, state)
    count = len(inputs)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1)).tolist()
    for rows in (order, order[: count // 2], order[:33], *([row] for row in order[:20])):
        y, own = stepper.step(inputs[rows], some(state, rows))
        assert torch.equal(y, outputs[rows])
        assert_equal(own, some(following, rows))


@pytest.mark.parametrize("name", NETS)
def test_a_rows_result_is_equal_bit_for_bit_in_any_batch(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name]().eval()
    stepper = block_stepper(net, numbers(net))
    inputs = torch.randn(700, net.input_size)
    if name == "EncoderDecoder":
        inputs[::3, :3] = 0  # these rows write, the others read
    assert_rows_are_independent(stepper, inputs)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_feedback_and_drawn_labels_are_equal_bit_for_bit_in_any_batch(temperature: float) -> None:
    # Given a net that is fed with its own label, absent in most rows
    torch.manual_seed(0)
    fields = [Number("x", 3), LAST]
    links = [Feedback("letter", "last", temperature)]
    net = FedBack(GRU(7, 13, 4), fields, [LETTERS], links).eval()
    inputs = torch.randn(300, net.input_size)
    inputs[:, 3:7] = torch.nan
    inputs[::5, 3:7] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    inputs[:, 7:] = torch.rand(300, net.input_size - 7)
    assert_rows_are_independent(block_stepper(net, fields), inputs)


@pytest.mark.parametrize("name", NETS)
@torch.inference_mode()
def test_a_ragged_batch_equals_each_of_its_sequences_alone(name: str) -> None:
    torch.manual_seed(1)
    net = NETS[name]().eval()
    stepper = block_stepper(net, numbers(net))
    lengths = torch.randint(1, 9, (400,)).tolist()
    sequences = [torch.randn(length, net.input_size) for length in lengths]
    state = random_states(stepper, torch.randn(400, net.input_size))
    packed, order = pack(sequences)
    outputs, following = stepper.step_packed(packed, some(state, order))
    rows = unpack(outputs, packed.batch_sizes, order)
    for key in range(0, 400, 23):
        alone, end = stepper.step_packed(pack([sequences[key]])[0], some(state, [key]))
        assert torch.equal(rows[key], alone)
        assert_equal(some(following, [order.index(key)]), end)
    # And the states are those of the net itself, but for the rounding.
    _, slow = net.step_packed_by_rank(packed, some(state, order))
    for one, other in zip(state_tensors(following), state_tensors(slow), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", NETS)
@torch.inference_mode()
def test_long_sequences_of_few_keys_equal_their_single_steps(name: str) -> None:
    # Given sequences of which many timesteps can be stepped by one call
    torch.manual_seed(2)
    net = NETS[name]().eval()
    stepper = block_stepper(net, numbers(net))
    sequences = [torch.randn(length, net.input_size) for length in (100, 71, 33, 16, 15, 1)]
    packed, order = pack(sequences)
    outputs, following = stepper.step_packed(packed)
    # Then each is what one step after the other returns
    for key, together in enumerate(unpack(outputs, packed.batch_sizes, order)):
        state = None
        for timestep, inputs in enumerate(sequences[key]):
            y, state = stepper.step(inputs.unsqueeze(0), state)
            assert torch.equal(together[timestep], y[0])
        assert state is not None
        assert_equal(some(following, [key]), state)


@torch.inference_mode()
def test_a_step_packed_with_other_results_is_not_used() -> None:
    net = PackedOtherwise(2, 4, 1).eval()
    assert not block_sizes(net, numbers(net)).fused_rows
    stepper, rows = block_stepper(net, numbers(net)), torch.randn(40, 2)
    slow, _ = net.step_packed_by_rank(pack([rows])[0])
    torch.testing.assert_close(stepper.step_packed(pack([rows])[0])[0], slow, rtol=0, atol=1e-7)


@torch.inference_mode()
def test_rows_at_any_address_have_equal_results() -> None:
    torch.manual_seed(0)
    net = GRU(5, 14, 3).eval()
    stepper = block_stepper(net, numbers(net))
    inputs = torch.randn(64, 5)
    expected, _ = stepper.step(inputs)
    for shift in (1, 2, 3, 5, 8):
        shifted = torch.zeros(64 * 5 + shift)[shift:].reshape(64, 5)
        shifted.copy_(inputs)
        assert torch.equal(stepper.step(shifted)[0], expected)


@torch.inference_mode()
def test_a_size_with_other_results_is_not_used() -> None:
    # Given a net whose results depend on the number of rows
    net = BatchSized(2, 2).eval()
    # Then it is only called with blocks of one size
    assert block_sizes(net, numbers(net)).rows == (BLOCK_ROWS,)
    stepper = block_stepper(net, numbers(net))
    assert stepper.step(torch.zeros(3, 2))[0].unique().tolist() == [
        pytest.approx(1e-3 * BLOCK_ROWS)
    ]
    assert_rows_are_independent(stepper, torch.randn(300, 2))


def test_a_net_that_refuses_random_numbers_has_blocks_too() -> None:
    net = Choosy(1, 1).eval()
    assert block_sizes(net, numbers(net)).rows == (BLOCK_ROWS,)
    assert block_stepper(net, numbers(net)).step(torch.ones(3, 1))[0].shape == (3, 1)


@given(
    st.dictionaries(
        st.sampled_from([24, 32, 33, 100, 128, 500, 512]), st.floats(1e-6, 1.0), min_size=1
    ),
    st.integers(1, 3000),
)
def test_blocks_hold_all_rows_and_only_the_last_is_padded(
    seconds_by_rows: dict[int, float], count: int
) -> None:
    blocks = BlockSizes(seconds_by_rows).cut(count)
    assert set(blocks) <= set(seconds_by_rows)
    assert sum(blocks[:-1]) < count <= sum(blocks)


@pytest.mark.parametrize("width", [1, 2, 5, 8, 9, 31])
def test_probabilities_of_a_row_are_equal_bit_for_bit_in_any_batch(width: int) -> None:
    fields = [Number("x", 2), Category("kind", tuple(f"v{i}" for i in range(width)))]
    outputs = np.random.default_rng(0).normal(size=(500, 2 + width)).astype(np.float32) * 5
    activated = activate(fields, outputs)
    for row in range(0, 500, 7):
        assert (activate(fields, outputs[row : row + 1])[0] == activated[row]).all()
    assert (activate(fields, np.asfortranarray(outputs)) == activated).all()
    assert (activate(fields, outputs[::-3]) == activated[::-3]).all()
