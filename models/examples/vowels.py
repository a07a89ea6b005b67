"""Many to one: frames of a voice in, then the speaker out.

Nine men say two Japanese vowels; a frame is 12 numbers (cepstrum coefficients), an utterance 7 to
29 frames. Each utterance is a key. Its last frame has the mark `end`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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
    right_share,
)
from livestep.models.examples.training import fit, fold_scale, label_loss, shuffled
from livestep.models.fields.field_types import Category, Number
from livestep.models.nets.cells import GRU
from livestep.models.seeding import one_thread, seeded
from livestep.models.sequences.rules import SequenceRules

FRAME_SIZE = 12
SPEAKERS = tuple("123456789")

HIDDEN_SIZE = 64
EPOCHS, BATCH, RATE = 150, 30, 5e-3

#: Standard deviation of the noise on each standardized input in training: 270 utterances are few,
#: and the nine voices are similar. Chosen by validation on thirds of the training part.
NOISE = 0.7

INPUTS = (Number("frame", FRAME_SIZE),)
OUTPUTS = (Category("speaker", SPEAKERS),)
RULES = SequenceRules("many-to-one")


class Utterance(NamedTuple):
    """One utterance.

    Attributes:
        frames: L lists of 12 numbers.
        speaker: One of `SPEAKERS`.
    """

    frames: list[list[float]]
    speaker: str


def read_utterances(part: str) -> list[Utterance]:
    """Read one part of the data.

    Args:
        part: "TRAIN" (270 utterances) or "TEST" (370).

    Returns:
        utterances: In the order of the file.

    Raises:
        ModelError: If the file is missing.

    Source:
        Kudo, Toyama and Shimbo 1999, "Multidimensional curve classification using passing-through
        regions"; from the package aeon.
    """
    file = data_file(
        "aeon",
        f"datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts",
        install="--no-deps aeon",  # only the file is needed, and aeon requires an older pandas
    )
    utterances = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith(("#", "@")):
            *channels, speaker = line.strip().split(":")
            columns = [[float(cell) for cell in channel.split(",")] for channel in channels]
            frames = [list(frame) for frame in zip(*columns, strict=True)]
            utterances.append(Utterance(frames, speaker))
    return utterances


def train(seed: int = 0, on_progress: Progress | None = None) -> TrainedExample:
    """Train a GRU; about ten seconds on one thread.

    It learns to predict the speaker at each frame; the last frame counts twice.

    Args:
        seed: Seed of weights, order and noise.
        on_progress: Called with the progress.

    Returns:
        trained: Reports `accuracy` on the test part of the data.

    Raises:
        ModelError: If the data are missing.
    """
    with one_thread():
        net = seeded(seed, lambda: GRU(FRAME_SIZE, HIDDEN_SIZE, len(SPEAKERS)))
        _learn(net, seed, on_progress)
        return examined(net, (INPUTS, OUTPUTS), RULES, score, events())


def events(seed: int = 0, key_count: int | None = None) -> Iterator[ExampleEvent]:
    """Return the frames of the test part, with mixed utterances.

    Args:
        seed: Seed of the mix.
        key_count: Number of utterances; all by default.

    Returns:
        events: `{"frame": 12 numbers}`, the last of each key with `"end": True`.
    """
    sequences = {}
    for index, utterance in enumerate(read_utterances("TEST")):
        of_key: list[dict[str, Any]] = [{"frame": frame} for frame in utterance.frames]
        of_key[-1]["end"] = True
        sequences[_key(index)] = of_key
    return mixed(first_keys(sequences, key_count), seed)


def labels() -> Labels:
    """Return the speaker of each utterance of the test part."""
    return {_key(index): [one.speaker] for index, one in enumerate(read_utterances("TEST"))}


def score(answers: Answers) -> dict[str, float]:
    """Return the share of right answers as `accuracy`."""
    return {"accuracy": right_share(answers, labels(), "speaker")}


def _learn(net: GRU, seed: int, report: Progress | None) -> None:
    utterances = read_utterances("TRAIN")
    every_frame = torch.tensor([frame for one in utterances for frame in one.frames])
    mean, deviation = every_frame.mean(dim=0), every_frame.std(dim=0)  # (12,)
    sequence = pad_sequence(
        [(torch.tensor(one.frames) - mean) / deviation for one in utterances]
    )  # (L, n, 12)
    lengths = torch.tensor([len(one.frames) for one in utterances])
    speakers = torch.tensor([SPEAKERS.index(one.speaker) for one in utterances])
    is_padding = torch.arange(len(sequence)).unsqueeze(1) >= lengths  # (L, n)
    speaker_by_frame = speakers.expand(len(sequence), -1).masked_fill(is_padding, -1)

    def loss_of(rows: Tensor, generator: torch.Generator) -> Tensor:
        frames = sequence[:, rows]
        logits = net.unroll(frames + NOISE * torch.randn(frames.shape, generator=generator))
        last = logits[lengths[rows] - 1, torch.arange(len(rows))]  # (N, speakers)
        return label_loss(last, speakers[rows]) + label_loss(logits, speaker_by_frame[:, rows])

    batches = shuffled(len(utterances), BATCH)
    fit(net, loss_of, batches, epochs=EPOCHS, rate=RATE, seed=seed, on_progress=report)
    fold_scale(net.recurrent, mean, deviation)


def _key(index: int) -> str:
    return f"utterance-{index:03d}"


EXAMPLE = Example(
    data="aeon, JapaneseVowels",
    train=train,
    events=events,
    labels=labels,
    score=score,
)
