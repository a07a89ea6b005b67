"""Fixtures for all tests: real Kafka and Redis, started once a run and only if a test asks."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

# Before torch is imported: the tests share the machine with the services that they start, and a
# worker that a test starts inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import redis
from kafka import KafkaAdminClient

from livestep.deploy.local.jars import DATA_ROOT
from livestep.deploy.local.services import LocalServices, local_services
from tests.support.clean_end import clean_end

SERVICES_TESTS = Path(__file__).parent / "services"

# The benchmark's programs run in environments of their own, with packages that the tests lack.
collect_ignore = ["bench"]

# No deadline for one example: on a shared machine it measures the neighbours. CI takes the same
# examples every time, so that a red run is a change in the code; at home every run takes others.
hypothesis.settings.register_profile("home", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "home")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that needs the services, so that `-m "not services"` leaves it out.

    That is each test in tests/services, and each one elsewhere that asks for the fixture, itself
    or through another fixture.
    """
    for item in items:
        if SERVICES_TESTS in item.path.parents or "services" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.services)


@pytest.fixture(scope="session", autouse=True)
def _clean_end() -> Iterator[None]:
    """Tear down the fixtures, whichever signal ends the run: no process or folder is left."""
    with clean_end():
        yield


@pytest.fixture(scope="session")
def services() -> Iterator[LocalServices]:
    """Kafka and Redis for this run. No test may stop them; see `own_services`."""
    with local_services(DATA_ROOT / f"test-{os.getpid()}") as running:
        yield running


@pytest.fixture(scope="session")
def bootstrap_servers(services: LocalServices) -> str:
    """Address of Kafka."""
    return services.bootstrap_servers


@pytest.fixture(scope="session")
def redis_url(services: LocalServices) -> str:
    """Address of Redis. All tests share it: a test tells its keys apart by its topics' names."""
    return services.redis_url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of that Redis, answers in bytes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def kafka_admin(bootstrap_servers: str) -> Iterator[KafkaAdminClient]:
    """kafka-python's administration client; one a test, since some tests restart the broker."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
    yield admin
    admin.close()


class TopicNames(Protocol):
    """Make a name that no other test has: `topic_names("events")` -> `events-<test>-1f0c9a2b`."""

    def __call__(self, prefix: str = "events") -> str: ...


class CreateTopic(Protocol):
    """Create a topic, wait until it has leaders, and return its name; options as Kafka's own."""

    def __call__(self, name: str, partitions: int = 4, **configs: str) -> str: ...


@pytest.fixture
def topic_names(request: pytest.FixtureRequest) -> TopicNames:
    """A maker of topic names: unique, and the test can be read from them in the broker's log."""

    def unique_name(prefix: str = "events") -> str:
        test = re.sub(r"[^A-Za-z0-9_-]+", "-", request.node.name)[:80]
        return f"{prefix}-{test}-{uuid.uuid4().hex[:8]}"

    return unique_name


@pytest.fixture
def create_topic(kafka_admin: KafkaAdminClient) -> CreateTopic:
    """A maker of topics: `create_topic(topic_names(), 2, cleanup_policy="compact")`."""

    def create(name: str, partitions: int = 4, **configs: str) -> str:
        options = {option.replace("_", "."): value for option, value in configs.items()}
        topic = {"num_partitions": partitions, "replication_factor": 1, "configs": options}
        kafka_admin.create_topics({name: topic}, wait_for_metadata=True)
        return name

    return create
