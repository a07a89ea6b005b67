"""One to many: a first letter in, a name out, character by character.

First names of the US census of 1990. The event asks for a woman's or a man's name and optionally
its first letter; the net continues from its own output until it predicts `end`. Characters are
drawn at random from the probabilities: each event of each key gets its own name, and a replay draws
the same name again.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from livestep.models.examples.base import (
    SPLIT_SEED,
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
)
from livestep.models.examples.training import fit, label_loss, shuffled
from livestep.models.fields.encoding import encode
from livestep.models.fields.field_types import Category, total_width
from livestep.models.nets.cells import GRU
from livestep.models.seeding import one_thread, seeded
from livestep.models.sequences.feedback import FedBack
from livestep.models.sequences.forcing import teacher_forced
from livestep.models.sequences.rules import Feedback, Generation, SequenceRules

GENDERS = ("female", "male")
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
STOP = "end"

#: Maximum of generated characters; the longest name has 11 letters.
STEPS_MAX = 20

#: Below 1, likely characters become even more likely, and names look more usual.
TEMPERATURE = 0.7

#: One name in this many is held out.
HELD_OUT_EVERY = 10

#: Share of training names without the first letter in the event.
UNTOLD_SHARE = 0.25

#: Held-out events for each gender and first letter, and without a first letter.
EVENTS_EACH = 4

HIDDEN_SIZE = 128
EPOCHS, BATCH, RATE = 15, 64, 5e-3

INPUTS = (
    Category("gender", GENDERS),
    Category("first", LETTERS, optional=True),
    Category("previous", (*LETTERS, STOP), optional=True),
)
OUTPUTS = (Category("character", (*LETTERS, STOP)),)
RULES = SequenceRules(
    "one-to-many",
    feedback=(Feedback(output="character", input="previous", temperature=TEMPERATURE),),
    generation=Generation(STEPS_MAX, stop_output="character", stop_value=STOP),
)


@cache
def read_names() -> dict[str, list[str]]:
    """Read the names of each gender, the most frequent first.

    Returns:
        names: 4,275 female and 1,219 male names, in capital letters; some are both.

    Raises:
        ModelError: If a file is missing.

    Source:
        US Census Bureau 1990, "Frequently occurring surnames and first names"; from the package
        names.
    """
    return {
        gender: [
            line.split()[0]
            for line in data_file("names", f"dist.{gender}.first", install="names")
            .read_text(encoding="ascii")
            .splitlines()
        ]
        for gender in GENDERS
    }


def split() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Split pairs of gender and name into those for training and held-out ones.

    A name of both genders is on one side only.
    """
    names = sorted({name for of_gender in read_names().values() for name in of_gender})
    random.Random(SPLIT_SEED).shuffle(names)
    held_out = set(names[::HELD_OUT_EVERY])
    pairs = [(gender, name) for gender, of_gender in read_names().items() for name in of_gender]
    return (
        [pair for pair in pairs if pair[1] not in held_out],
        [pair for pair in pairs if pair[1] in held_out],
    )


def train(seed: int = 0, on_progress: Progress | None = None) -> TrainedExample:
    """Train a GRU with teacher forcing; about half a minute on one thread.

    Args:
        seed: Seed of weights, order, and which first letters are in the event.
        on_progress: Called with the progress.

    Returns:
        trained: Reports the scores of generated names; and for held-out names with their first
            letter, `bits_per_character`, and that of a table of pairs of characters.

    Raises:
        ModelError: If the data are missing.
    """
    with one_thread():
        net = seeded(seed, lambda: GRU(total_width(INPUTS), HIDDEN_SIZE, total_width(OUTPUTS)))
        _learn(net, seed, on_progress)
        trained = examined(net, (INPUTS, OUTPUTS), RULES, score, events())
        trained.report["bits_per_character"] = _bits_per_character(net)
        trained.report["bits_per_character_of_pairs"] = _bits_of_pairs()
        return trained


def events(seed: int = 0, key_count: int | None = None) -> Iterator[ExampleEvent]:
    """Ask for names of both genders, with each first letter and without one.

    Args:
        seed: Seed of their order.
        key_count: Number of events; all by default.

    Returns:
        events: `{"gender": "female", "first": "M"}`, one per key.
    """
    sequences = {key: [event] for key, event in _openings().items()}
    return mixed(first_keys(sequences, key_count), seed)


def labels() -> Labels:
    """Return nothing: no name is right or wrong."""
    return {}


