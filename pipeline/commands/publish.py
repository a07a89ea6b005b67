"""`livestep publish`: send the events of a file to a topic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, BinaryIO, Literal

import click

from livestep.pipeline.commands.help_text import closing_help
from livestep.pipeline.commands.shared_options import (
    InputFile,
    Number,
    bootstrap_servers_option,
    codec_option,
)
from livestep.pipeline.exit_codes import ExitCode


@click.command(
    short_help="Publish the events of a file or of standard input.",
    epilog=closing_help(
        "livestep publish events.jsonl --topic events --key sensor",
        "livestep publish events.csv --topic events --key sensor --model DIR",
        "livestep publish - --format jsonl --topic events --key sensor --rate 100",
        codes=(
            ExitCode.FOUND,
            ExitCode.SETTING,
            ExitCode.KAFKA,
            ExitCode.MODEL,
            ExitCode.HANGUP,
            ExitCode.INTERRUPT,
            ExitCode.TERMINATED,
        ),
    ),
)
@click.argument("file", type=InputFile("rb"), metavar="FILE.csv|.jsonl|-")
@click.option("--topic", required=True, help="Topic to publish to; must exist.")
@click.option(
    "--key",
    multiple=True,
    metavar="COLUMN",
    help="Column of the key; several are joined to one key.",
)
@click.option(
    "--key-separator",
    default="/",
    show_default=True,
    metavar="TEXT",
    help="Between the columns of a key; not allowed inside.",
)
@click.option("--key-value", metavar="TEXT", help="Key of all events, instead of --key.")
@click.option("--key-row", is_flag=True, help="Use the row number as the key, instead of --key.")
@click.option(
    "--model",
    metavar="DIR",
    help="Send this model's inputs only, checked and converted, with its codec.",
)
@click.option(
    "--columns",
    metavar="A,B,C",
    help="Columns of the value.  [default: all without another role]",
)
@click.option(
    "--missing",
    multiple=True,
    metavar="TEXT",
    help="Text of a cell without a value, such as NA. Repeatable.",
)
@click.option(
    "--timestamp",
    metavar="COLUMN",
    help="Column of the event time: milliseconds, or ISO 8601.  [default: now]",
)
@click.option(
    "--marks",
    is_flag=True,
    help="Columns start, end and steps_max are marks of the key's sequence.",
)
@click.option(
    "--forget",
    metavar="COLUMN",
    help="Column that is true if the key is to be forgotten.",
)
@click.option(
    "--end-each-key",
    is_flag=True,
    help="After the last row, end the sequence of each key.",
)
@click.option(
    "--skip",
    metavar="N",
    default="0",
    show_default=True,
    help="Skip the first N rows; the end of a publish prints N.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At a bad row: stop before it, or skip it.",
)
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.jsonl",
    help="File for skipped rows; replaced, or with --skip appended to.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "jsonl"]),
    help="Needed for -.  [default: by the file name]",
)
@click.option(
    "--rate",
    type=Number(0.001, 1e9),
    metavar="EVENTS_PER_S",
    help="At most so many, from 0.001 up.  [default: no limit]",
)
@codec_option
@bootstrap_servers_option
def publish(
    file: BinaryIO,
    topic: str,
    model: str | None,
    skip: str,
    on_error: Literal["stop", "skip"],
    rejects: Path | None,
    file_format: str | None,
    end_each_key: bool,
    rate: float | None,
    codec: Literal["json", "float32"],
    bootstrap_servers: str,
    **column_options: Any,
) -> None:
    """Publish the events of a file, or of standard input (-), one per row, in order.

    In CSV, a cell that looks like a number is sent as one (`.5` and `+5`, but not `007` or `nan`),
    and an empty cell is omitted. With --model, the model's inputs decide what is a number. Rows
    that the broker would refuse, such as a time in the future, are found before they are sent.

    With --marks, `start` and `end` are true or false, and `steps_max` is a number. A row with marks
    only is not an event: it starts or ends a sequence.

    Kafka deletes events by their own timestamps: with an old --timestamp, create the topic with
    --config retention.ms=-1.

    However it ends (end of file, bad row, Ctrl-C), the last lines report how many events the broker
    has acknowledged, and the --skip that continues from there.
    """
    # librdkafka and rich take time to import; --help should not wait for them.
    from livestep.pipeline.publishing.publish_run import publish_file
    from livestep.pipeline.publishing.setup import columns_of

    columns = columns_of(**column_options)
    codec_source = click.get_current_context().get_parameter_source("codec")
    is_codec_given = codec_source is not click.core.ParameterSource.DEFAULT
    exit_code = publish_file(
        file,
        topic,
        bootstrap_servers,
        columns,
        file_format=file_format,
        model=model,
        codec=codec if is_codec_given else None,
        skip=skip,
        is_skipping_errors=on_error == "skip",
        rejects=rejects,
        rate=rate,
        is_ending_each_key=end_each_key,
    )
    if exit_code:
        sys.exit(exit_code)
