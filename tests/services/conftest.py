"""Fixtures of the tests on real Kafka and Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from livestep.deploy.local.redis_cluster import RedisCluster
from livestep.deploy.local.services import LocalServices, local_services
from tests.conftest import TopicNames
from tests.services.running import Running, make_running
from tests.support.published import WAIT_S, Publish

MakeRunning = Callable[..., Running]


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A Redis Cluster for all tests. A test that stops a node has to start it again."""
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def own_services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    """Kafka and Redis of the module's own, which its tests may stop and kill.

    The broker that all tests share must not be: with thousands of topics it takes a minute or more
    to start again.
    """
    with local_services(tmp_path_factory.mktemp("services")) as running:
        yield running


@pytest.fixture
def pipeline(
    services: LocalServices, tmp_path: Path, topic_names: TopicNames
) -> Iterator[MakeRunning]:
    """A maker of pipelines: `pipeline(net=GRU(...))`; their workers end with the test."""
    made: list[Running] = []

    def make(**options: Any) -> Running:
        made.append(make_running(services, tmp_path, topic_names("t"), **options))
        return made[-1]

    yield make
    for running in made:
        running.close()


@pytest.fixture
def publish(bootstrap_servers: str) -> Publish:
    """Run `livestep publish` as its own process, to its end."""

    def run(file: Path | str, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "livestep.pipeline.cli", "publish", str(file), *options],
            env={**os.environ, "LIVESTEP_BOOTSTRAP_SERVERS": bootstrap_servers, **settings},
            capture_output=True,
            text=True,
            timeout=WAIT_S * 3,
        )

    return run
