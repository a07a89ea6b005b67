"""`livestep predictions` and `livestep dead-letters`: follow a topic, one JSON line a record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import click
import orjson

from pipeline.client import (
    DeadLetter,
    DeadLetterReader,
    Prediction,
    PredictionReader,
    TopicReader,
)
from pipeline.commands.options import bootstrap_servers_option, codec_option
from pipeline.errors import ReaderGoneError
from pipeline.exit_codes import ExitCode, exit_codes_help
from pipeline.standard_streams import discard_output

_EXIT_CODES = exit_codes_help(ExitCode.SETTING, ExitCode.KAFKA)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def _following_options(function: F) -> F:
    """Add what both commands have."""
    for option in (
        click.option(
            "--key", "keys", multiple=True, metavar="K", help="Only this key; repeatable."
        ),
        click.option("--from-beginning", is_flag=True, help="Begin at the oldest record, not now."),
        click.option(
            "--max", "max_count", type=click.IntRange(1), metavar="N", help="Stop after N records."
        ),
        click.option(
            "--idle-timeout",
            "idle_timeout_s",
            type=click.FloatRange(0),
            default=float("inf"),
            metavar="SECONDS",
            help="Stop when no record came for so long.  [default: never]",
        ),
        bootstrap_servers_option,
    ):
        function = option(function)
    return function


@click.command(epilog=_EXIT_CODES)
@click.option("--topic", required=True, help="Output topic of the worker.")
@codec_option
@_following_options
def predictions(
    topic: str,
    codec: Literal["json", "float32"],
    keys: tuple[str, ...],
    from_beginning: bool,
    max_count: int | None,
    idle_timeout_s: float,
    bootstrap_servers: str,
) -> None:
    """Follow predictions: one JSON line each on standard output, until Ctrl-C."""
    with _quiet_end():
        reader = PredictionReader(
            bootstrap_servers,
            topic,
            codec=codec,
            from_beginning=from_beginning,
            keys=keys or None,
        )
        _print_lines(reader, prediction_line, max_count, idle_timeout_s)


@click.command("dead-letters", epilog=_EXIT_CODES)
@click.option("--topic", required=True, help="Input topic, whose dead-letter topic is read.")
@_following_options
def dead_letters(
    topic: str,
    keys: tuple[str, ...],
    from_beginning: bool,
    max_count: int | None,
    idle_timeout_s: float,
    bootstrap_servers: str,
) -> None:
    """Follow records that could not be used: one JSON line each on standard output."""
    with _quiet_end():
        reader = DeadLetterReader(
            bootstrap_servers, topic, from_beginning=from_beginning, keys=keys or None
        )
        _print_lines(reader, dead_letter_line, max_count, idle_timeout_s)


def prediction_line(prediction: Prediction) -> bytes:
    """Write a prediction as one line of JSON; what only some shapes have is left out if absent."""
    of_some_shapes = {
        "step": prediction.step,
        "finish": prediction.finish,
        "ended_by": prediction.ended_by,
    }
    return _line(
        {
            "key": _printable(prediction.key),
            "timestep": prediction.timestep,
            **{name: value for name, value in of_some_shapes.items() if value is not None},
            "value": prediction.value,
            "timestamp_ms": prediction.timestamp_ms,
            "source": str(prediction.source),
            "model": prediction.model,
            "partition": prediction.partition,
            "offset": prediction.offset,
        }
    )


def dead_letter_line(letter: DeadLetter) -> bytes:
    """Write a dead letter as one line of JSON; bytes that are no UTF-8 are escaped."""
    return _line(
        {
            "key": None if letter.key is None else _printable(letter.key),
            "reason": letter.reason,
            "detail": letter.detail,
            "value": None if letter.value is None else _escaped(letter.value),
            "headers": {name: _escaped(value or b"") for name, value in letter.headers},
            "timestamp_ms": letter.timestamp_ms,
            "source": str(letter.source),
            "partition": letter.partition,
            "offset": letter.offset,
        }
    )


def _print_lines(
    reader: TopicReader[T],
    write: Callable[[T], bytes],
    max_count: int | None,
    idle_timeout_s: float,
) -> None:
    """Print what the reader gives, each line at once."""
    output = click.get_binary_stream("stdout")
    with reader:
        records = reader.iterate(idle_timeout_s=idle_timeout_s)
        for count, record in enumerate(records, start=1):
            output.write(write(record))
            output.flush()
            if count == max_count:
                return


@contextlib.contextmanager
def _quiet_end() -> Iterator[None]:
    """Take Ctrl-C, and a reader of our output that has gone, as the normal end of following."""
    try:
        yield
    except KeyboardInterrupt:
        return
    except ReaderGoneError:
        discard_output()


def _line(members: dict[str, Any]) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)


def _escaped(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _printable(key: str) -> str:
    return _escaped(key.encode("utf-8", "surrogateescape"))
