"""The training loop of the examples' nets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from livestep.models.examples.base import Progress

GRADIENT_NORM_MAX = 1.0
WEIGHT_DECAY = 0.01

#: Batches between two reports; the first batch also reports.
REPORT_EVERY = 20


def shuffled(count: int, batch: int) -> Callable[[torch.Generator], Sequence[Tensor]]:
    """Make batches of row numbers, shuffled for each epoch.

    Args:
        count: Number of rows.
        batch: Rows per batch; the last batch may have fewer.

    Returns:
        batches_of_epoch: For `fit`.
    """

    def batches_of_epoch(generator: torch.Generator) -> Sequence[Tensor]:
        return torch.split(torch.randperm(count, generator=generator), batch)

    return batches_of_epoch


def fit(
    net: nn.Module,
    loss_of: Callable[[Tensor, torch.Generator], Tensor],
    batches_of_epoch: Callable[[torch.Generator], Sequence[Tensor]],
    *,
    epochs: int,
    rate: float,
    seed: int,
    on_progress: Progress | None,
) -> None:
    """Train a net in place, and set it to eval mode.

    Args:
        net: The net.
        loss_of: Returns the loss of a batch of row numbers, (n,) int64.
        batches_of_epoch: Returns the batches of an epoch, the same number each time.
        epochs: Number of passes over all batches.
        rate: Highest learning rate; the rate rises to it and falls again during the training.
        seed: Seed of the order of batches and of all noise.
        on_progress: Called with the finished share and the loss.

    Source:
        Loshchilov and Hutter 2019, arXiv:1711.05101 (AdamW); Smith and Topin 2018,
        arXiv:1708.07120 (one cycle of the learning rate).
    """
    report = on_progress or (lambda fraction, text: None)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=WEIGHT_DECAY)
    batches = batches_of_epoch(generator)
    batch_count = len(batches) * epochs
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=batch_count)
    done_count = 0
    net.train()
    for epoch in range(1, epochs + 1):
        for rows in batches:
            loss = loss_of(rows, generator)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(net.parameters(), GRADIENT_NORM_MAX)
            optimizer.step()
            cycle.step()
            done_count += 1
            if done_count % REPORT_EVERY == 1 or done_count == batch_count:
                text = f"epoch {epoch} of {epochs}: loss {float(loss.detach()):.3f}"
                report(done_count / batch_count, text)
        batches = batches_of_epoch(generator)
    net.eval()


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Average the cross-entropy over all places that have a label.

    Args:
        logits: (..., values).
        labels: (...) int64; -1 without a label. At least one place must have a label.

    Returns:
        loss: A scalar.
    """
    return nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=-1)


@torch.no_grad()
def fold_scale(layer: nn.Linear | nn.RNNBase, mean: Tensor, deviation: Tensor) -> None:
    """Change a layer that was trained on standardized inputs so that it accepts raw inputs.

    W ((x - mean) / deviation) + b = (W / deviation) x + (b - (W / deviation) mean), so events carry
    the measured values, and a publisher doesn't have to scale them.

    Args:
        layer: With biases; a recurrent layer changes the input weights of its first layer.
        mean: (H_in,).
        deviation: (H_in,), not zero.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> x, mean, deviation = torch.randn(5, 2), torch.tensor([1.0, 2]), torch.tensor([2.0, 4])
        >>> before = layer((x - mean) / deviation)
        >>> fold_scale(layer, mean, deviation)
        >>> torch.allclose(layer(x), before, atol=1e-6)
        True
    """
    suffix = "" if isinstance(layer, nn.Linear) else "_ih_l0"
    weight = layer.get_parameter(f"weight{suffix}")
    weight.div_(deviation)
    layer.get_parameter(f"bias{suffix}").sub_(weight @ mean)
