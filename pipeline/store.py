"""Hidden states in Redis: one hash a partition, written by compare-and-set, never by a lock.

The layout is at the head of `store_save.lua`.  A partition's states and `applied`, the offset up
to which they are right, live in one hash: Redis can lose both or neither, and a loss is seen by
whoever reads next, because `applied` is read together with the states.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any, Protocol, TypeVar, cast
from urllib.parse import urlsplit

import redis
import tenacity
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline.batch import Offset
from pipeline.errors import ConfigError, StoreError

_log = logging.getLogger("livestep.store")

#: States written by one Lua call, so that Redis serves others in between: about 5 ms a call.
SAVE_KEYS_MAX = 2_000

#: Keys read by one HMGET, for the same reason.
LOAD_KEYS_MAX = 10_000

#: Seconds before a silent Redis counts as away; the wait for it is `Settings.redis_wait_s`.
SOCKET_TIMEOUT_S = 5.0

#: Where a partition's clock stands among the states: no event has an empty key.
CLOCK_KEY = b""

#: A state written by anything but this policy's kind could be dropped by Redis on its own.
_EVICTING_POLICY_PREFIX = "allkeys-"

#: What a Redis that restarts, fails over or is full answers: wait and try again.
_WORTH_WAITING = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
)

#: Fields of the hash that are no states; the last one is there within a save only.
_FIELDS = ("applied", "start", "partitions", "saving")

T = TypeVar("T")


class SaveRefusedError(Exception):
    """Raised if `applied` is not what the worker last saw; nothing of that call was written.

    Either Redis has lost writes, or another worker has the partition: the partition's recovery
    finds out which.
    """

    def __init__(self, partition: int, applied: Offset | None) -> None:
        super().__init__(f"partition {partition}: applied is {applied}")
        self.partition = partition
        self.applied = applied


@dataclass(frozen=True, slots=True)
class StoredPartition:
    """What the store holds of a partition, beside the states.

    Attributes:
        applied: Next offset whose effect is not yet in the store.
        start: Offset where the states begin.
        partitions: How many partitions the topic had when the states began.
        has_states: Whether any key has a state.
    """

    applied: Offset
    start: Offset
    partitions: int
    has_states: bool


class Store(Protocol):
    """Durable states of one topic under one model."""

    def describe(self, partitions: Sequence[int]) -> dict[int, StoredPartition | None]:
        """Read what is held of each partition; None where nothing is."""

    def begin(
        self,
        partition: int,
        *,
        expected: Offset | None,
        applied: Offset,
        start: Offset,
        partitions: int,
    ) -> None:
        """Begin a partition's states, dropping what was there.

        Raises:
            SaveRefusedError: If `applied` is not `expected`.
        """

    def load(
        self, partition: int, keys: Sequence[bytes]
    ) -> tuple[Offset | None, list[bytes | None]]:
        """Read `applied` and the record of each key, None for a key without one."""

    def times(self, partition: int) -> Iterator[tuple[int, int, bytes]]:
        """Read of each state, with a session gap: last offset, last clock, key; in any order."""

    def save(
        self,
        partition: int,
        *,
        expected: Offset,
        applied: Offset,
        keys: Sequence[bytes],
        records: Sequence[bytes],
        clock: bytes | None = None,
    ) -> None:
        """Write records that are newer than what is there, then move `applied`.

        A clock is written beside `CLOCK_KEY`, and then all in one: which sequences are ended by it
        depends on all of them.

        Raises:
            SaveRefusedError: If `applied` is neither `expected` nor already the new one.
        """

    def give_up_waiting(self) -> None:
        """Let calls that wait for an absent store fail now; used while leaving."""

    def close(self) -> None:
        """Let the connection go; a call that waits gives up."""


class RedisStore:
    """`Store` on Redis or Valkey.

    Args:
        url: `redis[s]://[user:password@]host:port/db`.
        topic_id: Kafka's id of the input topic: one made anew under the same name has other states.
        fingerprint: The model's; another model has other states.
        group: The consumer group; another group is elsewhere in the log.
        wait_s: How long a call waits for a Redis that is away.

    Raises:
        ConfigError: If the URL can't be read.
    """

    def __init__(
        self, url: str, *, topic_id: str, fingerprint: str, group: str, wait_s: float
    ) -> None:
        self._client = connect(url)
        self._address = public_address(url)
        self._topic_id = topic_id
        self._fingerprint = fingerprint
        self._group = group
        self._wait_s = wait_s
        self._closing = threading.Event()
        self._save = self._client.register_script(_script("store_save.lua"))
        self._begin = self._client.register_script(_script("store_begin.lua"))

    def check(self) -> None:
        """Check that Redis answers and keeps what it is given.

        Raises:
            StoreError: If it can't be reached, refuses the password, or may evict states.
        """
        policy = self._call(lambda: self._client.info("memory")["maxmemory_policy"])
        if policy.startswith(_EVICTING_POLICY_PREFIX):
            raise StoreError(
                f"Redis at {self._address} has maxmemory-policy {policy}, which throws states away "
                "when memory is short; set it to noeviction"
            )

    def describe(self, partitions: Sequence[int]) -> dict[int, StoredPartition | None]:
        """See `Store.describe`; one round trip for all partitions."""

        def read() -> list[Any]:
            pipe = self._client.pipeline(transaction=False)
            for partition in partitions:
                pipe.hmget(self._name(partition), *_FIELDS)
                pipe.hlen(self._name(partition))
            return pipe.execute()

        answers = self._call(read)
        found: dict[int, StoredPartition | None] = {}
        for partition, values, length in zip(partitions, answers[::2], answers[1::2], strict=True):
            found[partition] = None
            if values[0] is not None:
                applied, start, count = map(int, values[:3])
                fields = sum(value is not None for value in values)
                found[partition] = StoredPartition(
                    Offset(applied), Offset(start), count, has_states=length > fields
                )
        return found

    def begin(
        self,
        partition: int,
        *,
        expected: Offset | None,
        applied: Offset,
        start: Offset,
        partitions: int,
    ) -> None:
        """See `Store.begin`; one Lua call."""
        arguments = ["" if expected is None else expected, applied, start, partitions]
        self._compare_and_set(self._begin, partition, arguments, applied)

    def load(
        self, partition: int, keys: Sequence[bytes]
    ) -> tuple[Offset | None, list[bytes | None]]:
        """See `Store.load`; one HMGET for some thousand keys, `applied` in the same read."""
        applied: Offset | None = None
        records: list[bytes | None] = []
        for at in range(0, len(keys), LOAD_KEYS_MAX):
            values = self._read(partition, keys[at : at + LOAD_KEYS_MAX])
            seen = None if values[0] is None else Offset(int(values[0]))
            # The oldest of several reads counts: what is missing since then must be noticed.
            if at == 0 or seen is None or (applied is not None and seen < applied):
                applied = seen
            records += values[1:]
        return applied, records

    def times(self, partition: int) -> Iterator[tuple[int, int, bytes]]:
        """See `Store.times`; some thousand keys a call."""
        cursor = 0
        while True:
            cursor, found = self._call(partial(self._scan, partition, cursor))
            for name, record in found.items():
                yield (*ends_of(record), name[1:])
            if not cursor:
                return

    def save(
        self,
        partition: int,
        *,
        expected: Offset,
        applied: Offset,
        keys: Sequence[bytes],
        records: Sequence[bytes],
        clock: bytes | None = None,
    ) -> None:
        """See `Store.save`; one Lua call for some thousand keys, `applied` moves in the last."""
        step = SAVE_KEYS_MAX
        if clock is not None:
            keys, records = [*keys, CLOCK_KEY], [*records, clock]
            step = len(keys)
        for chunk, at in enumerate(range(0, max(len(keys), 1), step)):
            end = at + step
            arguments: list[Any] = [expected, applied, chunk, int(end >= len(keys))]
            for key, record in zip(keys[at:end], records[at:end], strict=True):
                arguments += (b"k" + key, record)
            # A crash here leaves states newer than `applied`: right as they are, replay skips.
            self._compare_and_set(self._save, partition, arguments, applied)

    def close(self) -> None:
        """See `Store.close`."""
        self._closing.set()
        self._client.close()

    def give_up_waiting(self) -> None:
        """See `Store.give_up_waiting`."""
        self._closing.set()

    def _read(self, partition: int, keys: Sequence[bytes]) -> list[Any]:
        fields: list[Any] = [b"applied", *(b"k" + key for key in keys)]
        return self._call(lambda: self._client.hmget(self._name(partition), fields))

    def _scan(self, partition: int, cursor: int) -> tuple[int, dict[bytes, bytes]]:
        name = self._name(partition)
        found = self._client.hscan(name, cursor, match="k?*", count=LOAD_KEYS_MAX)
        return cast(tuple[int, dict[bytes, bytes]], found)

    def _name(self, partition: int) -> str:
        return f"livestep:{{{self._topic_id}:{partition}}}:{self._fingerprint}:{self._group}"

    def _compare_and_set(
        self, script: Any, partition: int, arguments: Sequence[Any], applied: Offset
    ) -> None:
        written, seen = self._call(lambda: script(keys=[self._name(partition)], args=arguments))
        # The first try may have been written although its answer was lost.
        if not written and seen != b"%d" % applied:
            raise SaveRefusedError(partition, Offset(int(seen)) if seen else None)

    def _call(self, command: Callable[[], T]) -> T:
        """Run a command, waiting for a Redis that is away; every command here may be repeated."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_worth_waiting),
            stop=tenacity.stop_any(
                tenacity.stop_after_delay(self._wait_s),
                tenacity.stop_when_event_set(self._closing),
            ),
            wait=tenacity.wait_exponential(multiplier=0.02, max=1.0),
            sleep=tenacity.sleep_using_event(self._closing),
            before_sleep=tenacity.before_sleep_log(_log, logging.WARNING),
            reraise=True,
        )
        try:
            return retrying(command)
        except redis.exceptions.RedisError as error:
            raise StoreError(f"Redis at {self._address}: {error}") from error


