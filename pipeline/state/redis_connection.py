"""The connection to Redis: creates clients, waits for an unavailable Redis, translates errors.

No other module creates redis-py clients or translates their errors.
"""

from __future__ import annotations

import hashlib
import logging
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import redis
import tenacity
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from livestep.pipeline.environment import RedisCredentials
from livestep.pipeline.errors import StoppedError, StoreError
from livestep.pipeline.guides import guide
from livestep.pipeline.process.deadline import Deadline
from livestep.pipeline.state.redis_address import RedisAddress, read_address

#: Logs under the store's name because the store waits.
_log = logging.getLogger("livestep.store")

#: Seconds without a response after which Redis counts as unavailable; the total wait is limited by
#: `Settings.redis_wait_s`.
SOCKET_TIMEOUT_S = 5.0

#: Maximum seconds between two attempts of a command.
PAUSE_S_MAX = 1.0

#: Temporary errors: Redis is unavailable, restarting, failing over, moving slots, or out of memory.
_PASSING_ERRORS = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ClusterError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    RedisClusterException,
)

#: Error codes of temporary errors for which redis-py may have no class. MISCONF is a full disk or
#: a failed snapshot, BUSY a long-running script.
_PASSING_CODES = frozenset(
    "BUSY CLUSTERDOWN LOADING MASTERDOWN MISCONF NOREPLICAS OOM READONLY TRYAGAIN".split()
)

#: Permanent errors, which are not retried.
_REFUSALS = (
    redis.exceptions.AuthenticationError,
    redis.exceptions.NoPermissionError,
    redis.exceptions.InvalidResponse,
)

#: An interrupted TLS handshake; temporary, because a server that shuts down causes it, too.
_TLS_ENDS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

#: How Redis reports a command that failed within a script; before Redis 7, without an error code.
_IN_SCRIPT = re.compile(r"user_script: ?(\d+): (?:@user_script: \d+: )?(?:-([A-Z]+) )?")

#: With such a maxmemory-policy, Redis may evict states.
_EVICTING_POLICY_PREFIX = "allkeys-"

T = TypeVar("T")


class RedisConnection:
    """A thread-safe client of Redis or Valkey whose commands wait for an unavailable server.

    The client is created by the first command.

    Args:
        url: See `pipeline.state.redis_address`.
        wait_s: How long a call waits.
        credentials: Used unless the URL contains some.
        deadline: Deadline of a stop, which ends the waiting of calls.

    Raises:
        ConfigError: If the URL is invalid.
    """

    def __init__(
        self,
        url: str,
        wait_s: float,
        credentials: RedisCredentials | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        self.address = read_address(url, credentials)
        self._wait_s = wait_s
        self._deadline = deadline or Deadline()
        self._closing = threading.Event()
        self._making = threading.Lock()
        self._client: Any = None

    def call(self, command: Callable[[Any], T], *, is_save: bool = False) -> T:
        """Run a command, and retry it while Redis is unavailable; it must be safe to repeat.

        Args:
            command: Called with a `redis.Redis`, or a `RedisCluster`, which has the same commands.
            is_save: Keep waiting after a stop has begun, until `give_up_waiting`.

        Raises:
            StoreError: If Redis returns a permanent error, or is unavailable for too long.
            StoppedError: If a stop ended the wait.
        """
        stopped = self._closing if is_save else self._deadline.has_begun
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_passing),
            stop=tenacity.stop_any(
                tenacity.stop_after_delay(self._wait_s),
                tenacity.stop_when_event_set(self._closing),
                tenacity.stop_when_event_set(stopped),
            ),
            wait=tenacity.wait_exponential(multiplier=0.02, max=PAUSE_S_MAX),
            sleep=tenacity.sleep_using_event(stopped),
            before_sleep=self._log_retry,
            reraise=True,
        )
        try:
            result: T = retrying(self._try, command)
            return result
        except (RedisError, RedisClusterException) as error:
            if not is_save and stopped.is_set() and is_passing(error):
                raise StoppedError(f"waiting for Redis at {self.address}: {error}") from error
            raise StoreError(f"Redis at {self.address}: {_explained(error)}") from error

    def check(self) -> None:
        """Check that Redis answers and never evicts states; in a cluster, check each master.

        Raises:
            StoreError: If it can't be reached, refuses the password, or may evict states.
        """
        for where, policy in self.call(_eviction_policies).items():
            if policy.startswith(_EVICTING_POLICY_PREFIX):
                raise StoreError(
                    f"Redis at {where or self.address} has maxmemory-policy {policy}, which "
                    "evicts states when memory is short; set it to noeviction"
                )

    def give_up_waiting(self) -> None:
        """Let waiting calls fail now."""
        self._closing.set()

    def close(self) -> None:
        """Close the connection; waiting calls fail."""
        self._closing.set()
        with self._making:
            if self._client is not None:
                self._client.close()
                for sentinel in _sentinels_of(self._client):
                    sentinel.close()

    def _try(self, command: Callable[[Any], T]) -> T:
        client = self._connected()
        try:
            return command(client)
        except MasterNotFoundError:
            # redis-py hides why Sentinels fail, such as a wrong password: ask them for the reason.
            for sentinel in _sentinels_of(client):
                sentinel.ping()
            raise
        except RedisClusterException:
            # No known node answers: start over with the nodes in the URL.
            self._leave(client)
            raise
        except RedisError as error:
            if isinstance(client, redis.Redis) and _code(error) == "READONLY":
                # This server is no longer the master: the next connection finds the new one.
                client.connection_pool.disconnect(inuse_connections=False)
            raise

    def _leave(self, client: Any) -> None:
        """Discard the client, unless another thread has already replaced it."""
        with self._making:
            if self._client is client:
                self._client = None
        for node in client.get_nodes():
            if node.redis_connection is not None:
                node.redis_connection.connection_pool.disconnect(inuse_connections=False)

    def _connected(self) -> Any:
        with self._making:
            if self._client is None:
                timeout_s = self._deadline.call_s(SOCKET_TIMEOUT_S)
                self._client = make_client(self.address, timeout_s)
            return self._client

    def _log_retry(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        pause_s = state.next_action.sleep if state.next_action is not None else 0.0
        _log.warning("Redis at %s: %s; retrying in %.2g s", self.address, error, pause_s)


class Script:
    """A Lua script on one key; its text is sent only if the server has not cached it.

    Args:
        text: The script.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def run(self, client: Any, name: str, arguments: Sequence[Any]) -> Any:
        """Run it on the key `name`; `arguments` are its ARGV."""
        try:
            try:
                return client.evalsha(self._sha, 1, name, *arguments)
            except redis.exceptions.NoScriptError:
                return client.eval(self._text, 1, name, *arguments)
        except redis.exceptions.ResponseError as error:
            where = _IN_SCRIPT.search(str(error))
            if where is None or "can't run this command" not in str(error):
                raise
            # Redis 6 reports only the line number, not the command.
            line = self._text.splitlines()[int(where[1]) - 1].strip()
            raise redis.exceptions.NoPermissionError(
                f"this user has no permissions to run a command of a script: {line}"
            ) from error


def make_client(address: RedisAddress, timeout_s: float = SOCKET_TIMEOUT_S) -> Any:
    """Create a client whose calls return within `timeout_s` or raise.

    Only a cluster's client connects right away.

    Args:
        address: Where Redis is.
        timeout_s: Seconds without a response after which a call fails.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        # RESP2 needs no permission for HELLO, and no command here needs RESP3.
        "protocol": 2,
        "driver_info": None,
        "ssl": address.is_tls,
        **address.options,
    }
    # Only `RedisConnection.call` retries, because a stop can end its wait.
    once = Retry(NoBackoff(), 0)
    login: dict[str, Any] = {
        "username": address.credentials.username or None,
        "password": address.credentials.password or None,
    }
    if address.kind == "cluster":
        nodes = [ClusterNode(*host) for host in address.hosts]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, retry=once, **options, **login)
    if address.kind == "sentinel":
        sentinel_options = {
            **options,
            "username": address.credentials.sentinel_username or None,
            "password": address.credentials.sentinel_password or None,
            "retry": once,
        }
        sentinels: Any = Sentinel(  # type: ignore[no-untyped-call]
            address.hosts, sentinel_kwargs=sentinel_options
        )
        return sentinels.master_for(
            address.service, db=address.database, retry=once, **options, **login
        )
    host, port = address.hosts[0]
    return redis.Redis(host, port, db=address.database, retry=once, **options, **login)


