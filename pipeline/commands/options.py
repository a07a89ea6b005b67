"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def bootstrap_servers_option(function: F) -> F:
    """Add --bootstrap-servers, which the worker has as well."""
    return click.option(
        "--bootstrap-servers",
        envvar="LIVESTEP_BOOTSTRAP_SERVERS",
        default="127.0.0.1:9092",
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT[,...]",
        help="Kafka brokers.",
    )(function)


def codec_option(function: F) -> F:
    """Add --codec."""
    return click.option(
        "--codec",
        type=click.Choice(["json", "float32"]),
        default="json",
        show_default=True,
        help="What a value is, as in the model's model.json.",
    )(function)
