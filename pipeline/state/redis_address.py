"""URLs of Redis: one server, a Redis Cluster, or a master found by Sentinels.

    redis://host:port/db                             one server
    redis+cluster://host:port[,host:port...]         some nodes of a Redis Cluster
    redis+sentinel://host:port[,...]/service[/db]    Sentinels, and their name for the master

`rediss` instead of `redis` means TLS for all connections.  Options after `?` have redis-py's names.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.connection import parse_url

from livestep.pipeline.environment import RedisCredentials, split_credentials
from livestep.pipeline.errors import ConfigError

REDIS_PORT = 6379
SENTINEL_PORT = 26379

#: Options allowed after `?` in a URL; those of TLS with `rediss` only.
TLS_OPTIONS = frozenset(
    "ssl_" + name for name in "ca_certs ca_path certfile keyfile cert_reqs check_hostname".split()
)
OPTIONS = frozenset({"db", "socket_timeout", "socket_connect_timeout", "socket_keepalive"})

_FORMS = (
    "use redis[s]://host:port/db, redis[s]+cluster://host:port[,...] or "
    "redis[s]+sentinel://host:port[,...]/service[/db]"
)


@dataclass(frozen=True, kw_only=True)
class RedisAddress:
    """A parsed URL.

    Attributes:
        kind: `redis`, `cluster` or `sentinel`.
        hosts: Host and port of each server in the URL.
        database: Always 0 in a cluster.
        service: The Sentinels' name for the master, else ''.
        is_tls: Whether connections to servers and Sentinels use TLS.
        options: Converted options for redis-py's connections.
        credentials: Those in the URL, else those given separately.
    """

    kind: str
    hosts: tuple[tuple[str, int], ...]
    database: int
    service: str
    is_tls: bool
    options: Mapping[str, Any]
    credentials: RedisCredentials

    def __str__(self) -> str:
        where = ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{where}/{self.service}" if self.service else where


def read_address(url: str, credentials: RedisCredentials | None = None) -> RedisAddress:
    """Parse the URL of a Redis.

    Args:
        url: In one of the forms listed at the top of this module.
        credentials: Used unless the URL contains a user or password.

    Raises:
        ConfigError: If the URL is invalid, or names TLS files that can't be used; the message never
            contains a part of a password.

    Example:
        >>> address = read_address("rediss+sentinel://a:1,[::1]/main/2?socket_timeout=3")
        >>> print(address, address.kind, address.database, address.options["socket_timeout"])
        a:1,::1:26379/main sentinel 2 3.0
    """
    url, username, password = split_credentials(url)
    if username or password:
        credentials = RedisCredentials(username=username, password=password)
    try:
        return _read(url, credentials or RedisCredentials())
    except ValueError as error:
        raise ConfigError(f"--redis-url: {error}") from None


def _read(url: str, credentials: RedisCredentials) -> RedisAddress:
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    if scheme not in ("redis", "rediss") or kind not in ("", "cluster", "sentinel"):
        raise ValueError(f"unknown scheme {parts.scheme}://; {_FORMS}")
    is_tls = scheme == "rediss"
    port = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    hosts = tuple(_host_and_port(host, port) for host in parts.netloc.split(","))
    if len(hosts) > 1 and not kind:
        raise ValueError(f"several hosts need a Redis Cluster or Sentinels; {_FORMS}")
    path = [unquote(part) for part in parts.path.split("/") if part]
    service = path.pop(0) if kind == "sentinel" and path else ""
    if kind == "sentinel" and not service:
        raise ValueError("the master's name is missing; use redis+sentinel://host:port/service")
    options = _options(parts.query, is_tls)
    database = options.pop("db", None)
    if path:
        if len(path) > 1 or database is not None or not path[0].isdecimal():
            raise ValueError(f"{parts.path!r} is not a database number; {_FORMS}")
        database = int(path[0])
    if kind == "cluster" and database:
        raise ValueError(f"a Redis Cluster has only database 0, not {database}")
    return RedisAddress(
        kind=kind or "redis",
        hosts=hosts,
        database=database or 0,
        service=service,
        is_tls=is_tls,
        options=options,
        credentials=credentials,
    )


def _host_and_port(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"the host is missing; {_FORMS}")
    return parts.hostname, parts.port or default_port


def _options(query: str, is_tls: bool) -> dict[str, Any]:
    """Parse the options after `?` as redis-py does, and check that the TLS files can be used."""
    options: dict[str, Any] = parse_url(f"redis://host?{query}")  # type: ignore[no-untyped-call]
    del options["host"]
    unknown = sorted(set(options) - OPTIONS - TLS_OPTIONS)
    if unknown:
        raise ValueError(
            f"unknown option {unknown[0]!r}; known are {', '.join(sorted(OPTIONS | TLS_OPTIONS))}"
        )
    tls = {name: value for name, value in options.items() if name in TLS_OPTIONS}
    if tls and not is_tls:
        raise ValueError(f"{min(tls)} needs TLS: use rediss:// instead of redis://")
    if is_tls:
        _check_tls(tls)
    return options


def _check_tls(tls: Mapping[str, Any]) -> None:
    """Load the files that the TLS options name, so that an invalid file is reported at once."""
    if tls.get("ssl_cert_reqs", "required") not in ("none", "optional", "required"):
        raise ValueError("ssl_cert_reqs must be none, optional or required")
    try:
        context = ssl.create_default_context(
            cafile=tls.get("ssl_ca_certs"), capath=tls.get("ssl_ca_path")
        )
        if "ssl_certfile" in tls or "ssl_keyfile" in tls:
            # With an empty password, OpenSSL doesn't prompt for one on the terminal.
            context.load_cert_chain(tls.get("ssl_certfile", ""), tls.get("ssl_keyfile"), "")
    except OSError as error:
        named = ", ".join(f"{name}={tls[name]}" for name in sorted(tls))
        raise ValueError(f"{named}: {error.strerror or error}") from None
