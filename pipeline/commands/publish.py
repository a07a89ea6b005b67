"""`livestep publish`: send the events of a file to a topic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, BinaryIO, Literal

import click

from livestep.pipeline.commands.shared_options import (
    InputFile,
    Number,
    bootstrap_servers_option,
    codec_option,
)
from livestep.pipeline.exit_codes import ExitCode, exit_codes_help


@click.command(
    epilog=exit_codes_help(
        ExitCode.FOUND,
        ExitCode.SETTING,
        ExitCode.KAFKA,
        ExitCode.MODEL,
        ExitCode.HANGUP,
        ExitCode.INTERRUPT,
        ExitCode.TERMINATED,
    )
)
@click.argument("file", type=InputFile("rb"), metavar="FILE.csv|.jsonl|-")
@click.option("--topic", required=True, help="Where to; must exist.")
@click.option(
    "--key",
    multiple=True,
    metavar="COLUMN",
    help="Column that says whose event it is; several of them are joined to one key.",
)
@click.option(
    "--key-separator",
    default="/",
    show_default=True,
    metavar="TEXT",
    help="Between the columns of a key; may not be within them.",
)
@click.option("--key-value", metavar="TEXT", help="The key of all events, instead of --key.")
@click.option("--key-row", is_flag=True, help="The row's number is its key, instead of --key.")
@click.option(
    "--model",
    metavar="DIR",
    help="Send the inputs of this model and no other column, checked and converted as its fields "
    "say, with its codec.",
)
@click.option(
    "--columns",
    metavar="A,B,C",
    help="Columns of the value.  [default: all that mean nothing else]",
)
@click.option(
    "--missing",
    multiple=True,
    metavar="TEXT",
    help="A cell with this text has no value, such as NA; may be repeated. An empty one never has.",
)
@click.option(
    "--timestamp",
    metavar="COLUMN",
    help="Column of the event time: milliseconds since 1970, or ISO 8601. Kafka deletes by it: a "
    "topic for old events needs --config retention.ms=-1.  [default: now]",
)
@click.option(
    "--marks",
    is_flag=True,
    help="Columns `start` and `end` (true or false) and `steps_max` (a number) are marks of the "
    "key's sequence. A line with no more than a mark is no event: it only begins or ends it.",
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
    "--skip",
    metavar="N",
    default="0",
    show_default=True,
    help="Leave the first N rows out: they are in the topic. A publish that ends early says N.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At a row that can't be sent: stop before it, or leave it out and go on.",
)
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.jsonl",
    help="File for the rows that are left out, with line and reason; replaced, but with --skip "
    "added to.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "jsonl"]),
    help="[default: by the name; - needs it]",
)
@click.option(
    "--rate",
    type=Number(0.001, 1e9),
    metavar="EVENTS_PER_S",
    help="No faster than this, from 0.001 on.  [default: as fast as it goes]",
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
    """Publish the events of a file, or of standard input (-), one a line, in their order.

    In CSV a cell that is a number becomes one (`.5` and `+5` too, but not `007` or `nan`), and an
    empty cell is left out; with --model the model's inputs say what is a number. What the broker
    would refuse, such as a time in the future, is found before it is sent.

    With --on-error stop nothing of a bad row is sent, but the rows before it are. Whatever ends it
    (the end of the file, a bad row, Ctrl-C), the last lines say how many events the broker has
    acknowledged and the --skip that continues from there.
    """
    # librdkafka and rich take time that --help need not wait.
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
