"""Where chaos happens: real brokers and Redis of one's own, with a proxy before each for workers.

Load, probe and judge go to the services directly: what is slow or cut for workers is not for them.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from livestep.deploy.local.jars import DATA_ROOT, kafka_jars
from livestep.deploy.local.kafka_broker import SHORT_RUN, KafkaBroker
from livestep.deploy.local.kafka_cluster import KafkaCluster
from livestep.deploy.local.ports import ReservedPort
from livestep.deploy.local.redis_cluster import RedisCluster
from livestep.deploy.local.redis_server import RedisServer
from tests.chaos.proxy import Proxy

#: How long a command of a fault may wait for Redis.
REDIS_TIMEOUT_S = 5.0

#: A broker that recovers its log while everything else restarts needs a long time.
START_TIMEOUT_S = 240.0

#: Small, and quick to be there again.
JAVA_OPTIONS = ("-Xmx512m", *SHORT_RUN)


@dataclass
class Place:
    """Running services.

    Attributes:
        directory: Of this run; everything that it writes is below.
        brokers: One, or those of the cluster.
        bootstrap_servers: Their addresses for all but workers.
        kafka_proxies: One before each broker.
        redis_servers: One, or the nodes of the cluster.
        redis_proxies: One before the one Redis; none before a cluster.
        environment: Addresses for workers.
    """

    directory: Path
    brokers: Sequence[KafkaBroker]
    bootstrap_servers: str
    kafka_proxies: Sequence[Proxy]
    redis_servers: Sequence[RedisServer]
    redis_proxies: Sequence[Proxy]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def is_cluster(self) -> bool:
        """Whether there are several of each."""
        return len(self.brokers) > 1

    def masters(self) -> list[RedisServer]:
        """Return those Redis servers that take writes now."""
        return [
            server
            for server in self.redis_servers
            if server.is_running and _role(server) == "master"
        ]


def redis_client(server: RedisServer) -> Any:
    """Make a client of one Redis server, past all proxies."""
    return redis.Redis.from_url(
        server.url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S
    )


def _role(server: RedisServer) -> str:
    try:
        with redis_client(server) as client:
            return str(client.role()[0].decode())
    except redis.RedisError:
        return "away"


@contextlib.contextmanager
def open_place(directory: Path, *, is_cluster: bool, cache: Path = DATA_ROOT) -> Iterator[Place]:
    """Start the services; at the end stop them, whatever state faults have left them in.

    What explains a run that failed, the logs, is left in the directory.

    Args:
        directory: An existing folder of its own.
        is_cluster: Three brokers and a Redis Cluster instead of one each.
        cache: Where Kafka's jars are kept.

    Raises:
        ServiceError: If one can't be started.
    """
    jars = kafka_jars(cache)
    with contextlib.ExitStack() as stack:
        for name in ("kafka", "redis"):
            (directory / name).mkdir()
            # The data is large, the logs are not: those are copied next to it at the end.
            stack.callback(_keep_logs_only, directory / name)
        open_redis = _open_redis_cluster if is_cluster else _open_redis
        redis_servers, redis_proxies, redis_url = open_redis(stack, directory / "redis")
        brokers, bootstrap, proxies = _open_kafka(stack, jars, directory / "kafka", is_cluster)
        yield Place(
            directory,
            brokers,
            bootstrap,
            proxies,
            redis_servers,
            redis_proxies,
            {
                "LIVESTEP_BOOTSTRAP_SERVERS": ",".join(proxy.address for proxy in proxies),
                "LIVESTEP_REDIS_URL": redis_url,
            },
        )


def _open_kafka(
    stack: contextlib.ExitStack, jars: Path, directory: Path, is_cluster: bool
) -> tuple[Sequence[KafkaBroker], str, list[Proxy]]:
    cluster = KafkaCluster(jars, directory) if is_cluster else None
    brokers = (
        [KafkaBroker(jars, directory, java_options=JAVA_OPTIONS)]
        if cluster is None
        else cluster.brokers
    )
    proxies = []
    for broker in brokers:
        stack.callback(broker.release)
        broker.start_timeout_s = START_TIMEOUT_S
        port = ReservedPort()
        stack.callback(port.release)
        proxies.append(stack.enter_context(Proxy("127.0.0.1", port.number)))
        broker.settings.update(_listeners(port.number, proxies[-1].address))
    for broker in brokers:
        stack.callback(broker.kill)
    if cluster is None:
        brokers[0].start()
        return brokers, brokers[0].bootstrap_servers, proxies
    cluster.start()
    return brokers, cluster.bootstrap_servers, proxies


def _listeners(port: int, advertised: str) -> dict[str, str]:
    """Give a broker a second listener, whose clients are told to come back through a proxy."""
    client, controller = (
        "CLIENT://127.0.0.1:$client_port",
        "CONTROLLER://127.0.0.1:$controller_port",
    )
    return {
        "listeners": f"{client},{controller},PROXIED://127.0.0.1:{port}",
        "advertised.listeners": f"{client},PROXIED://{advertised}",
        "listener.security.protocol.map": (
            "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT"
        ),
    }


def _open_redis(
    stack: contextlib.ExitStack, directory: Path
) -> tuple[Sequence[RedisServer], list[Proxy], str]:
    server = RedisServer(directory)
    server.start_timeout_s = START_TIMEOUT_S
    stack.callback(server.release)
    stack.callback(server.kill)
    server.start()
    port = int(server.url.rpartition(":")[2].partition("/")[0])
    proxy = stack.enter_context(Proxy("127.0.0.1", port))
    return [server], [proxy], f"redis://{proxy.address}/0"


def _open_redis_cluster(
    stack: contextlib.ExitStack, directory: Path
) -> tuple[Sequence[RedisServer], list[Proxy], str]:
    cluster = RedisCluster(directory)
    for server in cluster.nodes:
        server.start_timeout_s = START_TIMEOUT_S
    stack.callback(cluster.release)
    stack.callback(cluster.kill)
    cluster.start()
    return cluster.nodes, [], cluster.url


def _keep_logs_only(directory: Path) -> None:
    for log in directory.rglob("*.log"):
        if "data" not in log.relative_to(directory).parts:
            names = "-".join(log.relative_to(directory).parts)
            shutil.copyfile(log, directory.parent / f"{directory.name}-{names}")
    shutil.rmtree(directory, ignore_errors=True)
