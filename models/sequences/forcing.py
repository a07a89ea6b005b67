"""Train models that are fed with their own outputs: by teacher forcing, or free running.

    teacher_forced   x[t] has the true y[t-1]. One fused call, stable gradients; but the net never
                     sees its own mistakes, which are its inputs in production
    free_running     x[t] has the net's own output at t-1: step by step, as in production. With a
                     probability of the true value, this is scheduled sampling

In both, the feedback columns of a sequence are NaN where the event omits them, as `encode` with
`fed` returns them; a value that an event carries itself is kept, as in production. Both return
outputs for a loss, and gradients flow through everything differentiable: numbers that are fed back
and hidden states, but not the choice of a label.

For an `EncoderDecoder`, use its method `unroll_teacher` for teacher forcing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from livestep.models.contract import check_sequence
from livestep.models.sequences.feedback import FedBack


def teacher_forced(fedback: FedBack, sequence: Tensor, targets: Tensor) -> Tensor:
    """Unroll with the true values of the previous timestep in absent feedback inputs.

    Args:
        fedback: The wrapped net.
        sequence: (L, N, H_in). Inputs of the net; NaN where a feedback input is absent.
        targets: (L, N, F). The true values as they would be fed back, the links side by side:
            one-hot for a category, the number for a number. The last timestep is not used.

    Returns:
        outputs: (L, N, H_out). Of the net; compare them with `targets` at the same t.

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
    """Unroll with the net's own outputs in absent feedback inputs, and sometimes the true values.

    A true value replaces what was fed back, as in production: for each key and timestep with
    `truth_probability`. Scheduled sampling lowers it during training.

    Args:
        fedback: The wrapped net.
        sequence: (L, N, H_in). Inputs of the net; NaN where a feedback input is absent.
        targets: (L, N, F). As in `teacher_forced`; needed only for a probability above 0.
        truth_probability: 0 is free running, 1 is teacher forcing, step by step.
        generator: Decides where true values are used and which labels are drawn; by default
            torch's. Must be on the sequence's device.

    Returns:
        outputs: (L, N, H_out). Of the net.

    Raises:
        ValueError: If the shapes don't fit, the probability is not 0 to 1, or targets are missing.

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
        raise ValueError(f"truth_probability must be 0 to 1, not {truth_probability}")
    inputs = sequence
    if truth_probability > 0:
        if targets is None:
            raise ValueError("a truth_probability above 0 needs targets")
        chance = torch.rand(sequence.shape[:2], generator=generator, device=sequence.device)
        is_true_value = (chance < truth_probability).unsqueeze(2)  # (L, N, 1)
        inputs = torch.where(is_true_value, _with_truth(fedback, sequence, targets), inputs)
    draws = torch.rand(
        (*sequence.shape[:2], fedback.sampled_count),
        generator=generator,
        device=sequence.device,
        dtype=sequence.dtype,
    )
    outputs = fedback.unroll(torch.cat([inputs, draws], dim=2))
    return outputs[..., : fedback.net.output_size]


def _with_truth(fedback: FedBack, sequence: Tensor, targets: Tensor) -> Tensor:
    """Fill absent feedback inputs with the true values of t-1, or zeros at t=0; returns a copy."""
    check_sequence(sequence, fedback.net.input_size)
    expected = (*sequence.shape[:2], fedback.fed_width)
    if targets.shape != expected:
        raise ValueError(f"targets must be {expected}, not {tuple(targets.shape)}")
    before = torch.cat([torch.zeros_like(targets[:1]), targets[:-1]])  # (L, N, F)
    filled = fedback.fill(sequence.flatten(0, 1), before.flatten(0, 1))
    return filled.reshape(sequence.shape)
