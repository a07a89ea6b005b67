"""What each kind of fault does to services, network and workers, and how it is healed.

A fault is a context manager: entering does it, leaving heals it, and what it yields are the
partitions that it can hit. Faults of different kinds overlap; two that would undo each other wait
for each other by a lock.
"""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import tenacity

from livestep.deploy.local.redis_server import RedisServer
from tests.chaos.crew import Crew, Member
from tests.chaos.place import Place, redis_client
from tests.chaos.proxy import Proxy

#: A slow network: latency as between continents, bandwidth of a bad line.
SLOW_LATENCY_MS, SLOW_BYTES_PER_S = (20.0, 120.0), (150_000.0, 1_000_000.0)

#: How long a fault may look for something that it can hit.
COMMAND_TIMEOUT_S = 60.0

T = TypeVar("T")

#: Files of Redis that are not its data.
_NO_DATA = shutil.ignore_patterns("*.log", "nodes.conf")


@dataclass
class Stage:
    """What faults have to do with.

    Attributes:
        place: The services.
        crew: The workers.
        partition_count: Of the topic.
    """

    place: Place
    crew: Crew
    partition_count: int
    _locks: dict[str, threading.RLock] = field(default_factory=dict)
    _locks_lock: threading.Lock = field(default_factory=threading.Lock)

    def lock(self, name: str) -> threading.RLock:
        """Return the lock of something that one fault has at a time."""
        with self._locks_lock:
            return self._locks.setdefault(name, threading.RLock())

    @property
    def partitions(self) -> list[int]:
        """All of them."""
        return list(range(self.partition_count))

    @property
    def snapshot(self) -> Path:
        """Copy of Redis' files, made when it was down; missing before."""
        return self.place.directory / "redis-snapshot"

    def member(self, target: int) -> Member:
        """Choose a worker."""
        return self.crew.members[target % len(self.crew.members)]


#: What does a fault: stage and target, see `Fault.target`.
DoFault = Callable[[Stage, int], AbstractContextManager[Sequence[int]]]

FAULTS: dict[str, DoFault] = {}


def _fault(
    name: str,
) -> Callable[[Callable[[Stage, int], Iterator[Sequence[int]]]], DoFault]:
    def register(do: Callable[[Stage, int], Iterator[Sequence[int]]]) -> DoFault:
        FAULTS[name] = contextlib.contextmanager(do)
        return FAULTS[name]

    return register