def is_passing(error: BaseException) -> bool:
    """Return whether an error of redis-py is temporary, so that a retry may succeed."""
    for cause in _chain(error):
        if isinstance(cause, _REFUSALS):
            return False
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, _TLS_ENDS):
            return False
        if isinstance(cause, redis.exceptions.ResponseError) and "cluster support" in str(cause):
            return False
    return isinstance(error, _PASSING_ERRORS) or _code(error) in _PASSING_CODES


def _eviction_policies(client: Any) -> dict[str, str]:
    """Return the maxmemory-policy of each master by name; '' if there is only one server."""
    if isinstance(client, redis.Redis):
        return {"": client.info("memory")["maxmemory_policy"]}
    return {
        node.name: client.info("memory", target_nodes=node)["maxmemory_policy"]
        for node in client.get_primaries()
    }


def _sentinels_of(client: Any) -> list[redis.Redis]:
    """Return the clients of the Sentinels that a client asks for the master."""
    pool = getattr(client, "connection_pool", None)
    return list(pool.sentinel_manager.sentinels) if isinstance(pool, SentinelConnectionPool) else []


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _code(error: BaseException) -> str:
    """Return Redis' code of an error, such as `READONLY`, even if it happened in a script."""
    if isinstance(error, redis.exceptions.ReadOnlyError):
        return "READONLY"
    in_script = _IN_SCRIPT.search(str(error))
    if in_script is not None and in_script[2]:
        return in_script[2]
    return str(error).partition(" ")[0]


def _explained(error: BaseException) -> str:
    """Return an error's text, with a hint if there is one."""
    text, causes = str(error), list(_chain(error))
    if any(isinstance(cause, redis.exceptions.NoPermissionError) for cause in causes):
        return f"{text} ({guide('deploy/security/redis-acl.conf')} lists what a worker needs)"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return f"{text} (set ?ssl_ca_certs=<file> in --redis-url to the CA to trust)"
    if any(isinstance(cause, TimeoutError) and "handshake" in str(cause) for cause in causes):
        return f"{text} in the TLS handshake (if the server doesn't use TLS, use redis://)"
    if isinstance(error, redis.exceptions.InvalidResponse) or "closed by server" in text:
        return f"{text} (if the server uses TLS, use rediss://)"
    if "cluster support" in text or "Cluster mode is not enabled" in text:
        return f"{text} (this is a single server: use redis://)"
    if isinstance(error, redis.exceptions.MovedError) or "not allowed in cluster mode" in text:
        return f"{text} (this is a Redis Cluster: use redis+cluster://)"
    return text
