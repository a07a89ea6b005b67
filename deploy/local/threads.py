"""Work that runs in a thread for the duration of a block."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def in_background(run: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Run a function in a thread during the block; at its end, wait for the thread.

    Args:
        run: Must return soon after its event is set.
        name: Name of the thread.
    """
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