def connect(url: str) -> redis.Redis:
    """Make a client that answers within seconds or raises; nothing is sent yet.

    Raises:
        ConfigError: If the URL can't be read.
    """
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            # Waiting is done in one place, `RedisStore._call`, where leaving can end it.
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise ConfigError(f"--redis-url {public_address(url)!r}: {error}") from None


def public_address(url: str) -> str:
    """Give host and port of a URL, without user and password.

    Example:
        >>> public_address("redis://me:secret@example.org:6380/0")
        'example.org:6380'
    """
    try:
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port or 6379}"
    except ValueError:
        return "an unreadable address"


def ends_of(record: bytes) -> tuple[int, int]:
    """Read the first and the last eight bytes of a record: its offset, and the clock if it has one.

    Example:
        >>> ends_of((7).to_bytes(8, "little") + b"state" + (1_000).to_bytes(8, "little"))
        (7, 1000)
    """
    offset = int.from_bytes(record[:8], "little", signed=True)
    return offset, int.from_bytes(record[-8:], "little", signed=True)


def _script(name: str) -> str:
    return resources.files("pipeline").joinpath(name).read_text(encoding="utf-8")


def _is_worth_waiting(error: BaseException) -> bool:
    if isinstance(error, redis.exceptions.AuthenticationError):
        return False
    # MISCONF: a full disk or a failed snapshot; Redis has no class of its own for it.
    return isinstance(error, _WORTH_WAITING) or str(error).startswith("MISCONF")
