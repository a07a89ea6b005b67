"""`livestep audit`: is every prediction in an output topic right, and is none missing?"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from livestep.pipeline.commands.help_text import closing_help
from livestep.pipeline.commands.shared_options import Number, worker_options
from livestep.pipeline.exit_codes import ExitCode
from livestep.pipeline.settings import Settings

if TYPE_CHECKING:
    from livestep.pipeline.audit.audit_report import AuditReport

#: `--share` is rounded to this many parts.
_PARTS = 1_000_000


@click.command(
    short_help="Compare all predictions with the model run offline; exit 0 or 1.",
    epilog=closing_help(
        "livestep audit --model DIR --input-topic events --output-topic predictions",
        codes=(
            ExitCode.FOUND,
            ExitCode.SETTING,
            ExitCode.KAFKA,
            ExitCode.MODEL,
            ExitCode.INTERRUPT,
        ),
    ),
)
@click.option("--model", help="Directory of the model that made the predictions.")
@worker_options
@click.option("--dead-letter-topic", help="Default: <input-topic>.dead-letter, if it exists.")
@click.option("--group", help="Consumer group of the workers.  [default: livestep.<output-topic>]")
@click.option("--guarantee", help="With at-least-once, repeated predictions are allowed.")
@click.option("--device", help="Where the model runs: auto, cpu or cuda.")
@click.option(
    "--rounding",
    help="free: numbers may differ in the last digits.  [default: exact]",
)
@click.option("--key", "keys", multiple=True, metavar="K", help="Only this key; repeatable.")
@click.option(
    "--share",
    type=Number(0, 1, min_open=True),
    default=1.0,
    metavar="SHARE",
    help="Only this share of the keys, such as 0.01: all their events have to fit in memory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def audit(keys: tuple[str, ...], share: float, as_json: bool, **flags: Any) -> None:
    """Check that every event has its predictions: once, in order, and with the right values.

    Reads the topics from their beginning, runs the model offline over the events of each key, and
    compares. It shares no code with the worker. Flags and LIVESTEP_... variables are the worker's.

    Workers may keep running: events that their group has not committed are not judged. One model
    must have made all predictions, from the first event on.
    """
    import torch

    from livestep.models.devices import choose_device
    from livestep.models.disk.loading import load_model
    from livestep.pipeline.audit.output_audit import audit as audit_topics

    settings = Settings.from_environment(**flags)
    torch.set_num_threads(settings.torch_threads)  # as the worker
    model = load_model(
        settings.model, str(choose_device(settings.device)), settings.allowed_packages
    )
    default = dataclasses.replace(settings, dead_letter_topic="").dead_letter_topic
    letters = settings.dead_letter_topic
    with _progress() as show:
        report = audit_topics(
            settings.bootstrap_servers,
            settings.input_topic,
            settings.output_topic,
            model,
            dead_letters=None if letters == default else letters,
            group=settings.group,
            may_repeat=settings.guarantee == "at-least-once",
            rounding=settings.rounding,
            key_filter=key_filter(keys, share),
            on_progress=show,
        )
    if as_json:
        click.echo(report_json(report))
    else:
        print_report(report, Console(highlight=False, soft_wrap=True))
    sys.exit(ExitCode.DONE if report.is_clean else ExitCode.FOUND)


def key_filter(keys: tuple[str, ...], share: float) -> Callable[[bytes | None], bool] | None:
    """Choose keys by name, and a share of them by their hash; None for all."""
    if not keys and share == 1.0:
        return None
    wanted = {key.encode("utf-8", "surrogateescape") for key in keys}

    def is_chosen(key: bytes | None) -> bool:
        if key is None or (wanted and key not in wanted):
            return False
        return zlib.crc32(key) % _PARTS < share * _PARTS

    return is_chosen


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show the stages on standard error while the block runs, if it is a terminal."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    progress = Progress(
        *columns,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    stages: dict[str, Any] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in stages:
            stages[stage] = progress.add_task(stage)
        progress.update(stages[stage], completed=done, total=total)

    with progress:
        yield show


def print_report(report: AuditReport, console: Console) -> None:
    """Print counts, notes and the first faults.

    Args:
        report: What the audit found.
        console: Where to print.
    """

    def line(text: str, style: str = "") -> None:
        console.print(Text(text, style))

    rows = [
        ("events", report.events, f"of {report.keys:,} keys"),
        ("predictions", report.predictions, ""),
        ("dead letters", report.dead_letters, ""),
    ]
    if report.not_judged:
        rows.append(("not judged", report.not_judged, "records of events outside of the audit"))
    for name, count, comment in rows:
        line(f"{name:<13}{count:>13,}  {comment}".rstrip())
    for name, count, comment in (
        ("lost", report.lost, ""),
        ("repeated", report.repeated, "allowed: at least once" if report.may_repeat else ""),
        ("out of order", report.out_of_order, ""),
        ("different", report.different, f"largest difference {report.max_difference:.1e}"),
    ):
        is_fault = count and not (name == "repeated" and report.may_repeat)
        line(f"{name:<13}{count:>13,}  {comment}".rstrip(), "red" if is_fault else "green")
    for note in report.notes:
        line(f"note: {note}", "yellow")
    for fault in report.examples:
        line(str(fault), "red")
    if report.is_clean:
        line("every event has its answers, once, in order, equal to the model run offline")


def report_json(report: AuditReport) -> bytes:
    """Write the report as one JSON object, its faults as objects, too."""
    members = {
        "is_clean": report.is_clean,
        **{item.name: getattr(report, item.name) for item in dataclasses.fields(report)},
        "examples": [fault._asdict() for fault in report.examples],
    }
    return orjson.dumps(members)
