"""Fill a pool of GRU-64 states and print what a key costs: `python -m tests.bench.pool_memory`."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import torch

#: Enough that what the process needs anyway is negligible compared with it.
SLOTS = 200_000

#: Keys written at once, as by a batch.
BATCH_KEYS = 10_000

PARTITIONS = 4


class PoolMemory(msgspec.Struct, kw_only=True):
    """What a key costs.

    Attributes:
        array_bytes_a_key: Arrays and tensors: states, offsets, bookkeeping.
        total_bytes_a_key: Growth of the process: with the table of keys.
    """

    array_bytes_a_key: int
    total_bytes_a_key: int


def arrays_of(value: Any) -> Iterator[int]:
    """Yield the bytes of each array in an object and in the objects and tuples it is made of."""
    if isinstance(value, torch.Tensor | np.ndarray):
        yield int(value.nbytes)
    elif isinstance(value, tuple):
        for item in value:
            yield from arrays_of(item)
    elif type(value).__module__.startswith("livestep.pipeline."):
        # A native object has neither; its memory is in the total.
        names: Any = getattr(type(value), "__slots__", ()) or getattr(value, "__dict__", ())
        for name in names:
            yield from arrays_of(getattr(value, name))


def measure() -> PoolMemory:
    """Fill a pool to its last slot."""
    from livestep.pipeline.state.pool import Pool, StateLayout
    from tests.bench.dataset import make_model
    from tests.support.rig.machine import sample_process

    layout = StateLayout(make_model().initial_state(1))
    warm_up = Pool(layout, BATCH_KEYS)
    fill(warm_up, layout, BATCH_KEYS)
    del warm_up
    _give_back_memory()
    before_mb = sample_process(os.getpid()).rss_mb
    pool = Pool(layout, SLOTS)
    fill(pool, layout, SLOTS)
    _give_back_memory()
    grown_mb = sample_process(os.getpid()).rss_mb - before_mb
    return PoolMemory(
        array_bytes_a_key=round(sum(arrays_of(pool)) / SLOTS),
        total_bytes_a_key=round(grown_mb * 1e6 / SLOTS),
    )


def _give_back_memory() -> None:
    """Return to the system what the batches have freed, so that only the pool is measured."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def fill(pool: Any, layout: Any, count: int) -> None:
    """Write states of `count` new keys."""
    from livestep.pipeline.columns.keys import Keys

    for first in range(0, count, BATCH_KEYS):
        keys = Keys.of(
            (index % PARTITIONS, b"memory-%010d" % index)
            for index in range(first, first + BATCH_KEYS)
        )
        if pool.write(keys, layout.fresh(len(keys)), ticket=0, saved_ticket=0):
            sys.exit("the pool is smaller than its slots")


if __name__ == "__main__":
    print(msgspec.json.encode(measure()).decode())
