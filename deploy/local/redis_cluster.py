"""Redis with failover on 127.0.0.1: a Redis Cluster, or a master with a replica and Sentinels.

For tests and chaos: small, and with timeouts so short that a failover takes about two seconds.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import redis

from livestep.deploy.local.child_process import Service, ServiceError
from livestep.deploy.local.ports import ReservedPort
from livestep.deploy.local.redis_server import RedisServer, redis_executable

#: Masters of a cluster, each with one replica; three is the minimum for an election.
MASTER_COUNT = 3

#: Silence after which a server counts as down.
DOWN_AFTER_MS = 1_000

#: How long a failover, or the creation of a cluster, may take on a busy machine.
AGREEMENT_TIMEOUT_S = 60.0

#: Distance from a node's port to its bus port; before Redis 7 it is fixed.
BUS_PORT_DISTANCE = 10_000

SLOT_COUNT = 16_384

#: The master's name for the Sentinels.
SERVICE = "livestep"

#: Synchronize replicas at once, from memory.
REPLICATION_OPTIONS = {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}

#: How long to wait for a node's answer; a paused one sends none.
ANSWER_TIMEOUT_S = 1.0


class RedisGroup(ABC):
    """Several servers that are started, killed and released together; tests use them one by one.

    As a context manager it runs them for the block, and leaves no process behind.

    Attributes:
        nodes: The servers that hold data.
    """

    nodes: Sequence[RedisServer]

    @property
    @abstractmethod
    def url(self) -> str:
        """Address of the group, for `LIVESTEP_REDIS_URL`."""

    @abstractmethod
    def start(self) -> None:
        """Start all servers, and wait until they agree on their roles.

        Raises:
            ServiceError: If one does not start, or they don't agree.
        """

    @abstractmethod
    def has_settled(self) -> bool:
        """Whether every server runs and knows its role, and each replica follows its master."""

    def masters(self) -> list[RedisServer]:
        """Return the servers that accept writes now."""
        return [server for server in self.nodes if server.is_running and _role(server) == "master"]

    def wait_until_settled(self) -> None:
        """Wait until a failover has ended and killed servers are back.

        Raises:
            ServiceError: If that takes too long.
        """
        _wait_until(self.has_settled, "Redis' servers agree")

    def kill(self) -> None:
        """Kill all servers (SIGKILL)."""
        for process in self._processes():
            process.kill()

    def release(self) -> None:
        """Release the ports; no server can be restarted."""
        for server in self.nodes:
            server.release()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.release()

    def _processes(self) -> list[Service]:
        return list(self.nodes)


class RedisCluster(RedisGroup):
    """A Redis Cluster of three masters and a replica of each.

    Args:
        directory: An existing, separate folder.

    Source:
        https://redis.io/docs/latest/operate/oss_and_stack/management/scaling/
    """

    def __init__(self, directory: Path) -> None:
        self._bus_ports: list[ReservedPort] = []
        self.nodes = [self._make_server(directory, n) for n in range(2 * MASTER_COUNT)]

    @property
    def url(self) -> str:
        """See `RedisGroup.url`; names all nodes."""
        nodes = ",".join(f"127.0.0.1:{server.port}" for server in self.nodes)
        return f"redis+cluster://{nodes}"

    def start(self) -> None:
        """See `RedisGroup.start`; the first start creates the cluster."""
        for server in self.nodes:
            server.start()
        with _client(self.nodes[0]) as first:
            if _cluster_info(first)["cluster_known_nodes"] == "1":
                self._create()
        self.wait_until_settled()

    def has_settled(self) -> bool:
        """See `RedisGroup.has_settled`; every node sees all slots served."""
        try:
            for server in self.nodes:
                with _client(server) as client:
                    state = _cluster_info(client)["cluster_state"]
                    if not server.is_running or state != "ok" or not _follows(client):
                        return False
            return len(self.masters()) == MASTER_COUNT
        except redis.RedisError:
            return False

    def master_of(self, name: str) -> RedisServer:
        """Return the server that holds a key now.

        Args:
            name: The key; its hash tag determines the slot.

        Raises:
            ServiceError: If no server does.
        """
        for server in self.masters():
            with _client(server) as client, contextlib.suppress(redis.ResponseError):
                client.exists(name)
                return server
        raise ServiceError(f"no node of the cluster holds {name}")

    def release(self) -> None:
        """See `RedisGroup.release`."""
        super().release()
        for port in self._bus_ports:
            port.release()

    def _make_server(self, directory: Path, number: int) -> RedisServer:
        folder = directory / f"node-{number}"
        folder.mkdir()
        port, bus_port = two_ports()
        self._bus_ports.append(bus_port)
        options = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": str(DOWN_AFTER_MS),
            # A replica takes over however stale it is: replay repairs what it lacks.
            "cluster-replica-validity-factor": "0",
            # Each master keeps its one replica.
            "cluster-migration-barrier": "10",
            **REPLICATION_OPTIONS,
        }
        return RedisServer(folder, name=f"Redis node {number}", port=port, options=options)

    def _create(self) -> None:
        """Assign the slots to the first half of the nodes, and a replica to each of them."""
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(_client(server)) for server in self.nodes]
            for number, client in enumerate(clients):
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            for number, client in enumerate(clients[:MASTER_COUNT]):
                bounds = [SLOT_COUNT * n // MASTER_COUNT for n in (number, number + 1)]
                client.execute_command("CLUSTER", "ADDSLOTS", *range(*bounds))
            for server in self.nodes[1:]:
                clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
            count = str(len(clients))
            _wait_until(
                lambda: all(_cluster_info(c)["cluster_known_nodes"] == count for c in clients),
                "the nodes have met",
            )
            for master, replica in zip(clients[:MASTER_COUNT], clients[MASTER_COUNT:], strict=True):
                name = master.execute_command("CLUSTER", "MYID")
                replica.execute_command("CLUSTER", "REPLICATE", name)


class RedisSentinels(RedisGroup):
    """A master, a replica, and three Sentinels, two of which decide.

    Args:
        directory: An existing, separate folder.

    Source:
        https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/
    """

    def __init__(self, directory: Path) -> None:
        self.nodes = []
        for number in range(2):
            folder = directory / f"server-{number}"
            folder.mkdir()
            name = f"Redis server {number}"
            self.nodes.append(RedisServer(folder, name=name, options=REPLICATION_OPTIONS))
        self.sentinels = []
        for number in range(3):
            folder = directory / f"sentinel-{number}"
            folder.mkdir()
            self.sentinels.append(SentinelServer(folder, self.nodes[0].port, f"{number}"))

    @property
    def url(self) -> str:
        """See `RedisGroup.url`."""
        sentinels = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{sentinels}/{SERVICE}/0"

    def start(self) -> None:
        """See `RedisGroup.start`."""
        for server in self.nodes:
            server.start()
        with _client(self.nodes[1]) as client:
            client.execute_command("REPLICAOF", "127.0.0.1", self.nodes[0].port)
        for sentinel in self.sentinels:
            sentinel.start()
        self.wait_until_settled()

    def has_settled(self) -> bool:
        """See `RedisGroup.has_settled`; every Sentinel knows all others and the replica."""
        try:
            masters = self.masters()
            if len(masters) != 1:
                return False
            for server in self.nodes:
                with _client(server) as client:
                    if not server.is_running or not _follows(client):
                        return False
            for sentinel in self.sentinels:
                with _client(sentinel) as client:
                    state = client.sentinel_master(SERVICE)
                    known = (state["num-other-sentinels"], state["flags"], state["port"])
                    replicas = [replica["flags"] for replica in client.sentinel_slaves(SERVICE)]
                    if known != (2, "master", masters[0].port) or replicas != ["slave"]:
                        return False
            return True
        except redis.RedisError:
            return False

    def release(self) -> None:
        """See `RedisGroup.release`."""
        super().release()
        for sentinel in self.sentinels:
            sentinel.release()

    def _processes(self) -> list[Service]:
        # Sentinels first: otherwise they would promote the replica.
        return [*self.sentinels, *self.nodes]


class SentinelServer(Service):
    """A Sentinel that watches one master.

    Args:
        directory: An existing, separate folder for its settings, which it rewrites itself.
        master_port: Port of the master at the start.
        name: For messages.
    """

    def __init__(self, directory: Path, master_port: int, name: str) -> None:
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        settings = directory / "sentinel.conf"
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"dir {directory}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {master_port} 2",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {SERVICE} {3 * DOWN_AFTER_MS}",
        ]
        settings.write_text("\n".join(lines) + "\n", encoding="utf-8")
        super().__init__(
            name=f"Sentinel {name}",
            command=[redis_executable(), str(settings), "--sentinel"],
            log_path=directory / "sentinel.log",
        )

    @property
    def url(self) -> str:
        """Address of this Sentinel."""
        return f"redis://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Whether it answers PING."""
        try:
            with _client(self) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def release(self) -> None:
        """Release the port; it can't be restarted."""
        self._reserved.release()


def _client(server: RedisServer | SentinelServer) -> Any:
    return redis.Redis.from_url(
        server.url,
        socket_timeout=ANSWER_TIMEOUT_S,
        socket_connect_timeout=ANSWER_TIMEOUT_S,
        decode_responses=True,
        protocol=2,
    )


def _cluster_info(client: Any) -> dict[str, str]:
    return dict(client.execute_command("CLUSTER INFO"))


def _follows(client: Any) -> bool:
    """Whether a server is a master, or a replica with a link to its master."""
    state = client.info("replication")
    return bool(state["role"] == "master" or state["master_link_status"] == "up")


def _role(server: RedisServer) -> str:
    try:
        with _client(server) as client:
            return str(client.info("replication")["role"])
    except redis.RedisError:
        return "away"


def two_ports() -> tuple[ReservedPort, ReservedPort]:
    """Reserve a node's port and the bus port that follows from it."""
    while True:
        bus_port = ReservedPort()
        try:
            return ReservedPort(bus_port.number - BUS_PORT_DISTANCE), bus_port
        except OSError:
            bus_port.release()


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + AGREEMENT_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise ServiceError(f"timed out after {AGREEMENT_TIMEOUT_S:g} s: waited until {what}")
        time.sleep(0.05)
