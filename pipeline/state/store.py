"""Hidden states in Redis: one hash per partition, written by compare-and-set, without locks.

`store_save.lua` documents the layout.  A partition's states and `applied`, the next offset to
process, are in one hash: Redis loses both or neither, and the next read detects a loss because it
reads `applied` together with the states.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any, Protocol, cast

import redis

from livestep.pipeline.environment import RedisCredentials
from livestep.pipeline.errors import StoreError
from livestep.pipeline.process.deadline import Deadline
from livestep.pipeline.state.redis_connection import RedisConnection, Script
from livestep.pipeline.state.stored_partition import (
    FIELDS,
    DamagedPartition,
    StoredPartition,
    read_fields,
    read_number,
)
from livestep.pipeline.types import Offset

#: States written by one Lua call, about 5 ms; Redis serves other clients between calls.
SAVE_KEYS_MAX = 2_000

#: Keys read by one HMGET, for the same reason.
LOAD_KEYS_MAX = 10_000

#: Key of a partition's clock among the states; an event's key is never empty.
CLOCK_KEY = b""

#: How often a scan of a partition that has missed some states is repeated before it fails.
SCANS_MAX = 5


class SaveRefusedError(Exception):
    """Raised if `applied` is not what the worker last saw; that call wrote nothing.

    Either Redis has lost writes, or another worker owns the partition; recovery finds out which.
    """

    def __init__(self, partition: int, applied: Offset | bytes | None) -> None:
        super().__init__(f"partition {partition}: applied is {applied!r}")
        self.partition = partition
        self.applied = applied


class Store(Protocol):
    """Durable states of one topic and one model."""

    def describe(
        self, partitions: Sequence[int]
    ) -> dict[int, StoredPartition | DamagedPartition | None]:
        """Read the metadata of each partition; None if nothing is stored."""

    def begin(
        self,
        partition: int,
        *,
        expected: Offset | bytes | None,
        applied: Offset,
        start: Offset,
        partitions: int,
    ) -> None:
        """Replace a partition's states with an empty set.

        Args:
            partition: Index.
            expected: The stored `applied`: a number, invalid bytes, or None if missing.
            applied: The new `applied`.
            start: Offset where the states begin.
            partitions: Number of partitions of the topic.

        Raises:
            SaveRefusedError: If `applied` is not `expected`.
        """

    def load(
        self, partition: int, keys: Sequence[bytes]
    ) -> tuple[Offset | None, list[bytes | None]]:
        """Read `applied` and the record of each key, None for a key without one.

        `applied` is None if it is missing or not a number.
        """

    def scan(self, partition: int) -> Iterator[dict[bytes, bytes]]:
        """Yield the records of all keys in chunks; a key may come twice.

        Raises:
            SaveRefusedError: If the number of keys keeps changing.
        """

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
        """Write records that are newer than the stored ones, then move `applied`.

        A clock is written under `CLOCK_KEY`, and everything in one chunk: which sequences it ends
        depends on all of them.

        Raises:
            SaveRefusedError: If `applied` is neither `expected` nor already the new value.
        """

    def give_up_waiting(self) -> None:
        """Let calls that wait for an unavailable store fail now; used while leaving."""

    def close(self) -> None:
        """Close the connection; waiting calls fail."""


class RedisStore:
    """`Store` on Redis or Valkey.

    Args:
        url: See `pipeline.state.redis_address`.
        topic_id: Kafka's id of the input topic; a topic that is created again has separate states.
        fingerprint: The model's fingerprint; each model has separate states.
        group: The consumer group; each group has its own position in the log.
        wait_s: How long a call waits for an unavailable Redis.
        credentials: Used unless the URL contains some.
        deadline: Deadline of a stop; reads then stop waiting, saves only at `give_up_waiting`.

    Raises:
        ConfigError: If the URL is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        topic_id: str,
        fingerprint: str,
        group: str,
        wait_s: float,
        credentials: RedisCredentials | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        self._redis = RedisConnection(url, wait_s, credentials, deadline)
        self._topic_id = topic_id
        self._fingerprint = fingerprint
        self._group = group
        self._save = Script(_script("store_save.lua"))
        self._begin = Script(_script("store_begin.lua"))

    def check(self) -> None:
        """Check that Redis answers and never evicts states.

        Raises:
            StoreError: If it can't be reached, refuses the password, or may evict states.
        """
        self._redis.check()

    def describe(
        self, partitions: Sequence[int]
    ) -> dict[int, StoredPartition | DamagedPartition | None]:
        """See `Store.describe`; one round trip for all partitions."""

        def read(client: Any) -> list[Any]:
            pipe = client.pipeline(transaction=False)
            for partition in partitions:
                # In this order, or a concurrent `begin` of another worker would look like damage.
                pipe.hlen(self._name(partition))
                pipe.hmget(self._name(partition), *FIELDS)
            answers = pipe.execute(raise_on_error=False)
            for index, answer in enumerate(answers):
                if isinstance(answer, Exception):
                    with self._naming(partitions[index // 2]):
                        raise answer
            return cast(list[Any], answers)

        answers = self._redis.call(read)
        return {
            partition: read_fields(values, length)
            for partition, length, values in zip(
                partitions, answers[::2], answers[1::2], strict=True
            )
        }

    def begin(
        self,
        partition: int,
        *,
        expected: Offset | bytes | None,
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
        """See `Store.load`; one HMGET per `LOAD_KEYS_MAX` keys, which also reads `applied`."""
        applied: Offset | None = None
        records: list[bytes | None] = []
        for at in range(0, len(keys), LOAD_KEYS_MAX):
            values = self._read(partition, keys[at : at + LOAD_KEYS_MAX])
            seen = read_number(values[0])
            # The oldest of several reads counts, so that a loss between them is noticed.
            if at == 0 or seen is None or (applied is not None and seen < applied):
                applied = seen
            records += values[1:]
        return applied, records

    def scan(self, partition: int) -> Iterator[dict[bytes, bytes]]:
        """See `Store.scan`; about `LOAD_KEYS_MAX` keys per call."""
        for _ in range(SCANS_MAX):
            seen: set[bytes] = set()
            cursor = 0
            while True:
                cursor, found = self._call(partition, "hscan", cursor, count=LOAD_KEYS_MAX)
                seen |= found.keys()
                yield {name[1:]: found[name] for name in found if name[:1] == b"k" != name}
                if not cursor:
                    break
            # A cursor is valid only for the process that returned it: after a restart or failover
            # the scan continues somewhere else, and may miss keys.
            if len(seen) == self._call(partition, "hlen"):
                return
        raise SaveRefusedError(partition, None)

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
        """See `Store.save`; one Lua call per `SAVE_KEYS_MAX` keys, the last moves `applied`."""
        step = SAVE_KEYS_MAX
        if clock is not None:
            keys, records = [*keys, CLOCK_KEY], [*records, clock]
            step = len(keys)
        for chunk, at in enumerate(range(0, max(len(keys), 1), step)):
            end = at + step
            arguments: list[Any] = [expected, applied, chunk, int(end >= len(keys))]
            for key, record in zip(keys[at:end], records[at:end], strict=True):
                arguments += (b"k" + key, record)
            # A crash here leaves states newer than `applied`: they are valid, and a replay skips
            # the events that they have seen.
            self._compare_and_set(self._save, partition, arguments, applied)

    def close(self) -> None:
        """See `Store.close`."""
        self._redis.close()

    def give_up_waiting(self) -> None:
        """See `Store.give_up_waiting`."""
        self._redis.give_up_waiting()

    def _read(self, partition: int, keys: Sequence[bytes]) -> list[Any]:
        fields = [b"applied", *(b"k" + key for key in keys)]
        return cast(list[Any], self._call(partition, "hmget", fields))

    def _call(self, partition: int, command: str, *arguments: Any, **options: Any) -> Any:
        """Run a command on the hash of a partition."""

        def run(client: Any) -> Any:
            with self._naming(partition):
                return getattr(client, command)(self._name(partition), *arguments, **options)

        return self._redis.call(run)

    @contextlib.contextmanager
    def _naming(self, partition: int) -> Iterator[None]:
        """Name the Redis key in the error if it doesn't hold a hash."""
        try:
            yield
        except redis.exceptions.ResponseError as error:
            if "WRONGTYPE" not in str(error):
                raise
            raise StoreError(
                f"Redis at {self._redis.address}: key {self._name(partition)} is not a hash. It "
                f"should hold the states of partition {partition}; another program has overwritten "
                "it. Delete the key, and a replay rebuilds the states"
            ) from error

    def _name(self, partition: int) -> str:
        return f"livestep:{{{self._topic_id}:{partition}}}:{self._fingerprint}:{self._group}"

    def _compare_and_set(
        self, script: Script, partition: int, arguments: Sequence[Any], applied: Offset
    ) -> None:

        def run(client: Any) -> Any:
            with self._naming(partition):
                return script.run(client, self._name(partition), arguments)

        written, seen = self._redis.call(run, is_save=script is self._save)
        # An earlier attempt may have succeeded even though its response was lost.
        if not written and seen != b"%d" % applied:
            number = read_number(seen)
            raise SaveRefusedError(partition, (seen or None) if number is None else number)


def _script(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
