"""One to one: a picture in, its digit out. No state is kept between events.

`digits` sees all 64 pixels at once; `digits-rows` reads the same picture row by row, in eight
glimpses within one event: it treats data without an order as a sequence.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from livestep.models.examples.base import (
    Answers,
    Example,
    ExampleEvent,
    Labels,
    Progress,
    TrainedExample,
    data_file,
    examined,
    first_keys,
    mixed,
    parted,
    right_share,
)
from livestep.models.examples.training import fit, fold_scale, label_loss, shuffled
from livestep.models.fields.field_types import Category, Number
from livestep.models.nets.stateless import FullyConnected, Glimpses
from livestep.models.seeding import one_thread, seeded
from livestep.models.sequences.rules import SequenceRules

ROWS, ROW_SIZE = 8, 8
DIGITS = tuple("0123456789")

#: Largest value of a pixel.
BLACK = 16.0

HELD_OUT_COUNT = 450
BATCH = 64
HIDDEN_PLAIN, EPOCHS_PLAIN, RATE_PLAIN = 64, 40, 1e-2
HIDDEN_ROWS, EPOCHS_ROWS, RATE_ROWS = 64, 40, 1e-2

INPUTS = (Number("pixels", ROWS * ROW_SIZE),)
OUTPUTS = (Category("digit", DIGITS),)
RULES = SequenceRules("one-to-one")


def read_digits() -> list[tuple[list[int], str]]:
    """Read all pictures: 64 pixels from 0 to 16, row by row, and the digit.

    Returns:
        pictures: 1,797 pictures, in the order of the file.

    Raises:
        ModelError: If the file is missing.

    Source:
        Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits", UCI; the test part,
        from scikit-learn.
    """
    file = data_file("sklearn", "datasets/data/digits.csv.gz", install="scikit-learn")
    pictures = []
    with gzip.open(file, "rt", encoding="ascii") as lines:
        for line in lines:
            *pixels, digit = (int(float(cell)) for cell in line.split(","))
            pictures.append((pixels, str(digit)))
    return pictures


def split() -> tuple[list[tuple[list[int], str]], list[tuple[list[int], str]]]:
    """Split the pictures into those for training and `HELD_OUT_COUNT` others."""
    return parted(read_digits(), HELD_OUT_COUNT)


def train_plain(seed: int = 0, on_progress: Progress | None = None) -> TrainedExample:
    """Train a fully connected net; a few seconds on one thread.

    Args:
        seed: Seed of weights and order.
        on_progress: Called with the progress.

    Returns:
        trained: Reports `accuracy`.

    Raises:
        ModelError: If the data are missing.
    """
    with one_thread():
        net = seeded(seed, lambda: FullyConnected(ROWS * ROW_SIZE, HIDDEN_PLAIN, len(DIGITS)))
        _learn(net, EPOCHS_PLAIN, RATE_PLAIN, seed, on_progress)
        first = net.layers[0]
        assert isinstance(first, nn.Linear)
        fold_scale(first, *_scale(ROWS * ROW_SIZE))
        return _trained(net)


def train_rows(seed: int = 0, on_progress: Progress | None = None) -> TrainedExample:
    """Train a net that sees one row after another; about ten seconds on one thread.

    Args:
        seed: Seed of weights and order.
        on_progress: Called with the progress.

    Returns:
        trained: Reports `accuracy`.

    Raises:
        ModelError: If the data are missing.
    """
    with one_thread():
        net = seeded(seed, lambda: Glimpses(ROWS, ROW_SIZE, HIDDEN_ROWS, len(DIGITS)))
        _learn(net, EPOCHS_ROWS, RATE_ROWS, seed, on_progress)
        fold_scale(net.recurrent, *_scale(ROW_SIZE))
        return _trained(net)


def events(seed: int = 0, key_count: int | None = None) -> Iterator[ExampleEvent]:
    """Return the held-out pictures, one per key.

    Args:
        seed: Seed of their order.
        key_count: Number of pictures; all by default.

    Returns:
        events: `{"pixels": 64 numbers}`.
    """
    _, held_out = split()
    sequences = {_key(index): [{"pixels": pixels}] for index, (pixels, _) in enumerate(held_out)}
    return mixed(first_keys(sequences, key_count), seed)


def labels() -> Labels:
    """Return the digit of each held-out picture."""
    return {_key(index): [digit] for index, (_, digit) in enumerate(split()[1])}


def score(answers: Answers) -> dict[str, float]:
    """Return the share of right answers as `accuracy`."""
    return {"accuracy": right_share(answers, labels(), "digit")}


def _learn(
    net: FullyConnected | Glimpses, epochs: int, rate: float, seed: int, report: Progress | None
) -> None:
    pictures, _ = split()
    pixels = torch.tensor([pixels for pixels, _ in pictures]) / BLACK  # (n, 64)
    digits = torch.tensor([DIGITS.index(digit) for _, digit in pictures])

    def loss_of(rows: Tensor, generator: torch.Generator) -> Tensor:
        return label_loss(net.answer(pixels[rows]), digits[rows])

    batches = shuffled(len(pictures), BATCH)
    fit(net, loss_of, batches, epochs=epochs, rate=rate, seed=seed, on_progress=report)


def _scale(column_count: int) -> tuple[Tensor, Tensor]:
    """Return mean and deviation with which pixels were scaled for training."""
    return torch.zeros(column_count), torch.full((column_count,), BLACK)


def _trained(net: FullyConnected | Glimpses) -> TrainedExample:
    return examined(net, (INPUTS, OUTPUTS), RULES, score, events())


def _key(index: int) -> str:
    return f"picture-{index:03d}"


PLAIN = Example(
    data="scikit-learn, 8 x 8 handwritten digits",
    train=train_plain,
    events=events,
    labels=labels,
    score=score,
)
BY_ROWS = Example(
    data=PLAIN.data,
    train=train_rows,
    events=events,
    labels=labels,
    score=score,
)
