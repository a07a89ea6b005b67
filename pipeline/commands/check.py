"""`livestep check`: is everything ready for a worker, and do the events fit the model?"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.console import Console
from rich.text import Text

from livestep.models.model_errors import ModelError
from livestep.pipeline.commands.help_text import closing_help
from livestep.pipeline.commands.shared_options import worker_options
from livestep.pipeline.errors import ConfigError, EngineError
from livestep.pipeline.exit_codes import ExitCode
from livestep.pipeline.kafka.partitioners import judge_placement
from livestep.pipeline.native import loops_text
from livestep.pipeline.settings import Settings

if TYPE_CHECKING:
    from livestep.pipeline.columns.log_records import Records
    from livestep.pipeline.types import Offset


@click.command(
    short_help="Test services, topics, model and recent events; exit 0 or 1.",
    epilog=closing_help(
        "livestep check --model DIR --input-topic events --output-topic predictions",
        codes=(ExitCode.FOUND, ExitCode.SETTING),
    ),
)
@click.option("--model", help="Directory of the model.")
@worker_options
@click.option("--redis-url", help="Redis, redis[s]://host:port/db.")
@click.option("--guarantee", help="exactly-once also tests transactions.")
def check(**flags: Any) -> None:
    """Test everything that a worker with the same flags needs, and report what is wrong.

    Reads the last records of the input topic: are they valid events of the model, and are their
    keys in the partitions where Livestep's clients put them? Before a first run, checks that the
    log still has its first records. A warning does not change the exit code.

    Writes nothing; with exactly-once, registers a transactional id of its own.
    """
    settings = Settings.from_environment(**flags)
    # Errors of librdkafka are raised by its calls; its log would only disturb the report.
    quiet = {"log_level": "0", **settings.kafka_options}
    settings = dataclasses.replace(settings, kafka_options=quiet)
    failed = run_tests(_tests(settings), Console(highlight=False, soft_wrap=True))
    sys.exit(ExitCode.FOUND if failed else ExitCode.DONE)


class Caution(NamedTuple):
    """A finding that may be what the operator intends."""

    text: str


class CheckItem(NamedTuple):
    """One line of the report.

    Attributes:
        name: What is tested.
        run: Returns what is fine, or a caution; raises an error if something is wrong.
        needs: Names of tests that must pass before this one is run.
    """

    name: str
    run: Callable[[], str | Caution]
    needs: Collection[str] = ()


def run_tests(tests: Sequence[CheckItem], console: Console) -> int:
    """Run tests in order, and print a line for each.

    Args:
        tests: Their results are shown verbatim, including any brackets.
        console: Where to print.

    Returns:
        failed: The number of failed tests, without those that were skipped because of them.
    """
    without: set[str] = set()
    failed = 0
    for test in tests:
        missing = [name for name in test.needs if name in without]
        if missing:
            without.add(test.name)
            verdict, style, text = "skipped", "dim", f"needs {' and '.join(missing)}"
        else:
            try:
                found = test.run()
                verdict, style, text = "ok", "green", str(found)
                if isinstance(found, Caution):
                    verdict, style, text = "warning", "yellow", found.text
            except (EngineError, ModelError) as error:
                failed += 1
                without.add(test.name)
                verdict, style, text = "wrong", "red", str(error)
        console.print(Text.assemble((f"{verdict:<8}", style), f"{test.name}: {text}"))
    return failed


def _tests(settings: Settings) -> list[CheckItem]:
    log = _InputLog(settings)
    return [
        CheckItem("model", lambda: _check_model(settings)),
        CheckItem("Kafka", lambda: _check_kafka(settings)),
        CheckItem("topics", log.check_topics, needs=["Kafka"]),
        CheckItem("beginning", log.check_beginning, needs=["topics"]),
        CheckItem("keys", log.check_keys, needs=["topics"]),
        CheckItem("events", log.check_events, needs=["model", "topics"]),
        CheckItem("transactions", lambda: _check_transactions(settings), needs=["Kafka"]),
        CheckItem("Redis", lambda: _check_redis(settings)),
        CheckItem("loops", loops_text),
    ]


def _check_model(settings: Settings) -> str:
    from livestep.models.devices import choose_device
    from livestep.models.disk.loading import load_model

    device = choose_device(settings.device)
    model = load_model(settings.model, str(device), settings.allowed_packages)
    return f"{model.name}, fingerprint {model.fingerprint}, on {device}"


def _check_kafka(settings: Settings) -> str:
    from livestep.pipeline.kafka.admin import Admin
    from livestep.pipeline.kafka.client_options import client_options

    Admin(client_options(settings)).check_brokers()
    return f"{settings.bootstrap_servers} responds"


class _InputLog:
    """Tests of the topics, and of what the input topic holds."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bounds: dict[int, tuple[Offset, Offset]] = {}

    def check_topics(self) -> str | Caution:
        """Look up the topics, and where the input starts and ends."""
        from livestep.pipeline.engine.retention import compaction_warning
        from livestep.pipeline.kafka.kafka_log import KafkaLog

        log = KafkaLog(self._settings, "check")
        try:
            counts = ", ".join(
                f"{topic} ({n} partitions)" for topic, n in log.partition_counts.items()
            )
            self._bounds = {partition: log.bounds(partition) for partition in range(log.partitions)}
            topic = self._settings.input_topic
            warning = compaction_warning(topic, log.topic_setting(topic, "cleanup.policy"))
            return Caution(f"{counts}; {warning}") if warning else counts
        finally:
            log.close()

    def check_beginning(self) -> str | Caution:
        """Check that the log still has what a first run of the group would read."""
        from livestep.pipeline.engine.retention import missing_beginning, retention_of
        from livestep.pipeline.kafka.kafka_log import KafkaLog

        settings = self._settings
        if settings.auto_offset_reset != "earliest":
            return "a first run starts at the end of the log"
        log = KafkaLog(settings, "check")
        try:
            committed = log.committed()
            first = {p: bounds for p, bounds in self._bounds.items() if committed[p][0] is None}
            if any(start > 0 for start, _ in first.values()):
                topic = settings.input_topic
                retention = retention_of(topic, log.topic_setting)
                text = missing_beginning(topic, first, retention)
                assert text is not None
                return Caution(text)
        finally:
            log.close()
        return "the log has all that a first run reads" if first else "the group continues"

    @cached_property
    def _recent(self) -> Records:
        from livestep.pipeline.kafka.recent import read_recent

        return read_recent(self._settings, self._bounds)

    def check_keys(self) -> str | Caution:
        """Compare the partition of each key with the one that our partitioner chooses."""
        recent = self._recent
        pairs = zip(recent.keys.to_list(), recent.partitions.tolist(), strict=True)
        keyed = [(key, partition) for key, partition in pairs if key]
        if not keyed:
            return "no recent records"
        placement = judge_placement(keyed, len(self._bounds))
        if placement.is_wrong:
            raise ConfigError(placement.text())
        return Caution(placement.text()) if placement.misplaced else placement.text()

    def check_events(self) -> str | Caution:
        """Read records as the worker does, and count the dead letters."""
        from livestep.models.disk.model_json import read_description
        from livestep.pipeline.batch.codec import codec_for
        from livestep.pipeline.batch.packing import pack
        from livestep.pipeline.engine.status import are_mostly_dead, describe_dead_letters

        settings, records = self._settings, self._recent
        if not len(records):
            return "no recent records"
        batch = pack(
            records,
            codec_for(read_description(settings.model)),
            key_bytes_max=settings.key_bytes_max,
            value_bytes_max=settings.value_bytes_max,
        )
        if not batch.dead:
            return f"all {len(records):,} recent records are events of the model"
        reasons = Counter(letter.reason for letter in batch.dead)
        text = (
            f"{len(batch.dead):,} of {len(records):,} recent records would be dead letters: "
            f"{describe_dead_letters(reasons, batch.dead[-1])}"
        )
        if are_mostly_dead(len(batch.dead), len(records)):
            raise ConfigError(text)
        return Caution(text)


def _check_transactions(settings: Settings) -> str:
    from livestep.pipeline.kafka.client_options import producer_options
    from livestep.pipeline.kafka.transaction import Transactions

    if settings.guarantee != "exactly-once":
        return "not needed (at least once)"
    transactions = Transactions(producer_options(settings, f"{settings.group}.check"))
    try:
        transactions.begin()
    finally:
        transactions.close()
    return "the broker supports them"


def _check_redis(settings: Settings) -> str:
    from livestep.pipeline.state.redis_connection import RedisConnection

    connection = RedisConnection(
        settings.redis_url, wait_s=0.0, credentials=settings.redis_credentials
    )
    try:
        connection.check()
    finally:
        connection.close()
    return f"{connection.address} responds and evicts nothing"
