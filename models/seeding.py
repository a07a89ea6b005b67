"""The same numbers again: one thread of torch, and nets from a seed of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: more only slow down a small net, and round in another order."""
    thread_count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(thread_count)


def seeded(seed: int, make: Callable[[], Net]) -> Net:
    """Make a net from a seed of its own and leave torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()
