"""Options that several commands share."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from livestep.pipeline.environment import read_variables

#: Where a broker listens by default.
_LOCAL_BROKER = "127.0.0.1:9092"

F = TypeVar("F", bound=Callable[..., Any])


def bootstrap_servers_option(function: F) -> F:
    """Add --bootstrap-servers, as the worker has it."""
    return click.option(
        "--bootstrap-servers",
        default=_bootstrap_servers,
        show_default=_LOCAL_BROKER,
        metavar="HOST:PORT[,...]",
        help="Kafka; or LIVESTEP_BOOTSTRAP_SERVERS.",
    )(function)


def _bootstrap_servers() -> str:
    return read_variables(os.environ).get("LIVESTEP_BOOTSTRAP_SERVERS") or _LOCAL_BROKER


def worker_options(function: F) -> F:
    """Add the worker's options for the model's code, the topics and Kafka, without defaults."""
    for option in (
        click.option("--bootstrap-servers", help="Kafka brokers, host:port[,...]."),
        click.option("--output-topic", help="Topic of predictions."),
        click.option("--input-topic", help="Topic of events."),
        click.option("--model-packages", help="Packages and kinds of programs that may run."),
    ):
        function = option(function)
    return function


class InputFile(click.File):
    """A file to read; `-` is standard input if that is open."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        """Open the file."""
        if value == "-" and sys.stdin is None:
            self.fail("standard input is closed.", parameter, context)
        return super().convert(value, parameter, context)


class Number(click.FloatRange):
    """A number within a range; `nan` is refused."""

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> Any:
        """Parse the number."""
        number = super().convert(value, parameter, context)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", parameter, context)
        return number


def codec_option(function: F) -> F:
    """Add --codec."""
    return click.option(
        "--codec",
        type=click.Choice(["json", "float32"]),
        default="json",
        show_default=True,
        help="Format of values, as in model.json.",
    )(function)
