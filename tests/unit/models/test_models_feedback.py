"""Feedback is part of the state, and draws depend on key, offset and step."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor

from livestep import GRU, LSTM, Category, Feedback, Generation, Number, SequenceRules, check_model
from livestep.models.contract import state_tensors
from livestep.models.fields.field_types import columns_of
from livestep.models.sequences.feedback import (
    FedBack,
    draw_columns,
    draw_label,
    draws,
    draws_many,
    key_seed,
)
from livestep.models.sequences.generation import generate
from tests.support.small_nets import LETTERS, Echo, Speller, Summing, number_rules, spelling_rules

NAN = float("nan")


def fed_summing() -> FedBack:
    inputs = [Number("x"), Number("last_y", optional=True)]
    return FedBack(Summing(), inputs, [Number("y")], number_rules("synchronized").feedback)


def fed_speller(temperature: float = 0.0) -> FedBack:
    inputs = [Number("x"), Category("letter", LETTERS, optional=True)]
    links = [Feedback("letter", "letter", temperature)]
    return FedBack(Speller(), inputs, [Category("letter", LETTERS)], links)


def test_a_number_is_fed_back_where_the_event_omits_it() -> None:
    net = fed_summing()
    first, state = net.step(torch.tensor([[1.0, NAN]]))
    second, state = net.step(torch.tensor([[1.0, NAN]]), state)
    third, _ = net.step(torch.tensor([[0.0, NAN]]), state)

    # 1 + nothing; then 1 + 1 + the 1 before; then 3 + 0 + the 3 before
    assert [first.item(), second.item(), third.item()] == [1.0, 3.0, 6.0]


def test_a_value_in_the_event_takes_precedence_over_what_was_fed_back() -> None:
    net = fed_summing()
    _, state = net.step(torch.tensor([[1.0, NAN], [1.0, NAN]]))
    inputs = torch.tensor([[0.0, 10.0], [0.0, NAN]])
    outputs, state = net.step(inputs, state)

    # The neighbour that leaves it out is filled all the same.
    assert outputs.flatten().tolist() == [11.0, 2.0]
    assert inputs[1].isnan().tolist() == [False, True]  # it is not written to
    # What is fed back next is what the net gave, not the truth before it.
    assert state_tensors(state)[-1].flatten().tolist() == [11.0, 2.0]


def test_a_category_feeds_back_its_label_and_not_its_logits() -> None:
    net = fed_speller()
    outputs, state = net.step(torch.tensor([[0.0, NAN, NAN, NAN]]))
    assert outputs.tolist() == [[0.5, 0.0, 0.0]]
    assert state_tensors(state)[-1].tolist() == [[1.0, 0.0, 0.0]]  # a

    outputs, state = net.step(torch.tensor([[0.0, NAN, NAN, NAN]]), state)
    assert outputs.tolist() == [[0.5, 1.0, 0.0]]
    assert state_tensors(state)[-1].tolist() == [[0.0, 1.0, 0.0]]  # b


def test_an_input_with_nan_in_only_some_columns_is_not_absent() -> None:
    outputs, _ = fed_speller().step(torch.tensor([[0.0, NAN, 0.0, 0.0]]))
    assert not outputs.isfinite().all()


def test_a_net_without_state_can_be_fed_back() -> None:
    links = [Feedback("y", "x")]
    net = FedBack(Echo(), [Number("x", optional=True)], [Number("y")], links)
    _, state = net.step(torch.tensor([[3.0], [5.0]]))
    outputs, state = net.step(torch.tensor([[NAN], [NAN]]), state)
    assert outputs.flatten().tolist() == [12.0, 20.0]
    assert len(state_tensors(state)) == 1


def two_links(net_class: type, temperature: float) -> FedBack:
    torch.manual_seed(1)
    inputs = [
        Number("x", 2),
        Category("letter", LETTERS, optional=True),
        Number("y", 2, optional=True),
    ]
    outputs = [Number("y", 2), Category("letter", LETTERS), Number("z")]
    links = [Feedback("letter", "letter", temperature), Feedback("y", "y")]
    return FedBack(net_class(7, 8, 6), inputs, outputs, links)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("net_class", [GRU, LSTM])
def test_a_fed_back_model_keeps_the_contract(net_class: type, temperature: float) -> None:
    net = two_links(net_class, temperature)
    assert net.sampled_count == (temperature > 0)
    assert net.fed_width == 5
    check_model(net)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_batch_of_keys_equals_each_key_alone(temperature: float) -> None:
    # Given keys that sometimes omit their letter, their y, or neither
    net = two_links(GRU, temperature)
    generator = torch.Generator().manual_seed(3)
    sequence = torch.randn(20, 8, 7, generator=generator)
    sequence[:, :, 2:5][torch.rand(20, 8, generator=generator) < 0.7] = NAN
    sequence[:, :, 5:7][torch.rand(20, 8, generator=generator) < 0.5] = NAN
    u = torch.rand(20, 8, net.sampled_count, generator=generator)
    sequence = torch.cat([sequence, u], dim=2)

    # When they are stepped together, and each alone
    with torch.inference_mode():
        together = net.unroll(sequence)
        alone = torch.cat([net.unroll(sequence[:, [key]]) for key in range(8)], dim=1)

    # Then no key depends on its neighbors
    assert bool(together.isfinite().all())
    assert float((together - alone).abs().max()) < 1e-5


def test_the_drawn_label_is_an_output_and_is_fed_back() -> None:
    net = fed_speller(temperature=1.0)
    x = torch.tensor([[0.0, NAN, NAN, NAN, 0.0], [0.0, NAN, NAN, NAN, 0.999]])
    outputs, state = net.step(x)
    assert outputs[:, -1].tolist() == [0.0, 2.0]
    assert state_tensors(state)[-1].tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_the_wrapped_model_feeds_generated_steps_like_the_slow_reference() -> None:
    rules = spelling_rules("one-to-many", temperature=2.0)
    net = fed_speller(temperature=2.0)
    inputs = [Number("x"), Category("letter", LETTERS, optional=True)]
    outputs = [Category("letter", LETTERS)]
    for offset in range(20):
        # Given a word, as the slow reference generates it
        truth = generate(Speller(), rules, inputs, outputs, None, key=b"k", offset=offset)

        # When the wrapped model generates with the same draws
        state, steps = None, np.arange(len(truth.values))
        u = draw_columns(np.full(len(steps), key_seed(b"k"), np.uint64), offset, steps, 1)
        rows = []
        for step in steps:
            row = torch.cat([net.absent_inputs(1), torch.from_numpy(u[[step]])], dim=1)
            y, state = net.step(row, state)
            rows.append(y[0].tolist())

        # Then it generates the same
        assert rows == np.concatenate([truth.values, truth.chosen], axis=1).tolist()


def test_two_labels_have_separate_draws_as_in_the_slow_reference() -> None:
    # Given a net with random weights that draws a letter and a color
    torch.manual_seed(0)
    colours = ("red", "green", "blue", "grey")
    inputs = [
        Category("colour", colours, optional=True),
        Category("letter", LETTERS, optional=True),
    ]
    outputs = [Category("letter", LETTERS), Number("size"), Category("colour", colours)]
    links = (Feedback("letter", "letter", 2.0), Feedback("colour", "colour", 0.5))
    gru = GRU(7, 8, 8)
    rules = SequenceRules("one-to-many", links, Generation(40))
    truth = generate(gru, rules, inputs, outputs, None, key=b"k", offset=4)

    # When the wrapped net generates
    net = FedBack(gru, inputs, outputs, links)
    steps = np.arange(40)
    u = torch.from_numpy(draw_columns(np.full(40, key_seed(b"k"), np.uint64), 4, steps, 2))
    sequence = torch.cat([net.absent_inputs(40), u], dim=1).unsqueeze(1)  # (L, 1, H_in + S)
    rows = net.unroll(sequence).squeeze(1).detach()

    # Then it returns the same
    assert rows[:, -2:].tolist() == truth.chosen.tolist()
    assert float((rows[:, :-2] - torch.from_numpy(truth.values)).abs().max()) < 1e-5


def label_counts(logits: Tensor, temperature: float, count: int) -> Tensor:
    u = torch.from_numpy(draws(b"somebody", np.arange(count), 0))
    labels = draw_label(logits.expand(count, -1), temperature, u)
    return torch.bincount(labels, minlength=logits.shape[1])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_labels_are_drawn_with_the_probabilities_of_the_softmax(temperature: float) -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0]])
    count = 40_000
    expected = torch.softmax(logits[0] / temperature, dim=0) * count
    deviation = (label_counts(logits, temperature, count) - expected) / expected.sqrt()
    assert float(deviation.abs().max()) < 4.5  # in standard deviations


def test_a_label_without_probability_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]])
    u = torch.tensor([0.0, 0.4999, 0.5, 1 - 2.0**-24])
    assert draw_label(logits.expand(4, -1), 1.0, u).tolist() == [1, 1, 3, 3]


def drawn_in_plain_python(key: bytes, *numbers: int) -> float:
    def mix(z: int) -> int:
        z = (z + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    mixed = mix(int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little"))
    for number in numbers:
        mixed = mix(mixed ^ number)
    return (mixed >> 40) / 2**24


def test_draws_differ_only_by_key_offset_step_and_link() -> None:
    # Given a draw that must be the same in every version, since a replay repeats it
    assert draws(b"alice", 7, 0)[0] == drawn_in_plain_python(b"alice", 7, 0, 0)
    assert draws(b"alice", 7, 0).tolist() == draws(b"alice", np.array([7]), np.array([0])).tolist()

    # When each of the four inputs is changed
    base = draws(b"alice", 7, 0)[0]
    others = [
        draws(b"bob", 7, 0)[0],
        draws(b"alice", 8, 0)[0],
        draws(b"alice", 7, 1)[0],
        draws(b"alice", 7, 0, link=1)[0],
    ]

    # Then the draw changes
    assert len({float(base), *map(float, others)}) == 5


def test_draws_of_many_keys_equal_those_of_each_key() -> None:
    keys = [b"a", b"b", b"c"]
    seeds = np.array([key_seed(key) for key in keys], np.uint64)
    offsets, steps = np.array([5, 2**40, 0]), np.array([0, 3, 1])
    many = draws_many(seeds, offsets, steps, link=1)
    each = [draws(k, o, s, link=1)[0] for k, o, s in zip(keys, offsets, steps, strict=True)]
    assert many.dtype == np.float32
    assert many.tolist() == [float(one) for one in each]
    assert draw_columns(seeds, offsets, steps, 2)[:, 1].tolist() == many.tolist()
    assert draw_columns(seeds, offsets, steps, 0).shape == (3, 0)


def test_draws_are_uniform_along_offsets_and_along_steps() -> None:
    for u in (draws(b"k", np.arange(64_000), 0), draws(b"k", 3, np.arange(64_000))):
        assert u.min() >= 0 and u.max() < 1
        counts = np.bincount((u * 64).astype(int), minlength=64)
        assert float(((counts - 1000) ** 2 / 1000).sum()) < 120  # chi-square, 63 degrees
        assert abs(float(np.corrcoef(u[1:], u[:-1])[0, 1])) < 0.02


def test_without_a_link_nothing_changes() -> None:
    torch.manual_seed(0)
    gru = GRU(3, 4, 2)
    net = FedBack(gru, [Number("x", 3)], [Number("y", 2)], SequenceRules().feedback)
    x = torch.randn(5, 3, 3)
    assert torch.allclose(net.unroll(x), gru.unroll(x), atol=1e-6)


def test_a_link_to_an_unknown_field_is_reported() -> None:
    with pytest.raises(ValueError, match="unknown field 'nobody'"):
        columns_of([Number("x")], "nobody")
