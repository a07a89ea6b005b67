"""The cells keep the contract, and compute the textbook equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from livestep import GRU, LSTM, LSTMState, StepModel, VanillaRNN, check_model
from livestep.models.checks.agreement import TOLERANCE, check_close, max_difference
from livestep.models.checks.contract_checks import check_packed_equals_unroll, check_split_anywhere
from livestep.models.checks.packed_sequences import pack
from livestep.models.checks.random_events import random_sequences, random_state
from livestep.models.contract import State, like_state, state_tensors

CELLS = {
    "VanillaRNN": lambda: VanillaRNN(3, 8, 2),
    "GRU": lambda: GRU(3, 8, 2),
    "GRU of two layers": lambda: GRU(3, 8, 2, num_layers=2),
    "LSTM": lambda: LSTM(3, 8, 2),
    "LSTM of three layers": lambda: LSTM(3, 8, 2, num_layers=3),
}


@pytest.fixture(params=CELLS)
def model(request: pytest.FixtureRequest) -> StepModel:
    torch.manual_seed(0)
    cell: StepModel = CELLS[request.param]().eval()
    return cell


class RunningSum(StepModel):
    """A user's model: two tensors of different rank as state, a plain tuple, no fused call."""

    def initial_state(self, batch_size: int) -> State:
        return torch.zeros(batch_size, self.input_size), torch.zeros(batch_size)

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        total, count = state_tensors(prev_state or self.initial_state(len(inputs)))
        return total + inputs, (total + inputs, count + 1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_cell_keeps_the_contract(model: StepModel, dtype: torch.dtype, seed: int) -> None:
    check_model(model.to(dtype), seed)


def test_a_users_model_keeps_the_contract_with_step_alone() -> None:
    check_model(RunningSum(2, 2))


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(CELLS)),
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=12),
    seed=st.integers(0, 2**31),
)
def test_any_mix_of_ragged_keys_in_one_packed_call_equals_each_key_unrolled_alone(
    name: str, lengths: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    cell = CELLS[name]()
    sequences = random_sequences(cell, lengths, generator)
    with torch.inference_mode():
        check_packed_equals_unroll(cell, sequences, random_state(cell, len(lengths), generator))


def test_a_long_sequence_can_be_split_anywhere(model: StepModel) -> None:
    generator = torch.Generator().manual_seed(1)
    sequences = random_sequences(model, [60] * 4, generator)
    with torch.inference_mode():
        check_split_anywhere(model, sequences, random_state(model, 4, generator))


def test_200_steps_stay_far_below_the_tolerance(model: StepModel) -> None:
    generator = torch.Generator().manual_seed(2)
    sequence = torch.stack(random_sequences(model, [200] * 64, generator), dim=1)
    with torch.inference_mode():
        together = model.unroll(sequence)
        alone = torch.cat([model.unroll(sequence[:, [key]]) for key in range(64)], dim=1)
    assert max_difference(together, alone) < TOLERANCE[torch.float32] / 10


def test_vanilla_rnn_computes_its_formula() -> None:
    # Given three matrices and a sequence, in plain numpy
    rnn = VanillaRNN(input_size=3, hidden_size=5, output_size=2).double()
    weights = {name: tensor.numpy() for name, tensor in rnn.state_dict().items()}
    w_xh, w_hh = weights["recurrent.weight_ih_l0"], weights["recurrent.weight_hh_l0"]
    w_hy = weights["head.weight"]
    x = np.random.default_rng(0).normal(size=(7, 3))  # (L, H_in)

    # When the formula is computed
    h = np.zeros(5)
    expected = []
    for t in range(7):
        h = np.tanh(w_hh @ h + w_xh @ x[t])
        expected.append(w_hy @ h)

    # Then unroll and step return the same
    with torch.inference_mode():
        outputs = rnn.unroll(torch.from_numpy(x).unsqueeze(1)).squeeze(1)
        state = None
        for t in range(7):
            y, state = rnn.step(torch.from_numpy(x[[t]]), state)
    np.testing.assert_allclose(outputs.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(y[0].numpy(), expected[-1], atol=1e-12)
    np.testing.assert_allclose(state.numpy(), h[None, None], atol=1e-12)  # (N, K, H)


def test_gru_and_lstm_compute_the_equations_of_torchs_cells() -> None:
    x = torch.randn(6, 4, 3)  # (L, N, H_in)
    with torch.inference_mode():
        for model, cell in (
            (GRU(3, 5, 2), torch.nn.GRUCell(3, 5)),
            (LSTM(3, 5, 2), torch.nn.LSTMCell(3, 5)),
        ):
            for name, tensor in model.recurrent.state_dict().items():
                getattr(cell, name.removesuffix("_l0")).copy_(tensor)
            state, expected = None, None
            for inputs in x:
                y, state = model.step(inputs, state)
                expected = cell(inputs, expected)
            hidden = expected[0] if isinstance(expected, tuple) else expected
            check_close(y, model.head(hidden), "a cell and torch's")


def test_the_state_of_an_lstm_has_names_and_keeps_them() -> None:
    lstm = LSTM(3, 4, 2, num_layers=2)
    packed, _ = pack([torch.zeros(2, 3), torch.zeros(1, 3)])
    for state in (
        lstm.initial_state(2),
        lstm.step(torch.zeros(2, 3))[1],
        lstm.step_packed(packed)[1],
        lstm.step_packed_by_rank(packed)[1],
    ):
        assert isinstance(state, LSTMState)
        assert state.hidden.shape == state.cell.shape == (2, 2, 4)  # (N, K, H)


def test_an_lstm_also_accepts_its_state_as_a_plain_tuple() -> None:
    lstm = LSTM(3, 4, 2)
    inputs = torch.randn(2, 3)
    _, state = lstm.step(inputs)
    check_close(lstm.step(inputs, tuple(state))[0], lstm.step(inputs, state)[0], "two kinds")


def test_axis_0_of_every_state_is_the_key_and_a_row_is_contiguous(model: StepModel) -> None:
    packed, _ = pack([torch.zeros(2, 3), torch.zeros(1, 3), torch.zeros(1, 3)])
    for state in (model.initial_state(3), model.step_packed(packed)[1]):
        for tensor in state_tensors(state):
            assert tensor.shape[0] == 3
            assert tensor.is_contiguous()


def test_rows_of_a_packed_state_keep_packed_order_regardless_of_sorted_indices(
    model: StepModel,
) -> None:
    # Given a packed sequence that remembers how its keys were sorted
    sequences = [torch.randn(1, 3), torch.randn(4, 3), torch.randn(2, 3)]
    remembers = pack_sequence(sequences, enforce_sorted=False)
    forgets = PackedSequence(remembers.data, remembers.batch_sizes)
    prev_state = random_state(model, 3, torch.Generator().manual_seed(0))

    # When both are stepped from the same states, then the results are the same
    outputs, state = model.step_packed(remembers, prev_state)
    expected_outputs, expected_state = model.step_packed(forgets, prev_state)
    check_close(outputs, expected_outputs, "outputs")
    check_close(state, expected_state, "states")


def test_a_finished_key_keeps_its_state_while_others_continue(model: StepModel) -> None:
    short, long = torch.randn(1, 3), torch.randn(9, 3)
    packed, order = pack([short, long])
    _, state = model.step_packed(packed)
    _, expected = model.step(short)
    row = order.index(0)
    for tensor, expected_tensor in zip(state_tensors(state), state_tensors(expected), strict=True):
        check_close(tensor[[row]], expected_tensor, "the short key")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.step(torch.zeros(2, 4)), r"\(N, 3\), not \(2, 4\)"),
        (lambda m: m.step(torch.zeros(3)), r"\(N, 3\), not \(3,\)"),
        (lambda m: m.step(torch.zeros(2, 3), m.initial_state(3)), "a state must be"),
        (lambda m: m.step(torch.zeros(2, 3), (torch.zeros(2, 1, 8),) * 3), "3"),
        (lambda m: m.unroll(torch.zeros(5, 3)), "L >= 1"),
        (lambda m: m.unroll(torch.zeros(0, 1, 3)), "L >= 1"),
        (lambda m: m.unroll(torch.zeros(5, 2, 3), m.initial_state(1)), "a state must be"),
        (lambda m: m.step_packed(pack([torch.zeros(2, 4)])[0]), "packed data"),
        (lambda m: m.step_packed_by_rank(pack([torch.zeros(2, 4)])[0]), "packed data"),
        (lambda m: m.step_packed(pack([torch.zeros(2, 3)])[0], m.initial_state(2)), "a state"),
        (lambda m: m.step_packed_by_rank(pack([torch.zeros(2, 3)])[0], m.initial_state(2)), "rows"),
    ],
)
def test_a_wrong_shape_is_reported(model: StepModel, call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)  # type: ignore[operator]