@_fault("worker-kill")
def worker_kill(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """SIGKILL, of the next one that runs."""

    def kill_one() -> list[int] | None:
        for number in range(len(stage.crew.members)):
            member = stage.member(target + number)
            partitions = member.partitions
            if member.kill():
                return partitions
        return None

    yield _until(kill_one)


@_fault("worker-pause")
def worker_pause(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """SIGSTOP and SIGCONT: a zombie."""
    member = stage.member(target)
    with stage.lock(member.name):
        partitions = member.partitions
        member.pause()
        try:
            yield partitions
        finally:
            member.resume()


@_fault("worker-add")
def worker_add(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """One more for a while: two rebalances."""
    member = stage.crew.add()
    try:
        yield stage.partitions
    finally:
        stage.crew.take_away(member)


@_fault("worker-leave")
def worker_leave(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """SIGTERM, and a new start."""
    member = stage.member(target)
    with stage.lock(member.name):
        partitions = member.partitions
        member.leave()
        try:
            yield partitions
        finally:
            member.want()


@_fault("redis-kill")
def redis_kill(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """SIGKILL of Redis, or of a master whose replica takes over."""
    with stage.lock("redis"):
        server = _master(stage, target)
        server.kill()
        if not stage.place.is_cluster:
            _copy(server.log_path.parent, stage.snapshot)
        try:
            yield stage.partitions
        finally:
            server.start()


@_fault("redis-snapshot")
def redis_snapshot(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """Come back with the files of the last time that it was down, or with none before that."""
    with stage.lock("redis"):
        server = _master(stage, target)
        server.kill()
        try:
            yield stage.partitions
        finally:
            directory = server.log_path.parent
            for path in directory.iterdir():
                if path.name not in _NO_DATA(str(directory), [path.name]):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            if stage.snapshot.exists():
                shutil.copytree(stage.snapshot, directory, dirs_exist_ok=True)
            server.start()


@_fault("redis-flush")
def redis_flush(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """FLUSHALL, on every master."""
    with stage.lock("redis"):
        for server in stage.place.masters():
            _command(server, lambda client: client.flushall())
    yield stage.partitions


@_fault("redis-cut")
def redis_cut(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """Close connections, from the server's side and on the way."""
    with stage.lock("redis"):
        for server in stage.place.masters():
            _command(server, lambda client: client.client_kill_filter(_type="normal"))
    for proxy in stage.place.redis_proxies:
        proxy.drop_connections()
    yield stage.partitions


@_fault("redis-full")
def redis_full(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """No memory left: writes are refused with OOM, reads are answered."""
    with stage.lock("redis"):
        server = _master(stage, target)
        _command(server, lambda client: client.config_set("maxmemory", 1))
        try:
            yield stage.partitions
        finally:
            _command(server, lambda client: client.config_set("maxmemory", 0))


@_fault("redis-disk-full")
def redis_disk_full(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """No byte more in its append-only file: writes are refused with MISCONF.

    The limit on a file's length answers EFBIG where a full disk would answer ENOSPC; Redis treats
    both alike.
    """
    with stage.lock("redis"):
        server = _master(stage, target)
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (1, hard))
        try:
            yield stage.partitions
        finally:
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))


@_fault("redis-slow")
def redis_slow(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """Latency and bandwidth between workers and Redis."""
    with stage.lock("redis-network"), _slow(stage.place.redis_proxies, target):
        yield stage.partitions


@_fault("redis-silent")
def redis_silent(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """No packet between workers and Redis arrives."""
    with stage.lock("redis-network"), _silent(stage.place.redis_proxies):
        yield stage.partitions


@_fault("kafka-kill")
def kafka_kill(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """SIGKILL of the broker, or of one whose replicas take over."""
    brokers = stage.place.brokers
    with stage.lock("kafka"):
        broker = brokers[target % len(brokers)]
        broker.kill()
        try:
            yield stage.partitions
        finally:
            broker.start()


@_fault("kafka-cut")
def kafka_cut(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """Reset connections between workers and brokers."""
    for proxy in stage.place.kafka_proxies:
        proxy.drop_connections()
    yield stage.partitions


@_fault("kafka-slow")
def kafka_slow(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """Latency and bandwidth between workers and brokers."""
    with stage.lock("kafka-network"), _slow(stage.place.kafka_proxies, target):
        yield stage.partitions


@_fault("kafka-silent")
def kafka_silent(stage: Stage, target: int) -> Iterator[Sequence[int]]:
    """No packet between workers and one broker arrives."""
    proxies = stage.place.kafka_proxies
    with stage.lock("kafka-network"), _silent([proxies[target % len(proxies)]]):
        yield stage.partitions


@contextlib.contextmanager
def _slow(proxies: Sequence[Proxy], target: int) -> Iterator[None]:
    rng = random.Random(target)
    for proxy in proxies:
        proxy.latency_ms = rng.uniform(*SLOW_LATENCY_MS)
        proxy.bytes_per_s = rng.uniform(*SLOW_BYTES_PER_S)
    try:
        yield
    finally:
        for proxy in proxies:
            proxy.latency_ms = proxy.bytes_per_s = 0.0


@contextlib.contextmanager
def _silent(proxies: Sequence[Proxy]) -> Iterator[None]:
    for proxy in proxies:
        proxy.is_silent = True
    try:
        yield
    finally:
        for proxy in proxies:
            proxy.is_silent = False


def _master(stage: Stage, target: int) -> RedisServer:
    """Choose a Redis that takes writes; one that takes over needs a moment."""
    masters = _until(lambda: stage.place.masters() or None)
    return masters[target % len(masters)]


def _until(find: Callable[[], T | None]) -> T:
    """Ask again and again until there is something."""
    found = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda found: found is None),
        wait=tenacity.wait_fixed(0.1),
        stop=tenacity.stop_after_delay(COMMAND_TIMEOUT_S),
    )(find)
    return cast(T, found)


def _command(server: RedisServer, command: Callable[[Any], Any]) -> None:
    """Run a command on one Redis, past the proxies; one that is on its way back is waited for."""
    retrying = tenacity.Retrying(
        wait=tenacity.wait_fixed(0.1), stop=tenacity.stop_after_delay(COMMAND_TIMEOUT_S)
    )
    with redis_client(server) as client:
        retrying(command, client)


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=_NO_DATA)
