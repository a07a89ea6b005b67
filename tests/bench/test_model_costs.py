"""What the costs of a model are measured on answers right, either way."""

from __future__ import annotations

import pytest
import torch

from livestep import check_model
from livestep.models.foreign.user_classes import AdaptedModel
from tests.bench.model_costs import Steps, StepsPacked, codec_rate, packed_rate


def test_both_nets_keep_the_contract_and_answer_the_same() -> None:
    nets = []
    for kind in (Steps, StepsPacked):
        torch.manual_seed(0)
        nets.append(AdaptedModel(kind(), 12, 9, {}).eval().requires_grad_(False))
        check_model(nets[-1])
    sequence = torch.randn(4, 3, 12)
    assert torch.equal(nets[0].unroll(sequence), nets[1].unroll(sequence))


def test_rates_are_measured_of_batches_and_of_codecs() -> None:
    assert packed_rate(StepsPacked, keys=2, events=3, runs=1) > 0


@pytest.mark.parametrize("codec", ["json", "float32"])
def test_the_engine_has_answered_every_event_that_is_counted(codec: str) -> None:
    assert codec_rate(codec, width=3, events=50, runs=1) > 0
