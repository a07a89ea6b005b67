"""Settings of a worker that can't be right: each ends before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Row(NamedTuple):
    """One wrong setting.

    Attributes:
        name: What is wrong.
        flags: Flags of `livestep worker`; they come behind good ones, and the last of two counts.
        environment: Variables.
        exit_code: Of the command.
        message: Parts of the error message.
    """

    name: str
    flags: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    exit_code: int = 3
    message: tuple[str, ...] = ()


#: Without these a worker has nothing to do.
GOOD_FLAGS = ("--model", "model", "--input-topic", "in", "--output-topic", "out")


def flag(name: str, value: str, *message: str, exit_code: int = 3) -> Row:
    """Make a row of a flag with an invalid value."""
    shown = value if len(value) < 50 else f"{value[:10]}..."
    return Row(f"{name} {shown!r}", (name, value), {}, exit_code, (name, *message))


def variable(name: str, value: str, *message: str) -> Row:
    """Make a row of a variable with an invalid value."""
    shown = value if len(value) < 50 else f"{value[:10]}..."
    return Row(f"{name}={shown!r}", (), {name: value}, 3, message or (name,))


SETTINGS = (
    Row("no model", ("--model", ""), message=("--model is missing", "LIVESTEP_MODEL")),
    Row("no input topic", ("--input-topic", ""), message=("--input-topic", "LIVESTEP_INPUT_TOPIC")),
    Row("no output topic", ("--output-topic", ""), message=("--output-topic is missing",)),
    flag("--input-topic", "a b", "is not a topic name"),
    flag("--input-topic", "..\x2f..", "is not a topic name"),
    flag("--input-topic", "x" * 250, "is not a topic name", "249 at most"),
    flag("--output-topic", "a\nb", "is not a topic name"),
    flag("--output-topic", "\u00e4", "is not a topic name"),
    flag("--dead-letter-topic", "a,b", "is not a topic name"),
    Row(
        "a derived dead-letter topic that is too long",
        ("--input-topic", "x" * 240),
        message=("--dead-letter-topic", "is not a topic name"),
    ),
    Row("output is input", ("--output-topic", "in"), message=("three different topics",)),
    Row(
        "dead letters go to the input",
        ("--dead-letter-topic", "in"),
        message=("three different topics",),
    ),
    Row("output is the dead letters", ("--output-topic", "in.dead-letter"), message=("three",)),
    flag("--batch-events-max", "0", "is out of range: 1 to 200000"),
    flag("--batch-events-max", "-5", "is out of range: 1 to 200000"),
    flag("--batch-events-max", "200001", "is out of range"),
    flag("--batch-events-max", "9" * 30, "is out of range"),
    flag("--batch-events-max", "many", "not a valid integer", exit_code=2),
    flag("--batch-events-max", "1.5", "not a valid integer", exit_code=2),
    flag("--pool-slots", "7", "twice --batch-events-max"),
    flag("--pool-slots", "1000000000", "is out of range"),
    flag("--session-timeout-ms", "999", "is out of range: 1000 to 300000"),
    flag("--torch-threads", "0", "is out of range"),
    flag("--save-queue-batches-max", "0", "is out of range"),
    flag("--key-bytes-max", "0", "is out of range"),
    flag("--key-bytes-max", "65537", "is out of range"),
    flag("--value-bytes-max", "100000001", "is out of range"),
    flag("--redis-wait-s", "nan", "is out of range"),
    flag("--redis-wait-s", "inf", "is out of range"),
    flag("--redis-wait-s", "-1", "is out of range"),
    flag("--redis-wait-s", "281", "is out of range: 0 to 280"),
    flag("--status-interval-s", "-0.1", "is out of range"),
    flag("--status-interval-s", "soon", "not a valid float", exit_code=2),
    flag("--guarantee", "maybe", "exactly-once", exit_code=2),
    flag("--device", "tpu", "cpu", "cuda", exit_code=2),
    flag("--on-new-model", "", "zeros", "warm", exit_code=2),
    flag("--auto-offset-reset", "error", "earliest", exit_code=2),
    Row("an unknown flag", ("--redis", "x"), exit_code=2, message=("--redis",)),
    Row("an argument too many", ("model",), exit_code=2, message=("unexpected extra argument",)),
    flag("--redis-url", "redis://h:port/0", "--redis-url", "LIVESTEP_REDIS_URL"),
    Row(
        "a password in the URL with '/' in it, which is not shown",
        ("--redis-url", "redis://u:open/sesame@h:1/0"),
        message=("--redis-url", "%2F"),
    ),
    variable(
        "LIVESTEP_BATCH_EVENTS_MAX", "many", "LIVESTEP_BATCH_EVENTS_MAX='many' is not an integer"
    ),
    variable(
        "LIVESTEP_BATCH_EVENTS_MAX", "1e3", "LIVESTEP_BATCH_EVENTS_MAX='1e3' is not an integer"
    ),
    variable("LIVESTEP_BATCH_EVENTS_MAX", "9" * 5_000, "LIVESTEP_BATCH_EVENTS_MAX"),
    variable("LIVESTEP_BATCH_EVENTS_MAX", "0", "--batch-events-max 0 is out of range"),
    variable("LIVESTEP_BURST", "perhaps", "LIVESTEP_BURST='perhaps' is not true or false"),
    variable("LIVESTEP_REDIS_WAIT_S", "long", "LIVESTEP_REDIS_WAIT_S='long' is not a number"),
    variable("LIVESTEP_REDIS_WAIT_S", "nan", "--redis-wait-s nan is out of range"),
    variable("LIVESTEP_GUARANTEE", "maybe", "--guarantee 'maybe' is not one of exactly-once"),
    variable("LIVESTEP_DEVICE", "CPU", "--device 'CPU' is not one of auto, cpu, cuda"),
    variable("LIVESTEP_AUTO_OFFSET_RESET", "none", "--auto-offset-reset 'none' is not one of"),
    variable("LIVESTEP_DEAD_LETTER_TOPIC", "in", "three different topics"),
    variable("LIVESTEP_REDIS_PASSWORD_FILE", "/nowhere", "LIVESTEP_REDIS_PASSWORD_FILE", "No such"),
    variable("LIVESTEP_REDIS_PASSWORD_FILE", "/", "LIVESTEP_REDIS_PASSWORD_FILE", "directory"),
)
