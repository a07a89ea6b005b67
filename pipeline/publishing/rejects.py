"""The file of rows that were left out: one JSON line each, without repetitions."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Self

import click
import orjson

from livestep.pipeline.errors import OutputError
from livestep.pipeline.publishing.columns import BadRow

_OPTION = "--rejects"


class Rejects:
    """Writes the rows that are left out. The file keeps its content until `begin`.

    Args:
        path: Path of the file.
        source: The published file, which must be another one.

    Raises:
        click.BadParameter: If it is the same file, under any name, or can't be a file.
    """

    def __init__(self, path: Path, source: BinaryIO) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._listed: frozenset[bytes] = frozenset()
        self._is_replacing = False
        if str(path) in ("-", "."):  # Path converts an empty text to a dot
            raise click.BadParameter("the path of a file is missing", param_hint=_OPTION)
        if _is_same(path, source):
            raise click.BadParameter(f"{path} is the published file itself", param_hint=_OPTION)

    def open(self, done_row_count: int) -> None:
        """Open the file, to replace its content, or to append where a publish continues.

        Args:
            done_row_count: Rows that are done; their rejects remain in the file.

        Raises:
            click.BadParameter: If it can't be opened, or appended to.
        """
        try:
            if done_row_count:
                self._listed = self._listed_behind(done_row_count)
            self._file = self._path.open("ab")
            self._is_replacing = not done_row_count and self._path.is_file()
        except OSError as error:
            problem = f"{self._path}: {error.strerror}"
            raise click.BadParameter(problem, param_hint=_OPTION) from error

    def begin(self) -> None:
        """Empty the file if it is to be replaced, now that the first row was read successfully."""
        if self._file is not None and self._is_replacing:
            self._file.truncate(0)
            self._is_replacing = False

    def write(self, row: BadRow) -> None:
        """Add a row, unless the previous publish has added it.

        Raises:
            OutputError: If it can't be written.
        """
        assert self._file is not None, "open the file before leaving rows out"
        line = orjson.dumps(
            {
                "row": row.number,
                "line": row.line,
                "key": None if row.key is None else _printable(row.key),
                "reason": _printable(row.reason),
            }
        )
        if line in self._listed:
            return
        try:
            self._file.write(line + b"\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file.

        Raises:
            OutputError: If the rest of the content can't be written.
        """
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as failure:
            raise self._unwritable(failure) from failure

    def _listed_behind(self, done_row_count: int) -> frozenset[bytes]:
        """Read the rejects of rows that will be read again.

        Raises:
            click.BadParameter: If the file contains something else.
        """
        if not self._path.is_file():
            return frozenset()
        listed = set()
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    is_behind = orjson.loads(line)["row"] > done_row_count
                except (ValueError, TypeError, KeyError):
                    raise click.BadParameter(
                        f"{self._path}, line {number} is not a row that was left out: --skip "
                        "appends to the rejects of the previous publish",
                        param_hint=_OPTION,
                    ) from None
                if is_behind:
                    listed.add(line.rstrip(b"\n"))
        return frozenset(listed)

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"--rejects {self._path} can't be written: {error.strerror}")


def _is_same(path: Path, source: BinaryIO) -> bool:
    try:
        status = path.stat()
        is_same = os.path.samestat(status, os.fstat(source.fileno()))
    except OSError:  # the file does not exist yet, or the source has no descriptor
        return False
    return is_same and stat.S_ISREG(status.st_mode)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
