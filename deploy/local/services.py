"""Kafka and Redis on free ports of 127.0.0.1, for as long as a block or a terminal wants them.

    python -m livestep.deploy.local.services

starts both, prints their addresses as shell commands and runs until Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click
from rich.console import Console

from livestep.deploy.local.child_process import ServiceError, orderly_termination
from livestep.deploy.local.jars import DATA_ROOT, kafka_jars, kafka_version
from livestep.deploy.local.kafka_broker import KafkaBroker
from livestep.deploy.local.redis_server import RedisServer

#: Between two looks at whether both still run.
WATCH_INTERVAL_S = 1.0

#: What a shell reports for a command that was interrupted: 128 + SIGINT.
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class LocalServices:
    """Running Kafka and Redis; both can be stopped, killed, paused and started again one by one."""

    kafka: KafkaBroker
    redis: RedisServer

    @property
    def bootstrap_servers(self) -> str:
        """Address of Kafka, as LIVESTEP_BOOTSTRAP_SERVERS takes it."""
        return self.kafka.bootstrap_servers

    @property
    def redis_url(self) -> str:
        """Address of Redis, as LIVESTEP_REDIS_URL takes it."""
        return self.redis.url

    @property
    def environment(self) -> dict[str, str]:
        """Both addresses as variables, for the environment of a worker."""
        return {
            "LIVESTEP_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "LIVESTEP_REDIS_URL": self.redis_url,
        }


@contextlib.contextmanager
def local_services(directory: Path = DATA_ROOT, cache: Path = DATA_ROOT) -> Iterator[LocalServices]:
    """Start Kafka and Redis; at the end stop both and remove their data, whatever happened.

    Any number may run at the same time, also below the same directory: ports and data are each
    one's own. If this process is killed its services go with it (on Linux), but their data stays in
    `directory`.

    Args:
        directory: Made if missing. The data is in a new folder below it, and only that is removed.
        cache: Where Kafka's jars are kept; fetched at the first use, which takes some seconds.

    Yields:
        services: Both answer requests.

    Raises:
        ServiceError: If one can't be fetched or started; has the tail of its log.
    """
    jars = kafka_jars(cache)
    with contextlib.ExitStack() as stack:
        if not directory.exists():
            directory.mkdir(parents=True)
            stack.callback(_remove_if_empty, directory)
        data = Path(tempfile.mkdtemp(prefix="services-", dir=directory)).resolve()
        # Last in, first out: stop the servers, then let go of the ports and remove what they wrote.
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        (data / "redis").mkdir()
        (data / "kafka").mkdir()
        redis = RedisServer(data / "redis")
        stack.callback(redis.release)
        # The data goes, so nobody needs an orderly end.
        stack.callback(redis.kill)
        kafka = KafkaBroker(jars, data / "kafka")
        stack.callback(kafka.release)
        stack.callback(kafka.kill)
        redis.start()
        kafka.start()
        yield LocalServices(kafka, redis)


def _remove_if_empty(directory: Path) -> None:
    # Others may have begun to use it.
    with contextlib.suppress(OSError):
        directory.rmdir()


@click.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=DATA_ROOT,
    show_default=True,
    help="Where their data is kept while they run.",
)
def main(directory: Path) -> None:
    """Run Kafka and Redis until Ctrl-C or SIGTERM.

    Their addresses go to standard output as shell commands, all else to standard error.
    """
    try:
        with orderly_termination(), local_services(directory) as services:
            _announce(services)
            _run_until_interrupted(services)
    except ServiceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _announce(services: LocalServices) -> None:
    for name, value in services.environment.items():
        print(f"export {name}={value}", flush=True)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"Kafka {kafka_version()} logs to {services.kafka.log_path}")
    console.print(f"Redis {services.redis.version} logs to {services.redis.log_path}")
    console.print("Both run until Ctrl-C, which stops them and removes their data.")


def _run_until_interrupted(services: LocalServices) -> NoReturn:
    while True:
        for service in (services.kafka, services.redis):
            if not service.is_running:
                what = f"{service.name} ended with exit status {service.exit_code}"
                raise ServiceError(f"{what}. End of {service.log_path}:\n{service.log_tail()}")
        time.sleep(WATCH_INTERVAL_S)


if __name__ == "__main__":
    main()
