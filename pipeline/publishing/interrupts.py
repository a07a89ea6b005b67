"""Signals that end a command between two rows, so that it can report its progress."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):  # noqa: N818 - not an error
    """Raised where a command may be interrupted.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """Hold signals back until the work can be interrupted.

    Attributes:
        count: How many signals have arrived; the second one means: stop waiting for anything.
    """

    def __init__(self) -> None:
        self.count = 0
        self._number = 0
        self._is_waiting = False

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Catch SIGINT, SIGTERM and SIGHUP; an ignored signal (nohup) remains ignored."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread can set handlers
            return
        before = {
            number: signal.signal(number, self._handle)
            for number in _SIGNALS
            if signal.getsignal(number) not in (signal.SIG_IGN, None)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise Interrupted if a signal has arrived."""
        if self._number:
            raise Interrupted(self._number)

    def each(self, items: Iterable[T]) -> Iterator[T]:
        """Pass on items; waiting for the next one (a line of a pipe) can be interrupted."""
        iterator = iter(items)
        while True:
            self.check()
            self._is_waiting = True
            try:
                item = next(iterator, _END)
            finally:
                self._is_waiting = False
            if item is _END:
                return
            yield item  # type: ignore[misc]

    def sleep(self, seconds: float) -> None:
        """Sleep; a signal ends it."""
        self.check()
        self._is_waiting = True
        try:
            time.sleep(seconds)
        finally:
            self._is_waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self._number = self._number or number
        if self._is_waiting:
            self._is_waiting = False
            raise Interrupted(self._number)


_END = object()
