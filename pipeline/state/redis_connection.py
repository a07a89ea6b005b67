"""The connection to Redis: a client for each kind of Redis, and the wait for one that is away.

Nothing else makes redis-py's clients, and nothing else translates their errors.
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

#: The store's, whose waiting it is.
_log = logging.getLogger("livestep.store")

#: Seconds before a silent Redis counts as away; the wait for it is `Settings.redis_wait_s`.
SOCKET_TIMEOUT_S = 5.0

#: Longest pause before a command is tried again.
PAUSE_S_MAX = 1.0

#: Errors that pass: a Redis that is away, restarts, fails over, moves its slots, or has no room.
_PASSING_ERRORS = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ClusterError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    RedisClusterException,
)

#: The same as Redis' own words, where redis-py has no class for them. MISCONF is a full disk or a
#: failed snapshot, BUSY somebody's long script.
_PASSING_CODES = frozenset(
    "BUSY CLUSTERDOWN LOADING MASTERDOWN MISCONF NOREPLICAS OOM READONLY TRYAGAIN".split()
)

#: Errors that no wait ends.
_REFUSALS = (
    redis.exceptions.AuthenticationError,
    redis.exceptions.NoPermissionError,
    redis.exceptions.InvalidResponse,
)

#: TLS that breaks off in its handshake; a server that goes away looks so, too.
_TLS_ENDS = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

#: How Redis tells of a command that failed within a script; before Redis 7, not by its own code.
_IN_SCRIPT = re.compile(r"user_script: ?(\d+): (?:@user_script: \d+: )?(?:-([A-Z]+) )?")

#: Of this kind, Redis could drop a state on its own.
_EVICTING_POLICY_PREFIX = "allkeys-"

T = TypeVar("T")


class RedisConnection:
    """A client of Redis or Valkey whose commands wait for one that is away.

    It is made at the first command. All of it may be used from several threads.

    Args:
        url: See `pipeline.state.redis_address`.
        wait_s: How long a call waits.
        credentials: Used unless the URL has some itself.
        deadline: Of a stop; a call that waits then gives up.

    Raises:
        ConfigError: If the URL can't be read.
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
        """Run a command, waiting for a Redis that is away; it has to be one that may be repeated.

        Args:
            command: Gets a `redis.Redis`, or a `RedisCluster`, which has the same commands.
            is_save: It is worth waiting for also after a stop has begun, until `give_up_waiting`.

        Raises:
            StoreError: If Redis refuses, or is away for longer than the wait.
            StoppedError: If a stop has ended the wait.
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
            before_sleep=self._tell,
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
        """Check that Redis answers and keeps what it is given; of a cluster, each master.

        Raises:
            StoreError: If it can't be reached, refuses the password, or may evict states.
        """
        for where, policy in self.call(_eviction_policies).items():
            if policy.startswith(_EVICTING_POLICY_PREFIX):
                raise StoreError(
                    f"Redis at {where or self.address} has maxmemory-policy {policy}, which "
                    "throws states away when memory is short; set it to noeviction"
                )

    def give_up_waiting(self) -> None:
        """Let calls that wait fail now."""
        self._closing.set()

    def close(self) -> None:
        """Let the connection go; a call that waits gives up."""
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
            # Sentinels that refuse us look like Sentinels that are away: the first one tells.
            for sentinel in _sentinels_of(client):
                sentinel.ping()
            raise
        except RedisClusterException:
            # None of the nodes that we know of is there: begin again with those of the URL.
            self._leave(client)
            raise
        except RedisError as error:
            if isinstance(client, redis.Redis) and _code(error) == "READONLY":
                # A master no longer: the next connection is made to the one that now is.
                client.connection_pool.disconnect(inuse_connections=False)
            raise

    def _leave(self, client: Any) -> None:
        """Make a new client next time, unless another thread has done so already."""
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

    def _tell(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        pause_s = state.next_action.sleep if state.next_action is not None else 0.0
        _log.warning("Redis at %s: %s; again in %.2g s", self.address, error, pause_s)


class Script:
    """A Lua script on one key, sent as a whole only to a server that does not know it yet.

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
            # Redis 6 does not say which command; its line does.
            line = self._text.splitlines()[int(where[1]) - 1].strip()
            raise redis.exceptions.NoPermissionError(
                f"this user has no permissions to run the command of a script: {line}"
            ) from error


def make_client(address: RedisAddress, timeout_s: float = SOCKET_TIMEOUT_S) -> Any:
    """Make a client that answers within seconds or raises.

    Only that of a cluster sends anything yet.

    Args:
        address: Where Redis is.
        timeout_s: After which a silent Redis counts as away.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        # The older protocol needs no permission to shake hands, and nothing here the newer one.
        "protocol": 2,
        "driver_info": None,
        "ssl": address.is_tls,
        **address.options,
    }
    # Waiting is done in one place, `RedisConnection.call`, where leaving can end it.
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
    """Whether an error of redis-py is one that a wait may end."""
    for cause in _chain(error):
        if isinstance(cause, _REFUSALS):
            return False
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, _TLS_ENDS):
            return False
        if isinstance(cause, redis.exceptions.ResponseError) and "cluster support" in str(cause):
            return False
    return isinstance(error, _PASSING_ERRORS) or _code(error) in _PASSING_CODES


def _eviction_policies(client: Any) -> dict[str, str]:
    """Ask for the policy of each server that takes writes; '' is the only one."""
    if isinstance(client, redis.Redis):
        return {"": client.info("memory")["maxmemory_policy"]}
    return {
        node.name: client.info("memory", target_nodes=node)["maxmemory_policy"]
        for node in client.get_primaries()
    }


def _sentinels_of(client: Any) -> list[redis.Redis]:
    """Give the clients of the Sentinels that a client asks for the master."""
    pool = getattr(client, "connection_pool", None)
    return list(pool.sentinel_manager.sentinels) if isinstance(pool, SentinelConnectionPool) else []


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _code(error: BaseException) -> str:
    """Give Redis' code of an error, such as `READONLY`, also of one within a script."""
    if isinstance(error, redis.exceptions.ReadOnlyError):
        return "READONLY"
    in_script = _IN_SCRIPT.search(str(error))
    if in_script is not None and in_script[2]:
        return in_script[2]
    return str(error).partition(" ")[0]


def _explained(error: BaseException) -> str:
    """Give an error's text, and what to do about it where that can be said."""
    text, causes = str(error), list(_chain(error))
    if any(isinstance(cause, redis.exceptions.NoPermissionError) for cause in causes):
        return f"{text} ({guide('deploy/security/redis-acl.conf')} lists what a worker needs)"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return f"{text} (?ssl_ca_certs=<file> in --redis-url names the authority to trust)"
    if any(isinstance(cause, TimeoutError) and "handshake" in str(cause) for cause in causes):
        return f"{text} in a handshake of TLS (does it speak TLS? without it, it is redis://)"
    if isinstance(error, redis.exceptions.InvalidResponse) or "closed by server" in text:
        return f"{text} (does it want TLS, rediss://?)"
    if "cluster support" in text or "Cluster mode is not enabled" in text:
        return f"{text} (it is one server: redis://)"
    if isinstance(error, redis.exceptions.MovedError) or "not allowed in cluster mode" in text:
        return f"{text} (it is a Redis Cluster: redis+cluster://)"
    return text
