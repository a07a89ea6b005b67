"""The nets keep the contract and compute what their names promise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from livestep import GRU, StepModel, check_model
from livestep.models.checks.agreement import TOLERANCE, max_difference
from livestep.models.checks.contract_checks import (
    check_none_means_initial_state,
    check_packed_equals_unroll,
    check_prev_state_kept,
    check_split_anywhere,
    check_step_equals_unroll,
)
from livestep.models.checks.random_events import random_state
from livestep.models.contract import SizedModel, state_tensors
from livestep.models.nets.encoder_decoder import EncoderDecoder
from livestep.models.nets.stateless import FullyConnected, Glimpses

NETS = {
    "FullyConnected": lambda: FullyConnected(3, 8, 2),
    "FullyConnected of three layers": lambda: FullyConnected(3, 8, 2, num_layers=3),
    "Glimpses": lambda: Glimpses(rows=4, row_size=2, hidden_size=8, output_size=3),
    "EncoderDecoder": lambda: EncoderDecoder(3, 2, 8, 2),
    "EncoderDecoder of two layers": lambda: EncoderDecoder(3, 2, 8, 2, num_layers=2),
}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest) -> SizedModel:
    torch.manual_seed(0)
    made: SizedModel = NETS[request.param]().eval()
    return made


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_net_keeps_the_contract(net: StepModel, dtype: torch.dtype) -> None:
    check_model(net.to(dtype))


def test_a_net_can_be_rebuilt_from_its_sizes_and_weights(net: SizedModel) -> None:
    twin = type(net)(**net.sizes())  # type: ignore[arg-type]
    twin.load_state_dict(net.state_dict())
    x = torch.randn(6, 5, net.input_size)
    assert tuple(net.sizes()) == net.SIZES
    with torch.inference_mode():
        assert torch.equal(net.unroll(x), twin.unroll(x))


def test_a_net_can_step_an_empty_batch(net: StepModel) -> None:
    outputs, state = net.step(torch.zeros(0, net.input_size), net.initial_state(0))
    assert outputs.shape == (0, net.output_size)
    assert all(len(tensor) == 0 for tensor in state_tensors(state))


@pytest.mark.parametrize("name", ["FullyConnected", "Glimpses"])
def test_a_net_without_state_answers_independently_of_earlier_events(name: str) -> None:
    net = NETS[name]()
    x = torch.randn(6, 5, net.input_size)
    outputs = net.unroll(x)
    assert net.initial_state(5) == ()
    assert max_difference(net.unroll(x[[3]])[0], outputs[3]) < 1e-6
    with pytest.raises(ValueError, match="has no state"):
        net.step(x[0], (torch.zeros(5, 1),))


@pytest.mark.parametrize("name", NETS)
def test_inputs_and_sizes_that_do_not_fit_are_refused(name: str) -> None:
    net = NETS[name]()
    with pytest.raises(ValueError, match="inputs must be"):
        net.step(torch.zeros(2, net.input_size + 1))
    for size in net.SIZES:
        with pytest.raises(ValueError, match=size):
            type(net)(**{**net.sizes(), size: 0})


def test_glimpses_are_the_steps_of_a_gru_over_the_rows_of_a_picture() -> None:
    # Given the same weights in the cell of this package
    net = Glimpses(rows=8, row_size=4, hidden_size=6, output_size=3)
    cell = GRU(4, 6, 3)
    cell.load_state_dict(net.state_dict())

    # When a picture is given at once, and row by row
    pictures = torch.randn(5, 8, 4)
    at_once, _ = net.step(pictures.flatten(1))
    row_by_row = cell.unroll(pictures.transpose(0, 1))[-1]

    # Then the answer is that after the last row
    assert max_difference(at_once, row_by_row) < 1e-6


def mixed_sequences(net: EncoderDecoder, lengths: list[int], seed: int = 0) -> list[Tensor]:
    """Draw sequences in which about half of the rows are steps of the decoder."""
    generator = torch.Generator().manual_seed(seed)
    sequences = []
    for length in lengths:
        rows = torch.randn(length, net.input_size, generator=generator)
        rows[torch.rand(length, generator=generator) < 0.5, : net.source_size] = 0
        sequences.append(rows)
    return sequences


@pytest.mark.parametrize("num_layers", [1, 2])
def test_an_encoder_decoder_keeps_the_contract_where_reading_and_writing_keys_are_mixed(
    num_layers: int,
) -> None:
    torch.manual_seed(0)
    net = EncoderDecoder(3, 2, 8, 2, num_layers).eval()
    ragged, equal = mixed_sequences(net, [9, 3, 1, 7, 7, 4]), mixed_sequences(net, [6] * 6)
    state = random_state(net, 6, torch.Generator().manual_seed(1))
    with torch.inference_mode():
        check_none_means_initial_state(net, torch.stack(equal, dim=1)[0])
        check_step_equals_unroll(net, torch.stack(equal, dim=1), state)
        check_split_anywhere(net, equal, state)
        check_packed_equals_unroll(net, ragged, state)
        check_prev_state_kept(net, ragged, state)


def test_a_row_without_source_steps_the_decoder_and_any_other_row_the_encoder() -> None:
    # Given a state, and one row of each kind
    torch.manual_seed(0)
    net = EncoderDecoder(3, 2, 8, 2, num_layers=2).eval()
    state = random_state(net, 2, torch.Generator().manual_seed(1))
    rows = torch.randn(2, 5)
    rows[0, :2] = 0  # as in a one-hot row, one column is left
    rows[1, :3] = 0

    # When both are stepped in one batch
    with torch.inference_mode():
        _, after = net.step(rows, state)
        turned = state.transpose(0, 1).contiguous()
        _, read = net.encoder(rows[None, :, :3], turned)
        _, written = net.decoder(rows[None, :, 3:], turned)

    # Then each has gone through its own GRU
    assert max_difference(after[0], read[:, 0]) < 1e-6
    assert max_difference(after[1], written[:, 1]) < 1e-6
    assert max_difference(after[0], written[:, 0]) > 1e-3


def test_teacher_forcing_in_fused_calls_equals_stepping_one_by_one() -> None:
    # Given ragged sources, in no order of length, and targets
    torch.manual_seed(0)
    net = EncoderDecoder(3, 2, 8, 4, num_layers=2).eval()
    sources = [torch.randn(length, 3) for length in (2, 5, 3)]
    targets = torch.randn(4, 3, 2)

    # When all are read and written at once
    with torch.inference_mode():
        fused = net.unroll_teacher(pack_sequence(sources, enforce_sorted=False), targets)

        # Then each alone, step by step, returns the same: the go step, then the previous target
        for key, source in enumerate(sources):
            state = None
            for row in source:
                _, state = net.step(torch.cat([row, torch.zeros(2)]).unsqueeze(0), state)
            for t in range(4):
                before = targets[t - 1, key] if t else torch.zeros(2)
                y, state = net.step(torch.cat([torch.zeros(3), before]).unsqueeze(0), state)
                assert max_difference(y[0], fused[t, key]) < 1e-5


def test_an_encoder_decoder_learns_to_write_what_it_has_read() -> None:
    # Given sequences of three symbols of two kinds
    torch.manual_seed(0)
    net = EncoderDecoder(2, 2, 16, 2)
    symbols = torch.cartesian_prod(*[torch.arange(2)] * 3).T  # (L, N)
    one_hot = torch.nn.functional.one_hot(symbols, 2).float()

    # When it is trained by teacher forcing
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(50):
        logits = net.unroll_teacher(one_hot, one_hot)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), symbols.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    # Then it has learned all eight of them
    assert bool((net.unroll_teacher(one_hot, one_hot).argmax(dim=2) == symbols).all())
