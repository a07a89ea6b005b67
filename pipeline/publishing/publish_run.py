"""Publish a file, from the options to the exit code."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from livestep.pipeline.clients.record_sender import RecordSender
from livestep.pipeline.exit_codes import ExitCode
from livestep.pipeline.publishing.columns import EventColumns, with_ends
from livestep.pipeline.publishing.expiry import Expiry
from livestep.pipeline.publishing.files import read_line_blocks
from livestep.pipeline.publishing.interrupts import Interrupted, Interrupts
from livestep.pipeline.publishing.position import Position
from livestep.pipeline.publishing.publication import Course, Publication, rows_text
from livestep.pipeline.publishing.rejects import Rejects
from livestep.pipeline.publishing.setup import Source, find_target, open_source
from livestep.pipeline.topic_names import check_topic_name

#: Click's names for it.
_STANDARD_INPUT = ("-", "<stdin>")


def publish_file(
    file: BinaryIO,
    topic: str,
    bootstrap_servers: str,
    columns: EventColumns,
    *,
    file_format: str | None,
    model: str | None,
    codec: str | None,
    skip: str,
    is_skipping_errors: bool,
    rejects: Path | None,
    rate: float | None,
    is_ending_each_key: bool,
) -> int:
    """Publish a file with the options of the command.

    Returns:
        code: The exit code.

    Raises:
        EngineError: If it ends early, except by a signal.
    """
    check_topic_name(topic, "--topic")
    console = Console(stderr=True, highlight=False, markup=False)
    interrupts = Interrupts()
    path = getattr(file, "name", "-")
    name = "standard input" if path in _STANDARD_INPUT else path
    file_format = file_format or _format_by_name(path)
    try:
        with interrupts.caught(), contextlib.ExitStack() as stack:
            rejects_file = None if rejects is None else stack.enter_context(Rejects(rejects, file))
            bar = stack.enter_context(_progress(console))
            blocks = _shown(file, interrupts.each(_readable(file, name)), bar)
            source = open_source(blocks, name, file_format, columns, model, codec)
            left_out_count = _send(
                source,
                bootstrap_servers,
                skip,
                is_ending_each_key,
                Course(name, topic, is_skipping_errors, rate, rejects_file),
                interrupts,
                console,
            )
    except Interrupted as interrupted:
        console.print(f"stopped by {interrupted}")
        return 128 + interrupted.number
    return ExitCode.FOUND if left_out_count else ExitCode.DONE


def _send(
    source: Source,
    bootstrap_servers: str,
    skip: str,
    is_ending_each_key: bool,
    course: Course,
    interrupts: Interrupts,
    console: Console,
) -> int:
    """Find the topic and send the rows; return how many were left out."""
    target, note = find_target(bootstrap_servers, course.topic)
    for text in filter(None, (source.note, note)):
        console.print(f"note: {text}", soft_wrap=True)
    try:
        position = Position.parse(skip, target.partition_count)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--skip") from None
    batches = source.batches(target.limits)
    if is_ending_each_key:
        batches = with_ends(batches)
    sender = RecordSender(
        target.options, course.topic, target.batch_bytes_max, lambda: interrupts.count > 1
    )
    expiry = Expiry(
        course.topic,
        bootstrap_servers,
        target.settings,
        lambda text: console.print(f"warning: {text}", soft_wrap=True),
    )
    if course.rejects is not None:
        course.rejects.open(position.row_count)
    publication = Publication(course, position, sender, interrupts, console, expiry)
    publication.run(batches)
    if publication.is_skip_beyond_end:
        raise click.BadParameter(
            f"{course.name} has {rows_text(publication.row_count)}: --skip {publication.row_count} "
            f"would skip them all, --skip {skip} is for another file",
            param_hint="--skip",
        )
    return publication.left_out_count


def _readable(file: BinaryIO, name: str) -> Iterator[list[bytes]]:
    """Read the file's lines, in blocks.

    Raises:
        click.UsageError: If it can't be read: a directory, or a closed stream.
    """
    try:
        yield from read_line_blocks(file)
    except OSError as error:
        raise click.UsageError(f"{name} can't be read: {error.strerror or error}") from error


def _progress(console: Console) -> Progress:
    """Create a progress bar that disappears at the end; without a terminal there is none."""
    return Progress(
        TextColumn("publishing"),
        BarColumn(),
        TextColumn("{task.fields[lines]:,} lines"),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _shown(
    file: BinaryIO, blocks: Iterable[list[bytes]], progress: Progress
) -> Iterator[list[bytes]]:
    """Pass on lines and update the bar, by bytes: the number of lines is unknown."""
    status = os.fstat(file.fileno()) if _has_descriptor(file) else None
    is_file = status is not None and stat.S_ISREG(status.st_mode)
    task = progress.add_task("", total=status.st_size if status and is_file else None, lines=0)
    byte_count = line_count = 0
    for lines in blocks:
        yield lines
        # The records of these lines have been handed over: only the last ones are still in flight.
        byte_count += sum(map(len, lines))
        line_count += len(lines)
        progress.update(task, completed=byte_count, lines=line_count)


def _has_descriptor(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except OSError:
        return False
    return True


def _format_by_name(name: str) -> str:
    suffix = PurePath(name).suffix.lstrip(".").lower()
    if suffix not in ("csv", "jsonl"):
        raise click.UsageError(f"{name}: the format is unknown: use --format csv or --format jsonl")
    return suffix
