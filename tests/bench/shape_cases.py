"""The shapes of sequence as rows of the benchmark: their models, and the events that they read.

All nets are random, with 64 hidden units. The biases of the stop labels are such that generated
sequences are as long as names and words are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Literal

import numpy as np
import orjson
import torch

from livestep import (
    GRU,
    Category,
    EncoderDecoder,
    Feedback,
    Field,
    FullyConnected,
    Generation,
    LoadedModel,
    Number,
    OutputField,
    SequenceRules,
    StepModel,
    load_model,
    save_model,
)
from tests.bench.dataset import (
    HIDDEN_SIZE,
    INPUT_SIZE,
    OUTPUT_SIZE,
    SEED,
    EventLog,
    IntArray,
    Utterances,
    occurrence,
    values_of,
)

LETTERS = tuple(ascii_lowercase)
STOP = "."
TARGETS = (*LETTERS, STOP)
ORIGINS = tuple(f"origin-{number}" for number in range(18))

#: The net of `names`.
NAMES_NET = f"{len(ORIGINS)} + {len(TARGETS)} -> {HIDDEN_SIZE} GRU -> {len(TARGETS)}"

#: Bound of a generated sequence.
STEPS_MAX = 20

#: With this logit above the others' the stop label is drawn about every eighth time.
NAMES_STOP_BIAS = 1.2

#: Weights this many times as large make a net that chooses the most probable label run through many
#: of them; the bias ends that after about seven.
WORDS_WEIGHT_SCALE, WORDS_STOP_BIAS = 4.0, 1.25

#: Words that are read, and their letters.
WORD_COUNT, WORD_LETTERS_MIN, WORD_LETTERS_MAX = 5_000, 3, 9

#: Keys whose sequences are open at the same time, in the logs whose sequences end.
KEY_COUNT = 3_700

#: A log of events: `vowels` without a mark, as all contestants read it; the others are made here.
LogName = Literal["vowels", "vowels-ended", "origins", "words"]


@dataclass(frozen=True)
class ShapeModel:
    """A net, what its columns mean, and its rules."""

    net: StepModel
    inputs: list[Field]
    outputs: list[OutputField]
    rules: SequenceRules

    def save(self, directory: Path) -> LoadedModel:
        """Write it for a worker, and read it as that will do."""
        save_model(self.net, directory, inputs=self.inputs, outputs=self.outputs, rules=self.rules)
        return load_model(directory)


@dataclass(frozen=True, kw_only=True)
class ShapeCase:
    """A row.

    Attributes:
        row: Its name.
        shape: Its name in the results.
        net: What is stepped, in words.
        make: Makes the model; seeded.
        log: What it reads.
    """

    row: str
    shape: str
    net: str
    make: Callable[[], ShapeModel]
    log: LogName = "vowels"


def plain(rules: SequenceRules) -> ShapeModel:
    """Make a net without a state."""
    torch.manual_seed(SEED)
    net = FullyConnected(INPUT_SIZE, HIDDEN_SIZE, OUTPUT_SIZE)
    return ShapeModel(net, [Number("x", INPUT_SIZE)], [Number("y", OUTPUT_SIZE)], rules)


def recurrent(rules: SequenceRules) -> ShapeModel:
    """Make a GRU: that of `dataset.make_model`, where nothing is fed back."""
    torch.manual_seed(SEED)
    inputs: list[Field] = [Number("x", INPUT_SIZE)]
    if rules.feedback:
        inputs.append(Number("last_y", OUTPUT_SIZE, optional=True))
    net = GRU(sum(field.width for field in inputs), HIDDEN_SIZE, OUTPUT_SIZE)
    return ShapeModel(net, inputs, [Number("y", OUTPUT_SIZE)], rules)


def names() -> ShapeModel:
    """Make a net that draws a name's letters, about eight, and the stop among them."""
    torch.manual_seed(SEED)
    net = GRU(len(ORIGINS) + len(TARGETS), HIDDEN_SIZE, len(TARGETS))
    with torch.no_grad():
        net.head.bias.zero_()
        net.head.bias[-1] = NAMES_STOP_BIAS
    rules = SequenceRules(
        "one-to-many",
        (Feedback("letter", "last_letter", temperature=1.0),),
        Generation(STEPS_MAX, "letter", STOP),
    )
    inputs: list[Field] = [
        Category("origin", ORIGINS),
        Category("last_letter", TARGETS, optional=True),
    ]
    return ShapeModel(net, inputs, [Category("letter", TARGETS)], rules)


def words() -> ShapeModel:
    """Make a net that reads a word and writes another, of about seven letters with its stop."""
    torch.manual_seed(SEED)
    net = EncoderDecoder(len(LETTERS), len(TARGETS), HIDDEN_SIZE, len(TARGETS))
    with torch.no_grad():
        for weights in net.parameters():
            weights.mul_(WORDS_WEIGHT_SCALE)
        net.head.bias.zero_()
        net.head.bias[-1] = WORDS_STOP_BIAS
    rules = SequenceRules(
        "encode-decode",
        (Feedback("sound", "last_sound"),),
        Generation(STEPS_MAX, "sound", STOP),
    )
    inputs: list[Field] = [
        Category("letter", LETTERS, optional=True),
        Category("last_sound", TARGETS, optional=True),
    ]
    return ShapeModel(net, inputs, [Category("sound", TARGETS)], rules)


