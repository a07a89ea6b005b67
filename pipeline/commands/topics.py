"""`livestep topics`: create, list and copy topics."""

from __future__ import annotations

import click

from livestep.pipeline.clients.topic_copy import copy_topic
from livestep.pipeline.commands.help_text import closing_help, examples_help
from livestep.pipeline.commands.shared_options import bootstrap_servers_option
from livestep.pipeline.errors import ConfigError
from livestep.pipeline.exit_codes import ExitCode
from livestep.pipeline.kafka.topic_setup import create_topics, describe_topics
from livestep.pipeline.records import dead_letter_topic

_EXIT_CODES = (ExitCode.SETTING, ExitCode.KAFKA, ExitCode.INTERRUPT)


@click.group(
    epilog=examples_help(
        "livestep topics create events --partitions 8 --with-dead-letter",
        "livestep topics list",
    )
)
def topics() -> None:
    """Create, list and copy topics."""


@topics.command(
    epilog=closing_help(
        "livestep topics create events --partitions 8 --with-dead-letter",
        "livestep topics create old-events --config retention.ms=-1",
        codes=_EXIT_CODES,
    )
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--partitions",
    type=click.IntRange(1, 10_000),
    default=4,
    show_default=True,
    help="Of each: the most workers that can share the work.",
)
@click.option(
    "--replication-factor",
    type=click.IntRange(1, 100),
    help="Copies of each partition.  [default: the broker's]",
)
@click.option(
    "--with-dead-letter",
    is_flag=True,
    help="Also create the dead-letter topic of each.",
)
@click.option(
    "--config",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Kafka's own setting, such as retention.ms=-1. Repeatable.",
)
@bootstrap_servers_option
def create(
    names: tuple[str, ...],
    partitions: int,
    replication_factor: int | None,
    with_dead_letter: bool,
    settings: tuple[str, ...],
    bootstrap_servers: str,
) -> None:
    """Create topics. An existing topic with the same partitions and --config is left as it is.

    The number of partitions can't change while keys have states: `livestep topics copy` moves the
    events to a new topic. Kafka deletes events by their own timestamps, after 7 days by default;
    for older events use --config retention.ms=-1.
    """
    wanted = list(names)
    if with_dead_letter:
        wanted += [dead_letter_topic(name) for name in names]
    outcomes = create_topics(
        bootstrap_servers, wanted, partitions, replication_factor or -1, _config(settings)
    )
    for outcome in outcomes:
        if outcome.problem is None:
            done = "created" if outcome.is_new else "exists"
            click.echo(f"{done}  {outcome.name}  partitions {partitions}")
    problems = [outcome for outcome in outcomes if outcome.problem is not None]
    if problems:
        raise ConfigError("; ".join(f"topic {item.name!r}: {item.problem}" for item in problems))


def _config(settings: tuple[str, ...]) -> dict[str, str]:
    config = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--config {setting}: expected NAME=VALUE")
        if name in config:
            raise click.UsageError(f"--config {name} is given twice")
        config[name] = value
    return config


@topics.command(
    "list",
    epilog=closing_help("livestep topics list --bootstrap-servers kafka-1:9092", codes=_EXIT_CODES),
)
@bootstrap_servers_option
def list_topics(bootstrap_servers: str) -> None:
    """List the topics, with the number of partitions and replicas."""
    for topic in describe_topics(bootstrap_servers).values():
        click.echo(
            f"{topic.name}  partitions {topic.partition_count}  "
            f"replication-factor {topic.replication_factor}"
        )


@topics.command(
    epilog=closing_help(
        "livestep topics create events-2 --partitions 16 --with-dead-letter",
        "livestep topics copy events events-2",
        codes=_EXIT_CODES,
    )
)
@click.argument("source")
@click.argument("target")
@bootstrap_servers_option
def copy(source: str, target: str, bootstrap_servers: str) -> None:
    """Copy the events of SOURCE to TARGET, an existing, empty topic.

    Use it to change the number of partitions: each key goes to its partition in TARGET, in order.
    Stop the publishers first. Then start the workers on TARGET with a new output topic.
    """
    report = copy_topic(bootstrap_servers, source, target)
    left_out = f", {report.without_key} without a key left out" if report.without_key else ""
    click.echo(f"copied  {report.records} events from {source} to {target}{left_out}")
