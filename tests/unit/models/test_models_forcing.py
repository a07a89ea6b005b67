"""Training with feedback: by teacher forcing, or free running."""

from __future__ import annotations

import pytest
import torch

from livestep import GRU, Category, Feedback, Number
from livestep.models.checks.agreement import max_difference
from livestep.models.sequences.feedback import FedBack
from livestep.models.sequences.forcing import free_running, teacher_forced
from tests.support.small_nets import LETTERS, Summing

NAN = torch.nan

ONE_Y = [Number("x"), Number("last_y", optional=True)]


def absent_sequence(length: int = 9, keys: int = 4) -> torch.Tensor:
    """Draw a sequence for `two_links` whose feedback inputs are all absent."""
    sequence = torch.randn(length, keys, 6)
    sequence[..., :2], sequence[..., 3:] = NAN, NAN
    return sequence


def summing() -> FedBack:
    return FedBack(Summing(), ONE_Y, [Number("y")], [Feedback("y", "last_y")])


def two_links(temperature: float = 0.0) -> FedBack:
    torch.manual_seed(0)
    inputs = [
        Number("last_y", 2, optional=True),
        Number("x"),
        Category("letter", LETTERS, optional=True),
    ]
    outputs = [Category("letter", LETTERS), Number("y", 2)]
    links = [Feedback("letter", "letter", temperature), Feedback("y", "last_y")]
    return FedBack(GRU(6, 8, 5), inputs, outputs, links)


def test_teacher_forcing_fills_inputs_with_the_previous_target() -> None:
    sequence = torch.tensor([[[1.0, NAN]], [[1.0, NAN]], [[1.0, NAN]]])  # (L, 1, H_in)
    targets = torch.tensor([[[10.0]], [[20.0]], [[40.0]]])
    outputs = teacher_forced(summing(), sequence, targets)
    # 1; 1 + 1 + 10; 12 + 1 + 20
    assert outputs.flatten().tolist() == [1.0, 12.0, 33.0]


def test_the_blocks_of_several_links_fill_the_columns_of_each() -> None:
    # Given links whose inputs are in reverse order, and a sequence filled by hand
    net = two_links()
    sequence, targets = absent_sequence(4, 3), torch.randn(4, 3, 5)
    letters, numbers = targets[:-1, :, :3], targets[:-1, :, 3:]
    by_hand = sequence.clone()
    by_hand[0, :, :2], by_hand[0, :, 3:] = 0, 0
    by_hand[1:, :, :2], by_hand[1:, :, 3:] = numbers, letters

    # Then teacher forcing fills it the same
    assert torch.equal(teacher_forced(net, sequence, targets), net.net.unroll(by_hand))


def test_free_running_fills_inputs_with_the_previous_output() -> None:
    sequence = torch.tensor([[[1.0, NAN]], [[1.0, NAN]], [[1.0, NAN]]])
    outputs = free_running(summing(), sequence)
    # 1; 1 + 1 + 1; 3 + 1 + 3
    assert outputs.flatten().tolist() == [1.0, 3.0, 7.0]


def test_free_running_with_all_true_values_is_teacher_forcing() -> None:
    net = two_links()
    sequence = absent_sequence()
    targets = torch.randn(9, 4, 5)
    told = free_running(net, sequence, targets, truth_probability=1.0)
    assert max_difference(told, teacher_forced(net, sequence, targets)) < 1e-6


def test_scheduled_sampling_uses_some_true_values_as_its_generator_decides() -> None:
    # Given a net that sums, and a true value of 1,000
    sequence, targets = torch.zeros(2, 2000, 2), torch.full((2, 2000, 1), 1000.0)
    sequence[..., 1] = NAN

    # When true values are used at a quarter of all steps
    runs = [
        free_running(summing(), sequence, targets, 0.25, torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]

    # Then they are, and another seed uses others
    assert 400 < int((runs[0][1] == 1000).sum()) < 600
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_free_running_equals_the_live_answers_to_the_same_inputs() -> None:
    net, sequence = two_links(), absent_sequence()
    assert max_difference(free_running(net, sequence), net.unroll(sequence)) < 1e-6


def test_a_value_in_the_event_takes_precedence_over_targets_and_feedback() -> None:
    sequence = torch.tensor([[[1.0, 5.0]], [[1.0, NAN]], [[1.0, 7.0]]])
    targets = torch.tensor([[[10.0]], [[20.0]], [[40.0]]])
    # 1 + 5; 6 + 1 + 10 or 6; the one before + 1 + 7
    assert teacher_forced(summing(), sequence, targets).flatten().tolist() == [6.0, 17.0, 25.0]
    assert free_running(summing(), sequence).flatten().tolist() == [6.0, 13.0, 21.0]


def test_the_outputs_of_free_running_omit_its_draws() -> None:
    net = two_links(temperature=1.0)
    outputs = free_running(net, absent_sequence(), generator=torch.Generator().manual_seed(0))
    assert outputs.shape == (9, 4, 5)
    assert bool(outputs.isfinite().all())


def test_gradients_flow_through_a_number_that_is_fed_back() -> None:
    # Given y[1] = y[0] + x[1] + y[0], where y[0] = x[0]
    sequence = torch.tensor([[[3.0, NAN]], [[1.0, NAN]]], requires_grad=True)
    free_running(summing(), sequence)[1].sum().backward()
    assert sequence.grad is not None
    assert sequence.grad[:, 0, 0].tolist() == [2.0, 1.0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_weight_gets_a_finite_gradient_both_ways(temperature: float) -> None:
    net = two_links(temperature)
    sequence, targets = absent_sequence(), torch.randn(9, 4, 5)
    for outputs in (
        teacher_forced(net, sequence, targets),
        free_running(net, sequence),
        free_running(net, sequence, targets, truth_probability=0.5),
    ):
        net.zero_grad()
        outputs.square().sum().backward()
        for name, weight in net.named_parameters():
            assert weight.grad is not None, name
            assert bool(weight.grad.isfinite().all()) and bool(weight.grad.any()), name


def test_targets_and_probabilities_that_do_not_fit_are_refused() -> None:
    sequence = torch.zeros(3, 1, 2)
    with pytest.raises(ValueError, match="targets must be"):
        teacher_forced(summing(), sequence, torch.zeros(3, 1, 2))
    with pytest.raises(ValueError, match="probability"):
        free_running(summing(), sequence, truth_probability=1.5)
    with pytest.raises(ValueError, match="needs targets"):
        free_running(summing(), sequence, truth_probability=0.5)
