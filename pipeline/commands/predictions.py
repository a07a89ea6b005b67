"""`livestep predictions` and `livestep dead-letters`: follow a topic, one JSON line a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import click
import orjson

from livestep.pipeline.clients.readers import (
    DeadLetter,
    DeadLetterReader,
    Prediction,
    PredictionReader,
    TopicReader,
)
from livestep.pipeline.commands.shared_options import Number, bootstrap_servers_option, codec_option
from livestep.pipeline.errors import ConfigError, DecodeError, MissingTopicError
from livestep.pipeline.exit_codes import ExitCode, exit_codes_help
from livestep.pipeline.records import DEAD_LETTER_SUFFIX, dead_letter_topic
from livestep.pipeline.topic_names import check_topic_name

_EXIT_CODES = exit_codes_help(ExitCode.SETTING, ExitCode.KAFKA, ExitCode.INTERRUPT)

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
            type=Number(0),
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
    check_topic_name(topic, "--topic")
    reader = PredictionReader(
        bootstrap_servers,
        topic,
        codec=codec,
        from_beginning=from_beginning,
        keys=keys or None,
    )
    try:
        _print_lines(reader, prediction_line, max_count, idle_timeout_s)
    except DecodeError as error:
        raise ConfigError(not_a_prediction(topic, codec, error)) from error


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
    check_topic_name(topic, "--topic")
    try:
        reader = DeadLetterReader(
            bootstrap_servers, topic, from_beginning=from_beginning, keys=keys or None
        )
    except MissingTopicError:
        if not topic.endswith(DEAD_LETTER_SUFFIX):
            raise
        raise MissingTopicError(
            f"there is no topic {dead_letter_topic(topic)!r}: --topic takes the name of the input "
            f"topic, {topic.removesuffix(DEAD_LETTER_SUFFIX)!r}"
        ) from None
    try:
        _print_lines(reader, dead_letter_line, max_count, idle_timeout_s)
    except DecodeError as error:
        raise ConfigError(
            f"topic {dead_letter_topic(topic)!r} holds a record that is not a dead letter of a "
            f"worker: {error.detail}"
        ) from error


def not_a_prediction(topic: str, codec: str, error: DecodeError) -> str:
    """Say why a record can't be printed, and what would help."""
    if error.reason in ("not-json", "not-float32", "wrong-length"):
        other = "float32" if codec == "json" else "json"
        return f"{error.detail}; with --codec {other}, if that is the model's codec, it can be read"
    return (
        f"topic {topic!r} holds a record that is not a prediction of a worker: {error.detail}. "
        "--topic is a worker's output topic"
    )


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


def _line(members: dict[str, Any]) -> bytes:
    return orjson.dumps(members, option=orjson.OPT_APPEND_NEWLINE)


def _escaped(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _printable(key: str) -> str:
    return _escaped(key.encode("utf-8", "surrogateescape"))
