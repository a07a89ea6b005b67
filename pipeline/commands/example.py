"""`livestep example`: a model trained on real data, and held-out events to stream."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from livestep.models.examples import SUMMARIES
from livestep.models.sequences.rules import MARKS
from livestep.pipeline.commands.help_text import closing_help
from livestep.pipeline.exit_codes import ExitCode

if TYPE_CHECKING:
    from livestep.models.examples import ExampleEvent

#: Members that each line has in addition to the event.
KEY_MEMBER, TIME_MEMBER = "key", "time"


#: Click rewraps a paragraph unless it starts with a backspace.
_LIST = "\b\n" + "\n".join(f"{name:<12} {text}" for name, text in SUMMARIES.items())

_HELP = f"""Train a small net on real data, on one thread in a minute or less, and test it.

{_LIST}

The data come in packages: pip install 'livestep[examples]'. The vowels need pip install --no-deps
aeon.
"""


@click.command(
    help=_HELP,
    short_help="Train a model on real data, and write events to publish.",
    epilog=closing_help(
        "livestep example names --model names --events names.jsonl",
        codes=(ExitCode.MODEL,),
    ),
)
@click.argument("name", type=click.Choice(list(SUMMARIES)), metavar="NAME")
@click.option(
    "--model",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the model; an existing model is replaced.",
)
@click.option(
    "--events",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.jsonl",
    help="File for the held-out events; replaced.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of weights and order.")
def example(name: str, model: Path, events: Path, seed: int) -> None:
    """Train and save the model, write its events, and report: see `_HELP`."""
    # Torch takes seconds to import; --help should not wait for it.
    from livestep.models.disk.saving import save_model
    from livestep.models.examples import EXAMPLES

    chosen = EXAMPLES[name]
    console = Console(highlight=False, soft_wrap=True, markup=False)
    # First: it is fast, and fails early if the data or the file are missing.
    written = _write(events, chosen.events(seed, None))
    started_s = time.monotonic()
    with _progress(console) as progress:
        task = progress.add_task("reading", total=1.0)
        trained = chosen.train(
            seed,
            lambda fraction, text: progress.update(task, completed=fraction, description=text),
        )
    elapsed_s = time.monotonic() - started_s
    save_model(
        trained.net, model, trained.inputs, trained.outputs, trained.codec, rules=trained.rules
    )
    console.print(f"{SUMMARIES[name]}\ndata: {chosen.data}")
    console.print(f"trained in {elapsed_s:.0f} s; on held-out data:")
    for figure, value in trained.report.items():
        console.print(f"  {figure.replace('_', ' '):<30} {value:.4f}")
    console.print(
        f"model in {model}, {written.event_count:,} events of {written.key_count:,} keys in "
        f"{events}:"
    )
    options = f" --timestamp {TIME_MEMBER}" if written.has_time else ""
    options += " --marks" if written.has_marks else ""
    console.print(f"  livestep publish {events} --topic TOPIC --key {KEY_MEMBER}{options}")


class _Written(NamedTuple):
    """What a written file of events contains."""

    event_count: int
    key_count: int
    has_time: bool
    has_marks: bool


def _write(file: Path, events: Iterable[ExampleEvent]) -> _Written:
    """Write events as JSON lines.

    Raises:
        click.BadParameter: If the file can't be written.
    """
    keys: set[str] = set()
    event_count, has_time, has_marks = 0, False, False
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as lines:
            for key, timestamp_ms, event in events:
                moment = {} if timestamp_ms is None else {TIME_MEMBER: timestamp_ms}
                line = orjson.dumps({KEY_MEMBER: key, **moment, **event})
                lines.write(line + b"\n")
                keys.add(key)
                event_count += 1
                has_time = timestamp_ms is not None
                has_marks = has_marks or any(mark in event for mark in MARKS)
    except OSError as error:
        raise click.BadParameter(f"{file}: {error.strerror}", param_hint="'--events'") from error
    return _Written(event_count, len(keys), has_time, has_marks)


def _progress(console: Console) -> Progress:
    """Create a progress bar that disappears at the end; without a terminal there is none."""
    return Progress(
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
