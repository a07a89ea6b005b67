"""Generation alone: many open sequences that advance together, against one after another."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from livestep import FedBack, LoadedModel, generate
from livestep.models.contract import like_state, state_tensors
from livestep.models.sequences.feedback import key_seed
from livestep.pipeline.batch.generating import Generator, Openings
from tests.bench.dataset import SEED, FloatArray
from tests.bench.results import GenerationSpeed
from tests.bench.shape_cases import NAMES_NET, names

T = TypeVar("T")

#: Sequences that are open at the same time.
SEQUENCE_COUNT = 1_000

#: The few seconds of one after another are steady; all together take milliseconds.
TOGETHER_REPEATS = 15


class Opened(NamedTuple):
    """What the sequences begin with, for the engine and for its offline twin."""

    openings: Openings
    keys: list[bytes]


@torch.inference_mode()
def measure(directory: Path) -> GenerationSpeed:
    """Measure the names model on the CPU; torch should have one thread, as in a worker.

    Args:
        directory: Where the model is written.
    """
    model = names().save(directory)
    net = FedBack(model.net, model.inputs, model.outputs, model.rules.feedback).eval()
    generator = Generator(model, net, torch.device("cpu"))
    openings, keys = open_sequences(model)
    singles = [_one(openings, index) for index in range(SEQUENCE_COUNT)]
    generator.generate(openings)

    together_s = []
    for _ in range(TOGETHER_REPEATS):
        seconds, whole = _timed(lambda: generator.generate(openings))
        together_s.append(seconds)
    one_by_one_s, alone = _timed(lambda: [generator.generate(single) for single in singles])
    offline_s, truth = _timed(lambda: _offline(model, openings, keys))

    lengths = np.bincount(whole.opening, minlength=SEQUENCE_COUNT)
    pieces = np.split(whole.outputs, np.cumsum(lengths)[:-1])
    return GenerationSpeed(
        net=NAMES_NET,
        device="cpu",
        sequences=SEQUENCE_COUNT,
        records=len(whole.outputs),
        together_ms=round(statistics.median(together_s) * 1e3, 1),
        one_by_one_ms=round(one_by_one_s * 1e3, 1),
        offline_ms=round(offline_s * 1e3, 1),
        different=sum(
            not (np.array_equal(piece, single.outputs) and np.array_equal(piece, offline))
            for piece, single, offline in zip(pieces, alone, truth, strict=True)
        ),
    )


def open_sequences(model: LoadedModel) -> Opened:
    """Let each sequence have seen one event."""
    generator = np.random.default_rng(SEED)
    columns = generator.integers(model.inputs[0].width, size=SEQUENCE_COUNT)
    inputs = torch.zeros(SEQUENCE_COUNT, model.net.input_size)
    inputs[torch.arange(SEQUENCE_COUNT), torch.from_numpy(columns)] = 1.0
    _, state = model.net.step(inputs)
    keys = [b"source-%05d" % number for number in range(SEQUENCE_COUNT)]
    assert model.rules.generation is not None
    openings = Openings(
        tensors=state_tensors(state),
        key_seeds=np.array([key_seed(key) for key in keys], dtype=np.uint64),
        offsets=np.arange(SEQUENCE_COUNT),
        steps_max=np.full(SEQUENCE_COUNT, model.rules.generation.steps_max),
    )
    return Opened(openings, keys)


def _one(openings: Openings, index: int) -> Openings:
    cut = slice(index, index + 1)
    return Openings(
        tensors=tuple(tensor[cut] for tensor in openings.tensors),
        key_seeds=openings.key_seeds[cut],
        offsets=openings.offsets[cut],
        steps_max=openings.steps_max[cut],
    )


def _offline(model: LoadedModel, openings: Openings, keys: list[bytes]) -> list[FloatArray]:
    """Generate one after another as `generation` does: the values, and the labels drawn."""
    template = model.net.initial_state(1)
    outputs = []
    for index, key in enumerate(keys):
        rows: list[Tensor] = [tensor[index : index + 1] for tensor in openings.tensors]
        generated = generate(
            model.net, model.rules, model.inputs, model.outputs, like_state(rows, template),
            key=key, offset=index,
        )  # fmt: skip
        outputs.append(np.concatenate([generated.values, generated.chosen], axis=1))
    return outputs


def _timed(run: Callable[[], T]) -> tuple[float, T]:
    start_s = time.perf_counter()
    result = run()
    return time.perf_counter() - start_s, result
