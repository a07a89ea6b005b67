"""Something that goes on in a thread for as long as a block lasts."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def in_background(run: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Run something beside the block; at its end, wait until that has ended, too.

    Args:
        run: Has to return soon after its event is set.
        name: Of the thread.
    """
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
