"""`livestep check`: is everything there that a worker needs?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from models.errors import ModelError
from pipeline.errors import EngineError
from pipeline.exit_codes import ExitCode, exit_codes_help
from pipeline.settings import Settings


@click.command(
    short_help="Test services, topics and model; exit 0 or 1.",
    epilog=exit_codes_help(ExitCode.FOUND, ExitCode.SETTING),
)
@click.option("--model", help="Directory of the model.")
@click.option("--model-packages", help="Packages and kinds of programs that may be run.")
@click.option("--input-topic", help="Topic of events.")
@click.option("--output-topic", help="Topic of predictions.")
@click.option("--bootstrap-servers", help="Kafka brokers, host:port[,...].")
@click.option("--redis-url", help="Redis, redis[s]://host:port/db.")
@click.option("--guarantee", help="exactly-once tests transactions, too.")
def check(**flags: Any) -> None:
    """Test what a worker with the same flags would need, and say what is wrong with each.

    Nothing is read or written, except that a transactional id of its own is asked for.
    """
    settings = Settings.from_environment(**flags)
    failed = run_tests(_tests(settings), Console(highlight=False, soft_wrap=True))
    sys.exit(ExitCode.FOUND if failed else ExitCode.DONE)


def run_tests(tests: Sequence[tuple[str, Callable[[], str]]], console: Console) -> int:
    """Run tests one after another, and print a line for each.

    Args:
        tests: Each with its name; what it returns or raises is shown as it stands, whatever
            brackets there are in it.
        console: Where to print.

    Returns:
        failed: How many.
    """
    failed = 0
    for name, test in tests:
        try:
            console.print(Text.assemble(("ok", "green"), f"      {name}: {test()}"))
        except (EngineError, ModelError) as error:
            failed += 1
            console.print(Text.assemble(("wrong", "red"), f"   {name}: {error}"))
    return failed


def _tests(settings: Settings) -> list[tuple[str, Callable[[], str]]]:
    return [
        ("model", lambda: _check_model(settings)),
        ("topics", lambda: _check_topics(settings)),
        ("transactions", lambda: _check_transactions(settings)),
        ("Redis", lambda: _check_redis(settings)),
    ]


def _check_model(settings: Settings) -> str:
    from models import choose_device, load_model

    device = choose_device(settings.device)
    model = load_model(settings.model, str(device), settings.allowed_packages)
    return f"{model.name}, fingerprint {model.fingerprint}, on {device}"


def _check_topics(settings: Settings) -> str:
    from pipeline.transport import KafkaLog

    log = KafkaLog(settings, "check")
    try:
        counts = ", ".join(f"{topic} ({n} partitions)" for topic, n in log.partition_counts.items())
        if "compact" in log.topic_setting(settings.input_topic, "cleanup.policy"):
            counts += "; the input is compacted: a replay can't bring back what compaction removed"
        return counts
    finally:
        log.close()


def _check_transactions(settings: Settings) -> str:
    from pipeline.transport.options import producer_options
    from pipeline.transport.transaction import Transactions

    if settings.guarantee != "exactly-once":
        return "not asked for (at least once)"
    transactions = Transactions(producer_options(settings, f"{settings.group}.check"))
    try:
        transactions.begin()
    finally:
        transactions.close()
    return "the broker gives them"


def _check_redis(settings: Settings) -> str:
    from pipeline.redis_connection import RedisConnection

    connection = RedisConnection(
        settings.redis_url, wait_s=0.0, credentials=settings.redis_credentials
    )
    try:
        connection.check()
    finally:
        connection.close()
    return f"{connection.address} answers and evicts nothing"
