"""Reproducible numbers: one thread, nets from a seed, and the state of random number generators."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: more would slow down a small net, and change the rounding."""
    thread_count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(thread_count)


def seeded(seed: int, make: Callable[[], Net]) -> Net:
    """Make a net from its own seed, without changing torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Restore the generators of torch (on all devices), NumPy, and Python on exit."""
    has_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if has_cuda else ()
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - not to draw from it
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def random_states() -> tuple[Any, ...]:
    """Return something that changes whenever a number is drawn on the CPU."""
    numpy: Any = np.random.get_state()  # noqa: NPY002
    return (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        (numpy[1].tobytes(), *numpy[2:]),
    )