def _vowels_net(hidden: str) -> str:
    return f"{INPUT_SIZE} -> {HIDDEN_SIZE} {hidden} -> {OUTPUT_SIZE}"


SHAPE_CASES = [
    ShapeCase(
        row="one-to-one", shape="one-to-one", net=_vowels_net("tanh"),
        make=lambda: plain(SequenceRules("one-to-one")),
    ),
    ShapeCase(
        row="synchronized", shape="synchronized, the same net", net=_vowels_net("tanh"),
        make=lambda: plain(SequenceRules("synchronized")),
    ),
    ShapeCase(
        row="synchronized-gru", shape="synchronized", net=_vowels_net("GRU"),
        make=lambda: recurrent(SequenceRules("synchronized")),
    ),
    ShapeCase(
        row="synchronized-feedback", shape="synchronized with feedback of all outputs",
        net=f"{INPUT_SIZE} + {OUTPUT_SIZE} -> {HIDDEN_SIZE} GRU -> {OUTPUT_SIZE}",
        make=lambda: recurrent(SequenceRules("synchronized", (Feedback("y", "last_y"),))),
    ),
    ShapeCase(
        row="many-to-one", shape="many-to-one", net=_vowels_net("GRU"), log="vowels-ended",
        make=lambda: recurrent(SequenceRules("many-to-one")),
    ),
    ShapeCase(
        row="one-to-many", shape="one-to-many, labels drawn",
        net=NAMES_NET, make=names, log="origins",
    ),
    ShapeCase(
        row="encode-decode", shape="encode-decode",
        net=f"{len(LETTERS)} -> {HIDDEN_SIZE} GRU, {len(TARGETS)} -> {HIDDEN_SIZE} GRU "
            f"-> {len(TARGETS)}",
        make=words, log="words",
    ),
]  # fmt: skip


@dataclass(frozen=True)
class ShapeLog:
    """Events in the order in which they are published.

    Attributes:
        records: Key and value of each.
        answer_count: Events that are answered, by one record or by a generated sequence.
    """

    records: Callable[[], Iterator[tuple[bytes, bytes]]]
    events: int
    answer_count: int


def make_shape_log(name: LogName, vowels: EventLog, count: int) -> ShapeLog:
    """Make a log.

    Args:
        name: Which.
        vowels: The log that all contestants read.
        count: Events of the logs that are made here.
    """
    if name == "vowels":
        return ShapeLog(lambda: vowels.records("json"), len(vowels), len(vowels))
    generator = np.random.default_rng(SEED)
    keys = generator.integers(KEY_COUNT, size=count)
    if name == "origins":
        values = [orjson.dumps({"origin": origin}) for origin in ORIGINS]
        return _log(keys, values, generator.integers(len(values), size=count), count)
    if name == "vowels-ended":
        return _ended_log(keys, *_ended_vowels(vowels.utterances))
    return _ended_log(keys, *_words(generator))


def _ended_vowels(utterances: Utterances) -> tuple[list[bytes], IntArray]:
    """Write all utterances, the last event of each with the mark that ends it."""
    values = values_of(utterances.features, "json")
    ends = utterances.starts[1:] - 1
    for end in ends.tolist():
        values[end] = values[end].removesuffix(b"}") + b',"end":true}'
    return values, ends


def _words(generator: np.random.Generator) -> tuple[list[bytes], IntArray]:
    """Write words one after the other, the last letter of each with the mark that ends it."""
    lengths = generator.integers(WORD_LETTERS_MIN, WORD_LETTERS_MAX + 1, size=WORD_COUNT)
    letters = generator.integers(len(LETTERS), size=lengths.sum())
    ends = np.cumsum(lengths) - 1
    is_end = np.zeros(len(letters), dtype=bool)
    is_end[ends] = True
    values = [
        orjson.dumps({"letter": LETTERS[letter], **({"end": True} if is_last else {})})
        for letter, is_last in zip(letters.tolist(), is_end.tolist(), strict=True)
    ]
    return values, ends


def _ended_log(keys: IntArray, values: list[bytes], ends: IntArray) -> ShapeLog:
    """Let each key go round the values, each from another place, so that ends are spread evenly.

    Args:
        keys: (n,) Key of each event.
        values: Sequences one after the other.
        ends: Last event of each sequence in `values`.
    """
    starts = np.random.default_rng(SEED).integers(len(values), size=KEY_COUNT)
    rows = (starts[keys] + occurrence(keys)) % len(values)
    return _log(keys, values, rows, int(np.isin(rows, ends).sum()))


def _log(keys: IntArray, values: list[bytes], rows: IntArray, answer_count: int) -> ShapeLog:
    names = [b"source-%05d" % number for number in range(KEY_COUNT)]

    def records() -> Iterator[tuple[bytes, bytes]]:
        for key, row in zip(keys.tolist(), rows.tolist(), strict=True):
            yield names[key], values[row]

    return ShapeLog(records, len(keys), answer_count)