@pytest.mark.parametrize("sizes", [(0, 4, 1), (1, -1, 1), (1, 4, 0), (1, 4, True), (1.5, 4, 1)])
def test_a_size_less_than_one_is_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="integer of at least 1"):
        VanillaRNN(*sizes)


def test_a_state_can_be_flattened_and_rebuilt() -> None:
    template = LSTM(3, 4, 2).initial_state(2)
    tensors = state_tensors(template)
    assert like_state(tensors, template) == template
    with pytest.raises(ValueError, match="2 tensors can't be built from 1"):
        like_state(tensors[:1], template)


class Forgetful(RunningSum):
    """Breaks the contract: forgets in a batch of its own what it keeps in another."""

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        outputs, state = super().step(inputs, prev_state)
        return outputs + outputs.mean(dim=0), state


class Writer(RunningSum):
    """Breaks the contract: writes to the state that it was given."""

    def step(self, inputs: Tensor, prev_state: State | None = None) -> tuple[Tensor, State]:
        outputs, state = super().step(inputs, prev_state)
        if prev_state is not None:
            state_tensors(prev_state)[1].add_(1)
        return outputs, state


@pytest.mark.parametrize("broken", [Forgetful, Writer])
def test_the_checks_find_a_model_that_breaks_the_contract(broken: type[StepModel]) -> None:
    with pytest.raises(AssertionError):
        check_model(broken(2, 2))


def test_nan_is_never_within_the_tolerance() -> None:
    with pytest.raises(AssertionError, match="nan"):
        check_close(torch.tensor([float("nan")]), torch.tensor([0.0]), "two numbers")
