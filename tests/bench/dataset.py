"""The events of the benchmark, and the truth about them.

JapaneseVowels, test part: 370 utterances, one key each, an event is 12 numbers of one moment.
They are repeated under new keys; all keys of ten repetitions are mixed at random, each in its own
order, as events of many live sources are.

Source:
    Kudo, Toyama, Shimbo 1999, Multidimensional curve classification using passing-through regions;
    the file is in the package `aeon`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import orjson
import torch

from livestep import GRU

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Codec = Literal["json", "float32"]

INPUT_SIZE = 12
HIDDEN_SIZE = 64
OUTPUT_SIZE = 9

#: Repetitions whose keys are alive at the same time: 3,700 keys, 56,870 events.
GROUP_COPIES = 10

#: Seed of the weights and of the mixing.
SEED = 0


@dataclass(frozen=True)
class Utterances:
    """What was recorded, all utterances one after the other; R rows in all.

    Attributes:
        features: (R, 12).
        starts: First row of each utterance, and R at the end.
    """

    features: FloatArray
    starts: IntArray

    @property
    def count(self) -> int:
        """How many utterances there are."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> IntArray:
        """Events of each utterance."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class EventLog:
    """Events in the order in which they are published, n of them.

    Attributes:
        rows: (n,) Row of the utterances that each event is.
        keys: (n,) Index into `key_names` of each event.
        timesteps: (n,) How many events of its key came before.
        key_names: Keys in the records; key i is utterance i % count, repetition i // count.
        utterances: What was recorded.
    """

    rows: IntArray
    keys: IntArray
    timesteps: IntArray
    key_names: list[bytes]
    utterances: Utterances

    def __len__(self) -> int:
        return len(self.rows)

    def records(self, codec: Codec) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of each event."""
        values = values_of(self.utterances.features, codec)
        for row, key in zip(self.rows.tolist(), self.keys.tolist(), strict=True):
            yield self.key_names[key], values[row]

    def head(self, count: int) -> EventLog:
        """Return the log of the first `count` events; keys without events stay in `key_names`."""
        cut = slice(count)
        return EventLog(
            self.rows[cut], self.keys[cut], self.timesteps[cut], self.key_names, self.utterances
        )


def read_utterances(path: Path) -> Utterances:
    """Read a `.ts` file: a line is an utterance, channels are divided by colons, the label is last.

    Raises:
        ValueError: If an utterance doesn't have 12 channels of the same length.
    """
    series = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith(("#", "@")):
            *channels, _label = line.strip().split(":")
            series.append(np.array([row.split(",") for row in channels], dtype=np.float32).T)
            if series[-1].shape[1] != INPUT_SIZE:
                raise ValueError(f"{path}: an utterance has {series[-1].shape[1]} channels")
    starts = np.cumsum([0, *(len(one) for one in series)])
    return Utterances(np.ascontiguousarray(np.concatenate(series)), starts)


def make_log(utterances: Utterances, copies: int) -> EventLog:
    """Repeat the utterances under new keys and mix them, seeded.

    Args:
        utterances: What was recorded.
        copies: A multiple of GROUP_COPIES; the first group is the same for all values.
    """
    count = utterances.count
    generator = np.random.default_rng(SEED)
    group_keys = np.repeat(
        np.arange(count * GROUP_COPIES), np.tile(utterances.lengths, GROUP_COPIES)
    )
    keys = np.concatenate(
        [
            generator.permutation(group_keys) + group * count * GROUP_COPIES
            for group in range(copies // GROUP_COPIES)
        ]
    )
    timesteps = occurrence(keys)
    names = [b"utterance-%03d-%02d" % (i % count, i // count) for i in range(count * copies)]
    return EventLog(utterances.starts[keys % count] + timesteps, keys, timesteps, names, utterances)


def make_model() -> GRU:
    """Make the model that every contestant runs; seeded, not trained."""
    torch.manual_seed(SEED)
    return GRU(input_size=INPUT_SIZE, hidden_size=HIDDEN_SIZE, output_size=OUTPUT_SIZE).eval()


@torch.inference_mode()
def unroll_all(model: GRU, utterances: Utterances) -> FloatArray:
    """Unroll each utterance offline: (R, 9), the outputs that every contestant must give."""
    outputs = []
    for first, end in zip(utterances.starts[:-1], utterances.starts[1:], strict=True):
        sequence = torch.from_numpy(utterances.features[first:end])[:, None]  # (L, 1, H_in)
        outputs.append(model.unroll(sequence)[:, 0].numpy())
    return np.concatenate(outputs)


def values_of(features: FloatArray, codec: Codec) -> list[bytes]:
    """Write rows of features as record values."""
    if codec == "float32":
        return [row.tobytes() for row in features.astype("<f4")]
    return [orjson.dumps({"x": row}, option=orjson.OPT_SERIALIZE_NUMPY) for row in features]


def save_weights(model: GRU, path: Path) -> None:
    """Write the weights for the peers, by torch's names for the parameters of a GRUCell."""
    parameters = {
        name.removesuffix("_l0"): tensor.detach().numpy()
        for name, tensor in model.recurrent.named_parameters()
    }
    parameters["head_weight"] = model.head.weight.detach().numpy()
    parameters["head_bias"] = model.head.bias.detach().numpy()
    np.savez(path, allow_pickle=False, **parameters)


def occurrence(keys: IntArray) -> IntArray:
    """Count, for each element, how many equal ones stand before it.

    Example:
        >>> occurrence(np.array([7, 5, 7, 7, 5])).tolist()
        [0, 0, 1, 2, 1]
    """
    order = np.argsort(keys, kind="stable")
    grouped = keys[order]
    first = np.searchsorted(grouped, grouped)
    occurrence = np.empty(len(keys), dtype=np.int64)
    occurrence[order] = np.arange(len(keys)) - first
    return occurrence
