"""Read the rows of CSV and JSON Lines files, each with its line number.

Lines are read in blocks, but none waits for later lines: a block is what can be read at once. A row
that can't be parsed is returned with the problem: the caller decides whether to stop or to leave it
out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from livestep.pipeline.errors import EngineError
from livestep.pipeline.publishing.json_lines import read_object

#: Largest cell: larger than the records of any common topic.
_CELL_CHARACTERS_MAX = 16 * 1024 * 1024

_BARE_CR = (
    "a carriage return without a line feed; if all lines end like this, as on an old Mac, "
    "`tr '\\r' '\\n'` converts them"
)

#: Bytes that are read at once: some thousand lines, and little compared with the process.
BLOCK_BYTES = 256 * 1024

#: Spreadsheets write it at the start of a file.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: a CSV row below the header, or a JSON object.

    Attributes:
        number: Row number, from 1; empty lines and the header don't count.
        line: Line number in the file, from 1; the last line if the row has several.
        members: Values by column: text for CSV cells, JSON values otherwise.
        problem: Why the row can't be parsed; it has no members then.
    """

    number: int
    line: int
    members: dict[str, Any]
    problem: str = ""


class LineError(EngineError):
    """Raised if a line can't be published; nothing of that line was sent.

    Args:
        name: Name of the file.
        line: Line number, from 1.
        problem: One sentence without a period.
        key: Key of the event, if known.
    """

    def __init__(self, name: str, line: int, problem: str, key: str | None = None) -> None:
        whose = "" if key is None else f" (key {key!r})"
        super().__init__(f"{name}, line {line}{whose}: {problem}")


def read_line_blocks(file: BinaryIO) -> Iterator[list[bytes]]:
    """Read the lines of a file in blocks: those that can be read at once, without waiting.

    Args:
        file: Opened for reading; a pipe, too.

    Yields:
        lines: Each with its line end.
    """
    read = getattr(file, "read1", file.read)
    rest: list[bytes] = []  # of a line that is longer than the previous blocks
    while block := read(BLOCK_BYTES):
        end = block.rfind(b"\n") + 1
        if end:
            yield io.BytesIO(b"".join([*rest, block[:end]])).readlines()
            rest = []
        rest.append(block[end:])
    if last := b"".join(rest):
        yield [last]


class Lines:
    """Iterates over the lines of blocks, one by one.

    Attributes:
        left_count: How many lines of the current block are left.
    """

    def __init__(self, blocks: Iterable[list[bytes]]) -> None:
        self.left_count = 0
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            self.left_count = len(block)
            for line in block:
                self.left_count -= 1
                yield line


@dataclass(frozen=True, slots=True)
class CsvFile:
    """An open CSV file.

    Attributes:
        columns: Columns of the header.
        header_line: Line number of the header, from 1.
        rows: Rows in order, read on demand.
    """

    columns: tuple[str, ...]
    header_line: int
    rows: Iterator[Row]


def read_csv(lines: Iterable[bytes], name: str) -> CsvFile:
    """Read CSV with a header line; empty lines before it are skipped.

    Args:
        lines: Lines of the file, in UTF-8.
        name: Name of the file, for errors.

    Raises:
        LineError: If the header is invalid.
    """
    text = _Text(lines)
    csv.field_size_limit(_CELL_CHARACTERS_MAX)
    rows = csv.reader(text, strict=True)
    header: list[str] | None = []
    try:
        while header is not None and len(header) < 2 and not "".join(header).strip():
            header = next(rows, None)
    except csv.Error as error:
        raise LineError(name, max(rows.line_num, 1), _csv_problem(error)) from None
    if header is None:
        raise LineError(name, 1, "the file is empty; the first line must name the columns")
    line = rows.line_num
    if text.bad_line:
        raise LineError(name, line, "not UTF-8")
    if len(set(header)) < len(header):
        raise LineError(name, line, f"two columns have the same name: {', '.join(header)}")
    return CsvFile(tuple(header), line, _csv_rows(rows, text, header))


def _csv_rows(rows: Any, text: _Text, header: list[str]) -> Iterator[Row]:
    number = 0
    while True:
        first_line = rows.line_num + 1
        problem = ""
        cells: list[str] | None = []
        try:
            cells = next(rows, None)
        except csv.Error as error:
            problem = _csv_problem(error)
        if cells is None:
            return
        if not cells and not problem:
            continue
        number += 1
        if text.bad_line >= first_line:
            problem = "not UTF-8"
        elif not problem and len(cells) != len(header):
            problem = f"{len(cells)} cells, but the header has {len(header)} columns"
        members = {} if problem else dict(zip(header, cells, strict=True))
        yield Row(number, rows.line_num, members, problem)


def _csv_problem(error: csv.Error) -> str:
    """Describe an error of `csv` to users, not programmers."""
    text = str(error)
    if text.startswith("field larger than"):
        return (
            f"a cell of more than {_CELL_CHARACTERS_MAX:,} characters: "
            "is the closing quote missing?"
        )
    if text.startswith("new-line character"):
        return f"invalid CSV: {_BARE_CR}"
    return f"invalid CSV: {text}"


class _Text:
    """Lines as text, for csv.

    Attributes:
        bad_line: Number of the last line that was not UTF-8; 0 for none.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.bad_line = 0
        self._lines = enumerate(lines, start=1)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        try:
            # Spreadsheets write a byte order mark at the start.
            return line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            self.bad_line = number
            return line.decode("utf-8", "replace")


def json_row(number: int, line_number: int, line: bytes) -> Row | None:
    """Parse a line of JSON Lines.

    Args:
        number: Number of the row, from 1.
        line_number: Number of the line, from 1.
        line: The line.

    Returns:
        row: With the problem if it can't be parsed; None for an empty line.
    """
    if not line.strip():
        return None
    try:
        return Row(number, line_number, read_object(line))
    except ValueError as error:
        problem = str(error)
        if b"\r" in line.rstrip():
            problem += f"; it has {_BARE_CR}"
        return Row(number, line_number, {}, problem)
