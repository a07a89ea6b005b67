"""`livestep predictions` and `livestep dead-letters`: follow a topic, one JSON line per record."""

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
from livestep.pipeline.commands.help_text import closing_help
from livestep.pipeline.commands.shared_options import Number, bootstrap_servers_option, codec_option
from livestep.pipeline.errors import ConfigError, DecodeError, MissingTopicError
from livestep.pipeline.exit_codes import ExitCode
from livestep.pipeline.records import DEAD_LETTER_SUFFIX, dead_letter_topic
from livestep.pipeline.topic_names import check_topic_name

_EXIT_CODES = (ExitCode.SETTING, ExitCode.KAFKA, ExitCode.INTERRUPT)

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def _following_options(function: F) -> F:
    """Add the options that both commands have."""
    for option in (
        click.option(
            "--key", "keys", multiple=True, metavar="K", help="Only this key; repeatable."
        ),
        click.option(
            "--from-beginning", is_flag=True, help="Start at the oldest record, not at the end."
        ),
        click.option(
            "--max", "max_count", type=click.IntRange(1), metavar="N", help="Stop after N records."
        ),
        click.option(
            "--idle-timeout",
            "idle_timeout_s",
            type=Number(0),
            default=float("inf"),
            metavar="SECONDS",
            help="Stop if no record arrives for so long.  [default: never]",
        ),
        bootstrap_servers_option,
    ):
        function = option(function)
    return function


@click.command(
    short_help="Follow predictions, one JSON line each.",
    epilog=closing_help(
        "livestep predictions --topic predictions --from-beginning --max 10",
        "livestep predictions --topic predictions --key sensor-7",
        codes=_EXIT_CODES,
    ),
)
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
    """Follow predictions until Ctrl-C: print one JSON line for each."""
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


@click.command(
    "dead-letters",
    short_help="Follow records that the worker could not use.",
    epilog=closing_help(
        "livestep dead-letters --topic events --from-beginning --idle-timeout 5",
        codes=_EXIT_CODES,
    ),
)
@click.option("--topic", required=True, help="Input topic; its dead-letter topic is read.")
@_following_options
def dead_letters(
    topic: str,
    keys: tuple[str, ...],
    from_beginning: bool,
    max_count: int | None,
    idle_timeout_s: float,
    bootstrap_servers: str,
) -> None:
    """Follow records that the worker could not use: print one JSON line for each."""
    check_topic_name(topic, "--topic")
    try:
        reader = DeadLetterReader(
            bootstrap_servers, topic, from_beginning=from_beginning, keys=keys or None
        )
    except MissingTopicError:
        if not topic.endswith(DEAD_LETTER_SUFFIX):
            raise
        raise MissingTopicError(
            f"topic {dead_letter_topic(topic)!r} does not exist: --topic expects the name of the "
            f"input topic, {topic.removesuffix(DEAD_LETTER_SUFFIX)!r}"
        ) from None
    try:
        _print_lines(reader, dead_letter_line, max_count, idle_timeout_s)
    except DecodeError as error:
        raise ConfigError(
            f"topic {dead_letter_topic(topic)!r} has a record that is not a worker's dead letter: "
            f"{error.detail}"
        ) from error


def not_a_prediction(topic: str, codec: str, error: DecodeError) -> str:
    """Explain why a record can't be printed, and what would help."""
    if error.reason in ("not-json", "not-float32", "wrong-length"):
        other = "float32" if codec == "json" else "json"
        return f"{error.detail}; if the model's codec is {other}, use --codec {other}"
    return (
        f"topic {topic!r} has a record that is not a worker's prediction: {error.detail}. "
        "--topic expects a worker's output topic"
    )


def prediction_line(prediction: Prediction) -> bytes:
    """Write a prediction as one line of JSON, without the members that its shape lacks."""
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
    """Write a dead letter as one line of JSON; bytes that are not UTF-8 are escaped."""
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
    """Print each record as soon as it arrives."""
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
