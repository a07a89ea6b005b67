"""Where the demo happens: a folder of its own, Kafka and Redis with the topics."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from livestep.deploy.demo.screen import Screen
from livestep.deploy.local.jars import kafka_jars, kafka_version
from livestep.deploy.local.services import LocalServices, local_services
from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.topic_setup import create_topics
from livestep.pipeline.records import dead_letter_topic

INPUT_TOPIC, OUTPUT_TOPIC = "weather", "dishes"
PARTITION_COUNT = 4


@contextlib.contextmanager
def data_folder(directory: Path) -> Iterator[Path]:
    """Make a folder for all that the demo writes, and remove it in the end."""
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="demo-", dir=directory)).resolve()
    try:
        yield data
    finally:
        shutil.rmtree(data, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # Others may have begun to use it.
                directory.rmdir()


@contextlib.contextmanager
def running_services(screen: Screen, directory: Path) -> Iterator[LocalServices]:
    """Start Kafka and Redis with the topics; stop them at the end.

    Raises:
        ServiceError: If one can't be started.
        BrokerError: If the topics can't be created.
    """
    # Fetching them has a progress of its own.
    jars = kafka_jars()
    with contextlib.ExitStack() as stack:
        started_s = time.monotonic()
        with screen.tasks(("starting Kafka and Redis", None)):
            services = stack.enter_context(local_services(directory, jars.parent))
        topics = [INPUT_TOPIC, OUTPUT_TOPIC, dead_letter_topic(INPUT_TOPIC)]
        # Kafka deletes by the records' time, and that is the weather's: years ago.
        config = {"retention.ms": "-1"}
        for outcome in create_topics(
            services.bootstrap_servers, topics, PARTITION_COUNT, config=config
        ):
            if outcome.problem:
                raise BrokerError(f"topic {outcome.name}: {outcome.problem}")
        screen.say(
            f"Kafka {kafka_version()} ({services.bootstrap_servers}) and Redis "
            f"{services.redis.version} ({services.redis_url}) are up after "
            f"{time.monotonic() - started_s:.1f} s"
        )
        yield services
