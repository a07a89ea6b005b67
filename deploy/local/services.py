"""Kafka and Redis on free ports of 127.0.0.1, for a block of code or until Ctrl-C.

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
from livestep.pipeline.exit_codes import ExitCode

#: Between two checks whether both still run.
WATCH_INTERVAL_S = 1.0


@dataclass(frozen=True)
class LocalServices:
    """Running Kafka and Redis; each can be stopped, killed, paused and restarted."""

    kafka: KafkaBroker
    redis: RedisServer

    @property
    def bootstrap_servers(self) -> str:
        """Address of Kafka, for LIVESTEP_BOOTSTRAP_SERVERS."""
        return self.kafka.bootstrap_servers

    @property
    def redis_url(self) -> str:
        """Address of Redis, for LIVESTEP_REDIS_URL."""
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
    """Start Kafka and Redis; at the end, always stop both and remove their data.

    Any number may run at the same time, even below the same directory: each has its own ports and
    data. If this process is killed, its services die with it (on Linux), but their data remains in
    `directory`.

    Args:
        directory: Created if missing. Data is stored in a new folder below it, which is removed.
        cache: Folder for Kafka's jars; the first use fetches them, which takes some seconds.

    Yields:
        services: Both answer requests.

    Raises:
        ServiceError: If one can't be fetched or started; has the end of its log.
    """
    jars = kafka_jars(cache)
    with contextlib.ExitStack() as stack:
        # Last in, first out: stop the servers, then release the ports and remove the data.
        data = stack.enter_context(data_folder(directory, "services-"))
        (data / "redis").mkdir()
        (data / "kafka").mkdir()
        redis = RedisServer(data / "redis")
        stack.callback(redis.release)
        # The data is removed, so a clean shutdown is not needed.
        stack.callback(redis.kill)
        kafka = KafkaBroker(jars, data / "kafka")
        stack.callback(kafka.release)
        stack.callback(kafka.kill)
        redis.start()
        kafka.start()
        yield LocalServices(kafka, redis)


@contextlib.contextmanager
def data_folder(directory: Path, prefix: str) -> Iterator[Path]:
    """Create a new folder below `directory`, which is created, too, if missing; remove both."""
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix=prefix, dir=directory)).resolve()
    try:
        yield data
    finally:
        shutil.rmtree(data, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # Another program may use it by now.
                directory.rmdir()


@click.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=DATA_ROOT,
    show_default=True,
    help="Where their data is stored while they run.",
)
def main(directory: Path) -> None:
    """Run Kafka and Redis until Ctrl-C or SIGTERM.

    Prints their addresses to standard output as shell commands, everything else to standard error.
    """
    try:
        with orderly_termination(), local_services(directory) as services:
            _announce(services)
            _run_until_interrupted(services)
    except ServiceError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPT)


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
