"""How the experiment's nets are trained, and how they are asked afterwards.

All contenders get the same effort: Adam with one learning rate, all training weeks in each update,
until the loss on them is below `LOSS_ENOUGH`.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from livestep.models.examples.cook.cook_story import WEATHERS
from livestep.models.examples.cook.cook_training import GRADIENT_NORM_MAX, Lessons
from livestep.models.examples.cook.experiment_nets import Contender, Predictor
from livestep.models.sequences.feedback import FedBack
from livestep.models.sequences.forcing import free_running, teacher_forced

LEARNING_RATE = 0.01

#: The mean cross entropy at which a net has learnt its weeks: 99.9 % sure of the right dish. And
#: the most updates for it; a net that needs more is told of in the results.
LOSS_ENOUGH, UPDATES_MAX = 1e-3, 2_000


def train(
    net: Predictor, contender: Contender, lessons: Lessons, updates_max: int = UPDATES_MAX
) -> int:
    """Train until the lessons are learnt.

    Args:
        net: The contender's net.
        contender: Says how to train it.
        lessons: All of them are in each update.
        updates_max: After so many it ends in any case.

    Returns:
        updates: How many it took.
    """
    module = cast(nn.Module, net)
    optimizer = torch.optim.Adam(module.parameters(), LEARNING_RATE)
    dishes = lessons.dishes.flatten()
    for update in range(updates_max):
        loss = nn.functional.cross_entropy(_learn(net, contender, lessons).flatten(0, 1), dishes)
        if float(loss.detach()) < LOSS_ENOUGH:
            return update
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(module.parameters(), GRADIENT_NORM_MAX)
        optimizer.step()
    return updates_max


def _learn(net: Predictor, contender: Contender, lessons: Lessons) -> Tensor:
    """Give what a net says of its lessons, in the way in which it learns: (L, N, dishes)."""
    if contender.forcing is None:
        return net.unroll(lessons.sequence)
    fedback, sequence = cast(FedBack, net), with_absence(lessons.sequence)
    if contender.forcing == "free":
        return free_running(fedback, sequence)
    truth = nn.functional.one_hot(lessons.dishes, fedback.fed_width).to(sequence.dtype)
    return teacher_forced(fedback, sequence, truth)


@torch.inference_mode()
def predict(net: Predictor, lessons: Lessons) -> Tensor:
    """Let a net predict whole sequences, from what the events tell and nothing else.

    Args:
        net: Any contender's.
        lessons: Only `sequence` is looked at.

    Returns:
        dishes: (L, N) int64. The dishes that the net names.
    """
    sequence = lessons.sequence
    if isinstance(net, FedBack):
        sequence = with_absence(sequence)
    return net.unroll(sequence).argmax(dim=-1)


def right_days(net: Predictor, lessons: Lessons) -> Tensor:
    """Say of each day whether the net names the right dish: (L, N) bool."""
    return predict(net, lessons) == lessons.dishes


def with_absence(sequence: Tensor) -> Tensor:
    """Mark the dish of the day before as absent (NaN) in each event that doesn't tell one.

    Args:
        sequence: (L, N, H_in), as lessons have it.

    Returns:
        sequence: (L, N, H_in). A copy, as `FedBack` takes it.
    """
    sequence = sequence.clone()
    told = sequence[:, :, len(WEATHERS) :]  # (L, N, dishes), a view
    told[told.sum(dim=-1) == 0] = torch.nan
    return sequence
