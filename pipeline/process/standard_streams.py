"""Standard output that can't be written: disk full, closed, or a reader that has gone.

Python leaves each of these to the code that prints, and once more to the interpreter's end. Here
they become one error, which the command line turns into an exit code.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from livestep.pipeline.errors import OutputError, ReaderGoneError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

#: File descriptors of the three standard streams.
_INPUT, _OUTPUT, _ERROR = 0, 1, 2


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Print within this, in a process's main thread: what can't be written is an error.

    Streams that are not the process's own, because a test has replaced them, are left alone.

    Raises:
        OutputError: If what was printed can't be written.
        ReaderGoneError: If its reader has closed the pipe.
    """
    _open_closed_ones()
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Output(_OUTPUT, "w", closefd=False), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Error(_ERROR, "w", closefd=False), sys.stderr, is_line_buffered=True)
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except (OutputError, ReaderGoneError):
        discard_output()
        raise


class _Output(io.FileIO):
    """Standard output whose failures are errors of ours."""

    def write(self, data: Buffer) -> int:
        """Write, or raise OutputError or ReaderGoneError."""
        try:
            return super().write(data)
        except BrokenPipeError as error:
            raise ReaderGoneError("the reader of the output has gone") from error
        except OSError as error:
            why = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise OutputError(f"standard output can't be written: {why}") from error


class _Error(io.FileIO):
    """Standard error; what can't be written is lost: there is nowhere else to report it."""

    def write(self, data: Buffer) -> int:
        """Write if it can be written: the exit code still shows how the command ended."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _text(raw: io.FileIO, before: TextIO | None, *, is_line_buffered: bool = False) -> TextIO:
    """Make a text stream that writes as the one before it did."""
    encoding = before.encoding if before else "utf-8"
    errors = (before.errors if before else None) or "strict"
    is_line_buffered |= before is not None and before.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors, line_buffering=is_line_buffered
    )


def _open_closed_ones() -> None:
    """Open closed descriptors, or a broker's connection would get their number and their output.

    What replaces standard output can't be written: printing to it is an error.
    """
    for descriptor, mode in ((_INPUT, os.O_WRONLY), (_OUTPUT, os.O_RDONLY), (_ERROR, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, mode)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def discard_output() -> None:
    """Send what is still to be written to nowhere: flushing it later must not fail again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _OUTPUT)
    os.close(nowhere)
