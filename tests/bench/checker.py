"""Outputs against the unroll: wrong, missing, duplicate.

Systems don't number their outputs, so an output is recognised by its numbers: no two timesteps of
an utterance have outputs that are close to each other, which is checked first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import orjson
import torch

from livestep import TOLERANCE as TOLERANCES
from tests.bench.dataset import Codec, EventLog, FloatArray, IntArray

#: Largest |output - unroll| that is right.
TOLERANCE = TOLERANCES[torch.float32]


@dataclass(frozen=True)
class Counts:
    """What the reader found, over all keys.

    Attributes:
        wrong: Outputs that no event of their key should give, or that came out of order.
        missing: Events without an output.
        duplicate: Outputs beyond the first of their event.
        deviation: Largest |output - unroll| of a right output.
    """

    wrong: int
    missing: int
    duplicate: int
    deviation: float


class Checker:
    """Knows what each key's outputs should be.

    Args:
        log: The events.
        truth: (R, H_out) The right output of each row of the utterances.

    Raises:
        ValueError: If two timesteps of an utterance can't be distinguished.
    """

    def __init__(self, log: EventLog, truth: FloatArray) -> None:
        self._log = log
        self._truth = truth
        self._key_index = {name: index for index, name in enumerate(log.key_names)}
        self._expected = np.bincount(log.keys, minlength=len(log.key_names))
        starts = log.utterances.starts
        for first, end in zip(starts[:-1], starts[1:], strict=True):
            between = np.abs(truth[first:end, None] - truth[None, first:end]).max(axis=-1)
            if between[~np.eye(end - first, dtype=bool)].min(initial=1.0) <= 2 * TOLERANCE:
                raise ValueError("two timesteps of an utterance have the same output")

    def check(self, keys: list[bytes], outputs: FloatArray) -> Counts:
        """Compare all outputs of a run with the truth.

        Args:
            keys: Key of each output, in the order of arrival.
            outputs: (n, H_out).
        """
        index = np.array([self._key_index[key] for key in keys], dtype=np.int64)
        order = np.argsort(index, kind="stable")
        ends = np.cumsum(np.bincount(index, minlength=len(self._expected)))
        wrong = missing = duplicate = 0
        deviation = 0.0
        for key, (first, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            counts = self._check_key(key, outputs[order[first:end]])
            wrong += counts.wrong
            missing += counts.missing
            duplicate += counts.duplicate
            deviation = max(deviation, counts.deviation)
        return Counts(wrong, missing, duplicate, deviation)

    def _check_key(self, key: int, outputs: FloatArray) -> Counts:
        """Check one key: (m, H_out) in the order of arrival."""
        length = int(self._expected[key])
        if len(outputs) == 0:
            return Counts(0, length, 0, 0.0)
        first = self._log.utterances.starts[key % self._log.utterances.count]
        truth = self._truth[first : first + length]
        if len(outputs) == length:
            deviation = float(np.abs(outputs - truth).max())
            if deviation <= TOLERANCE:
                return Counts(0, 0, 0, deviation)
        distance = np.abs(outputs[:, None] - truth[None]).max(axis=-1)  # (m, length)
        nearest = distance.argmin(axis=1)
        is_right = distance.min(axis=1) <= TOLERANCE
        return _count(nearest[is_right], length, wrong=int((~is_right).sum()))


def _count(timesteps: IntArray, length: int, wrong: int) -> Counts:
    """Count what is out of order, missing and duplicate in the timesteps that arrived.

    Example:
        >>> _count(np.array([0, 1, 1, 3, 2]), length=6, wrong=0)
        Counts(wrong=1, missing=2, duplicate=1, deviation=0.0)
    """
    _, first_at = np.unique(timesteps, return_index=True)
    firsts = timesteps[np.sort(first_at)]
    disordered = int((np.diff(firsts) < 0).sum())
    return Counts(wrong + disordered, length - len(firsts), len(timesteps) - len(firsts), 0.0)


def read_outputs(values: list[bytes], codec: Codec, name: str) -> FloatArray:
    """Read the values of output records, of which `name` is the only member: (n, H_out)."""
    if codec == "float32":
        return np.frombuffer(b"".join(values), dtype="<f4").reshape(len(values), -1)
    return np.array([orjson.loads(value)[name] for value in values], dtype=np.float32)
