"""Training of models that are fed with their own outputs: with a teacher beside, or running free.

    teacher_forced   x[t] holds the true y[t-1]. One fused call, steady gradients; but the net never
                     sees its own mistakes, which it will live on when it is served
    free_running     x[t] holds what the net itself gave at t-1: as it is served, one step after
                     another. With a chance of the truth: scheduled sampling, between the two

In both the feedback columns of a sequence are NaN where the event leaves them out, as
`fields.encode` with `fed` makes them; a value that an event carries itself stays, as in service.
Both give outputs to compute a loss of, and gradients flow through all that is differentiable: a
number that is fed back, the hidden states; not the choice of a label.

For an `EncoderDecoder`, `unroll_teacher` is the teacher's road.
"""

from __future__ import annotations

import torch
from torch import Tensor

from livestep.models.contract import check_sequence
from livestep.models.sequences.feedback import FedBack


def teacher_forced(fedback: FedBack, sequence: Tensor, targets: Tensor) -> Tensor:
    """Unroll with the truth of the timestep before in the feedback inputs that are absent.

    Args:
        fedback: The wrapped net.
        sequence: (L, N, H_in). Inputs of the net; NaN where a feedback input is absent.
        targets: (L, N, F). The truth as it would be fed back, each link's block beside the other:
            one-hot for a category, the number for a number. The last timestep is not used.

    Returns:
        outputs: (L, N, H_out). Of the net; to be compared with `targets` at the same t.

    Raises:
        ValueError: If the shapes don't fit.

    Example:
        >>> from livestep import GRU, Feedback, Number
        >>> fields = [Number("x", 2), Number("last_y")]
        >>> net = FedBack(GRU(3, 4, 1), fields, [Number("y")], [Feedback("y", "last_y")])
        >>> sequence = torch.randn(5, 8, 3)
        >>> sequence[..., 2] = torch.nan  # last_y is what is fed back
        >>> teacher_forced(net, sequence, torch.randn(5, 8, 1)).shape
        torch.Size([5, 8, 1])

    Source:
        Williams and Zipser 1989, doi:10.1162/neco.1989.1.2.270
    """
    return fedback.net.unroll(_with_truth(fedback, sequence, targets))


def free_running(
    fedback: FedBack,
    sequence: Tensor,
    targets: Tensor | None = None,
    truth_probability: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Unroll with the net's own outputs in absent feedback inputs, but for a truth now and then.

    A truth that arrives is put in as it is in service, where it overrules what was fed back: for
    each key and timestep, with `truth_probability`. Scheduled sampling lowers it while it trains.

    Args:
        fedback: The wrapped net.
        sequence: (L, N, H_in). Inputs of the net; NaN where a feedback input is absent.
        targets: (L, N, F). As in `teacher_forced`; needed only for a probability above 0.
        truth_probability: 0 runs free, 1 is teacher forcing, step by step.
        generator: Decides where the truth is seen and which labels are drawn; by default torch's.
            It has to live on the sequence's device.

    Returns:
        outputs: (L, N, H_out). Of the net.

    Raises:
        ValueError: If the shapes don't fit, the probability is none, or targets are missing.

    Example:
        >>> from livestep import GRU, Feedback, Number
        >>> fields = [Number("x", 2), Number("last_y")]
        >>> net = FedBack(GRU(3, 4, 1), fields, [Number("y")], [Feedback("y", "last_y")])
        >>> sequence = torch.randn(5, 8, 3)
        >>> sequence[..., 2] = torch.nan  # last_y is what is fed back
        >>> free_running(net, sequence).shape
        torch.Size([5, 8, 1])

    Source:
        Bengio, Vinyals, Jaitly and Shazeer 2015, "Scheduled sampling for sequence prediction with
        recurrent neural networks", arXiv:1506.03099
    """
    check_sequence(sequence, fedback.net.input_size)
    if not 0 <= truth_probability <= 1:
        raise ValueError(f"a probability is 0 to 1, not {truth_probability}")
    inputs = sequence
    if truth_probability > 0:
        if targets is None:
            raise ValueError("without targets no truth can be seen")
        chance = torch.rand(sequence.shape[:2], generator=generator, device=sequence.device)
        is_told = (chance < truth_probability).unsqueeze(2)  # (L, N, 1)
        inputs = torch.where(is_told, _with_truth(fedback, sequence, targets), inputs)
    draws = torch.rand(
        (*sequence.shape[:2], fedback.sampled_count),
        generator=generator,
        device=sequence.device,
        dtype=sequence.dtype,
    )
    outputs = fedback.unroll(torch.cat([inputs, draws], dim=2))
    return outputs[..., : fedback.net.output_size]


def _with_truth(fedback: FedBack, sequence: Tensor, targets: Tensor) -> Tensor:
    """Put the truth of t-1 into the feedback inputs that are absent at t, zeros at t=0; a copy."""
    check_sequence(sequence, fedback.net.input_size)
    expected = (*sequence.shape[:2], fedback.fed_width)
    if targets.shape != expected:
        raise ValueError(f"targets have to be {expected}, not {tuple(targets.shape)}")
    before = torch.cat([torch.zeros_like(targets[:1]), targets[:-1]])  # (L, N, F)
    filled = fedback.fill(sequence.flatten(0, 1), before.flatten(0, 1))
    return filled.reshape(sequence.shape)
