"""`livestep publish`: send the events of a file to a topic."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any, BinaryIO, Literal

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pipeline.client import EventPublisher
from pipeline.commands.event_files import (
    Event,
    EventColumns,
    LineError,
    read_csv,
    read_json_lines,
)
from pipeline.commands.options import bootstrap_servers_option, codec_option
from pipeline.exit_codes import ExitCode, exit_codes_help

#: The progress bar moves after so many lines.
_PROGRESS_LINES = 500

#: What click calls it.
_STANDARD_INPUT = ("-", "<stdin>")

_READERS = {"csv": read_csv, "jsonl": read_json_lines}


@click.command(epilog=exit_codes_help(ExitCode.FOUND, ExitCode.SETTING, ExitCode.KAFKA))
@click.argument("file", type=click.File("rb"), metavar="FILE.csv|.jsonl|-")
@click.option("--topic", required=True, help="Where to; must exist.")
@click.option("--key", required=True, metavar="COLUMN", help="Column that says whose event it is.")
@click.option(
    "--columns",
    metavar="A,B,C",
    help="Columns of the value.  [default: all that mean nothing else]",
)
@click.option(
    "--timestamp",
    metavar="COLUMN",
    help="Column of the event time: milliseconds since 1970, or ISO 8601. Kafka deletes by it: a "
    "topic for old events needs --config retention.ms=-1.  [default: now]",
)
@click.option(
    "--forget",
    metavar="COLUMN",
    help="Column that says by `true` that the line has no event: the key is to be forgotten.",
)
@click.option(
    "--end-each-key",
    is_flag=True,
    help="After the last line, end the sequence of each key of the file.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(sorted(_READERS)),
    help="[default: by the name; - needs it]",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="EVENTS_PER_S",
    help="No faster than this.  [default: as fast as it goes]",
)
@codec_option
@bootstrap_servers_option
def publish(
    file: BinaryIO,
    topic: str,
    key: str,
    columns: str | None,
    timestamp: str | None,
    forget: str | None,
    end_each_key: bool,
    file_format: str | None,
    rate: float | None,
    codec: Literal["json", "float32"],
    bootstrap_servers: str,
) -> None:
    """Publish the events of a file, or of standard input (-), one a line, in their order.

    In CSV a cell that is a number becomes one, and an empty cell is left out. A line that can't be
    read ends it: nothing of that line is sent, but the lines before it are.

    Columns `start` and `end` (true or false) and `steps_max` (a number) are marks of the key's
    sequence, unless --columns or another option names them; they are sent as headers. A line with
    no more than a mark is no event: it only begins or ends the sequence.
    """
    values = tuple(columns.split(",")) if columns else ()
    meaning = EventColumns(key, timestamp, values, forget)
    path = getattr(file, "name", "-")
    read = _READERS[file_format or _format_by_name(path)]
    name = "standard input" if path in _STANDARD_INPUT else path
    console = Console(stderr=True, highlight=False, markup=False)
    started_s = time.monotonic()
    count = 0
    with EventPublisher(bootstrap_servers, topic, codec=codec) as publisher:
        try:
            with _progress(console) as progress:
                lines = _shown_lines(file, progress)
                events = read(lines, meaning, name)
                if end_each_key:
                    events = ended(events)
                for event in _paced(events, rate):
                    _publish(publisher, event, codec, name)
                    count += 1
            publisher.flush()
        finally:
            elapsed_s = max(time.monotonic() - started_s, 1e-9)
            console.print(
                f"published {count:,} events to topic {topic!r} in {elapsed_s:.1f} s "
                f"({count / elapsed_s:,.0f} events/s)",
                soft_wrap=True,
            )


def ended(events: Iterator[Event]) -> Iterator[Event]:
    """Give events out, then for each key whose sequence they leave open one that ends it."""
    last_events: dict[bytes, Event] = {}
    for event in events:
        # Behind the other keys: sequences are ended in the order of their last events.
        last_events.pop(event.key, None)
        if not (event.is_forget or "end" in event.marks):
            last_events[event.key] = event
        yield event
    for last in last_events.values():
        yield replace(last, value={}, marks={"end": True})


def _publish(publisher: EventPublisher, event: Event, codec: str, name: str) -> None:
    """Send one event; what can't be written names its line."""
    try:
        if event.is_forget:
            publisher.forget(event.key, timestamp_ms=event.timestamp_ms)
            return
        value: Any = event.value if codec == "json" else _vector(event.value)
        if not value and ("start" in event.marks or "end" in event.marks):
            value = None
        publisher.publish(event.key, value, timestamp_ms=event.timestamp_ms, **event.marks)
    except (ValueError, TypeError) as error:
        raise LineError(name, event.line, str(error)) from None


def _vector(members: Mapping[str, Any]) -> list[Any]:
    """Put the members side by side, lists among them opened."""
    vector: list[Any] = []
    for value in members.values():
        if isinstance(value, list):
            vector.extend(value)
        else:
            vector.append(value)
    return vector


def _paced(events: Iterator[Event], rate: float | None) -> Iterator[Event]:
    """Give events out no faster than the rate, measured from the first."""
    if rate is None:
        yield from events
        return
    started_s = time.monotonic()
    for index, event in enumerate(events):
        early_s = started_s + index / rate - time.monotonic()
        if early_s > 0:
            time.sleep(early_s)
        yield event


def _progress(console: Console) -> Progress:
    """Make a progress bar that is gone at the end, and never there without a terminal."""
    return Progress(
        TextColumn("publishing"),
        BarColumn(),
        TextColumn("{task.fields[lines]:,} lines"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _shown_lines(file: BinaryIO, progress: Progress) -> Iterator[bytes]:
    """Give the file's lines and move the bar, by bytes, since lines can't be counted ahead."""
    status = os.fstat(file.fileno()) if _has_descriptor(file) else None
    is_file = status is not None and stat.S_ISREG(status.st_mode)
    task = progress.add_task("", total=status.st_size if status and is_file else None, lines=0)
    byte_count = 0
    for number, line in enumerate(file, start=1):
        byte_count += len(line)
        if number % _PROGRESS_LINES == 0:
            progress.update(task, completed=byte_count, lines=number)
        yield line


def _has_descriptor(file: BinaryIO) -> bool:
    try:
        file.fileno()
    except OSError:
        return False
    return True


def _format_by_name(name: str) -> str:
    suffix = PurePath(name).suffix.lstrip(".").lower()
    if suffix not in _READERS:
        raise click.UsageError(f"{name}: --format csv or --format jsonl has to say what it is")
    return suffix