def score(answers: Answers) -> dict[str, float]:
    """Score generated names.

    Returns:
        scores: Shares of the answers: `stopped`, ended by the net; `first_letter`, start with the
            requested letter, if there was one; `in_census`, are names of the census;
            `right_gender`, the share of the census names that have the requested gender.
    """
    openings, names = _openings(), read_names()
    known = set(names["female"]) | set(names["male"])
    stopped, first_letter, in_census, right_gender = [], [], [], []
    for key, of_key in answers.items():
        characters = [answer["character"]["label"] for answer in of_key]
        stopped.append(characters[-1] == STOP)
        name = "".join(characters[:-1] if stopped[-1] else characters)
        if "first" in openings[key]:
            first_letter.append(name[:1] == openings[key]["first"])
        in_census.append(name in known)
        if in_census[-1]:
            right_gender.append(name in names[openings[key]["gender"]])
    return {
        "stopped": _share(stopped),
        "first_letter": _share(first_letter),
        "in_census": _share(in_census),
        "right_gender": _share(right_gender),
    }


def _openings() -> dict[str, dict[str, Any]]:
    """Create the events that ask for a name, by key."""
    openings: dict[str, dict[str, Any]] = {}
    for number in range(EVENTS_EACH):
        for gender in GENDERS:
            for first in (*LETTERS, None):
                event = {"gender": gender} if first is None else {"gender": gender, "first": first}
                openings[f"{gender}-{first or 'any'}-{number}"] = event
    return openings


def _learn(net: GRU, seed: int, report: Progress | None) -> None:
    names, _ = split()
    fedback = FedBack(net, INPUTS, OUTPUTS, RULES.feedback)
    told, untold = _sequences(names, is_told=True), _sequences(names, is_told=False)

    def loss_of(rows: Tensor, generator: torch.Generator) -> Tensor:
        is_told = torch.rand(len(rows), generator=generator) >= UNTOLD_SHARE
        opening = torch.where(is_told.unsqueeze(1), told.opening[rows], untold.opening[rows])
        return told.loss(fedback, rows, opening)

    batches = shuffled(len(names), BATCH)
    fit(net, loss_of, batches, epochs=EPOCHS, rate=RATE, seed=seed, on_progress=report)


@dataclass(frozen=True, slots=True)
class _Sequences:
    """Names as the net sees them: the event, then the characters.

    Attributes:
        opening: (n, H_in). The row of the event.
        characters: (L, n) int64. Index of each character, including the stop; -1 after it.
    """

    opening: Tensor
    characters: Tensor

    def loss(self, fedback: FedBack, rows: Tensor, opening: Tensor) -> Tensor:
        """Return the average cross-entropy of the characters of some rows."""
        characters = self.characters[:, rows]
        sequence = torch.zeros(len(characters) + 1, len(rows), opening.shape[1])
        sequence[0] = opening
        sequence[1:, :, fedback.fed_columns[0]] = torch.nan  # filled by teacher forcing
        one_hot = torch.eye(len(LETTERS) + 1)[characters.clamp(min=0)]  # (L, N, F)
        # The first generated step, after that of the event, gets no feedback.
        targets = torch.cat([torch.zeros_like(one_hot[:1]), one_hot])
        outputs = teacher_forced(fedback, sequence, targets)
        return label_loss(outputs[1:], characters)


def _sequences(pairs: list[tuple[str, str]], is_told: bool) -> _Sequences:
    told = [
        {"gender": gender, "first": name[0]} if is_told else {"gender": gender}
        for gender, name in pairs
    ]
    index_of = {label: index for index, label in enumerate(OUTPUTS[0].values)}
    characters = pad_sequence(
        [torch.tensor([index_of[character] for character in (*name, STOP)]) for _, name in pairs],
        padding_value=-1,
    )
    return _Sequences(torch.from_numpy(encode(INPUTS, told)), characters)


@torch.no_grad()
def _bits_per_character(net: GRU) -> float:
    """Return the cross-entropy per character of held-out names, including the stop, in bits."""
    _, pairs = split()
    held_out = _sequences(pairs, is_told=True)
    fedback = FedBack(net, INPUTS, OUTPUTS, RULES.feedback)
    loss = held_out.loss(fedback, torch.arange(len(pairs)), held_out.opening)
    return float(loss) / math.log(2)


def _bits_of_pairs() -> float:
    """Return the same for a table of pairs: it knows the previous character, and the first one."""
    train_pairs, held_out = split()
    counts: Counter[tuple[str, str]] = Counter()
    for _, name in train_pairs:
        counts.update(pairwise((*name, STOP)))
    totals: Counter[str] = Counter()
    for (before, _), count in counts.items():
        totals[before] += count
    bits, character_count = 0.0, 0
    for _, name in held_out:
        for pair in pairwise((*name, STOP)):
            share = (counts[pair] + 1) / (totals[pair[0]] + len(LETTERS) + 1)  # Laplace
            bits -= math.log2(share)
        character_count += len(name) + 1  # the first character is given, and costs nothing
    return bits / character_count


def _share(answers: list[bool]) -> float:
    return sum(answers) / len(answers) if answers else float("nan")


EXAMPLE = Example(
    data="names, first names of the US census",
    train=train,
    events=events,
    labels=labels,
    score=score,
)
