"""Read the committed records of a topic with kafka-python: the base class of the readers."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import CommitFailedError, IllegalGenerationError, RebalanceInProgressError

from livestep.pipeline.errors import DecodeError
from livestep.pipeline.kafka.connection import (
    CONNECT_TIMEOUT_S,
    broker_errors,
    connect,
    missing_topic,
)
from livestep.pipeline.kafka.topic_setup import admin_options, describe_topics
from livestep.pipeline.records import key_bytes

T = TypeVar("T")

#: Timeout of one poll; short, so that Ctrl-C and the group's heartbeats are not delayed.
POLL_TIMEOUT_S = 1.0

#: Shortest time between two commits of a group's positions.
COMMIT_INTERVAL_S = 1.0

#: These errors mean that a commit came too late: the new owner reads the records again.
_REBALANCED = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError)


class TopicReader(ABC, Generic[T]):
    """Read the committed records of all partitions of a topic; the base class of the readers.

    The constructor fixes the start: on every partition, the reader returns all records that are
    committed later. Records of a key arrive in order; partitions are interleaved. Without a group,
    partitions that are added to the topic later are not read. Not thread-safe.

    Args:
        bootstrap_servers: host:port[,host:port...].
        topic: Topic to read; must exist.
        from_beginning: Start at the oldest record instead of the end.
        keys: Only these keys; None for all.
        group: Consumer group: starts where the group stopped, and shares the partitions among its
            members, at least once. Returned records are committed at the next poll and at `close`,
            but not if the `with` block fails. None to read everything alone, without commits.
        timeout_s: Time limit for finding a broker and joining the group, in seconds.
        client_options: Options of kafka-python's KafkaConsumer, by its own names.

    Raises:
        BrokerError: If no broker responds.
        MissingTopicError: If the topic does not exist.
        ConfigError: If a client option is unknown.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        *,
        from_beginning: bool = False,
        keys: Iterable[str | bytes] | None = None,
        group: str | None = None,
        timeout_s: float = CONNECT_TIMEOUT_S,
        **client_options: Any,
    ) -> None:
        self.topic = topic
        self._keys = None if keys is None else frozenset(key_bytes(key) for key in keys)
        self._group = group
        self._records: Iterator[Any] = iter(())
        self._given: dict[TopicPartition, int] = {}
        self._commit_due_s = 0.0
        options = {
            "isolation_level": "read_committed",
            "group_id": group,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest" if from_beginning else "latest",
            "max_poll_records": 5_000,
            "max_partition_fetch_bytes": 4 * 1024 * 1024,
            **client_options,
        }
        self._consumer = connect(KafkaConsumer, bootstrap_servers, timeout_s=timeout_s, **options)
        try:
            with self._broker_errors():
                # This asks for all topics, so the broker does not create a missing one.
                partitions = self._consumer.partitions_for_topic(topic)
                if not partitions:
                    # A topic that we may not see looks missing; asked for by name, it is refused.
                    describe_topics(
                        bootstrap_servers,
                        [topic],
                        timeout_s=timeout_s,
                        **admin_options(client_options),
                    )
                    raise missing_topic(topic, bootstrap_servers)
                if self._group is not None:
                    self._join(timeout_s)
                else:
                    self._assign(sorted(partitions), from_beginning, timeout_s)
        except BaseException:
            self._consumer.close(autocommit=False)
            raise

    def __iter__(self) -> Iterator[T]:
        """Iterate over records without end, as they arrive."""
        return self.iterate()

    def iterate(self, *, idle_timeout_s: float = math.inf) -> Iterator[T]:
        """Iterate over records as they arrive.

        Args:
            idle_timeout_s: Stop if no record arrives for so many seconds.

        Raises:
            BrokerError: If the broker refuses; an unreachable broker is waited for.
            DecodeError: If a record does not come from a worker; a new iteration continues after
                it.
        """
        while (record := self._next(time.monotonic() + idle_timeout_s)) is not None:
            yield self._read(record)

    def read(self, timeout_s: float, max_count: int | None = None) -> list[T]:
        """Read the records that arrive within a time limit.

        Args:
            timeout_s: Time limit, in seconds.
            max_count: Return as soon as this many have arrived; None to use all of the time.

        Returns:
            records: Fewer than `max_count` if the time limit was reached.

        Raises:
            BrokerError: If the broker refuses; an unreachable broker is waited for.
            DecodeError: If a record does not come from a worker; the next call continues after it.
        """
        deadline_s = time.monotonic() + timeout_s
        records: list[T] = []
        while max_count is None or len(records) < max_count:
            record = self._next(deadline_s)
            if record is None:
                break
            records.append(self._read(record))
        return records

    def close(self) -> None:
        """Disconnect; a group's positions are committed first. A second call does nothing."""
        self._commit()
        self._consumer.close(autocommit=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, without a commit if the block failed: the group then reads the records again."""
        if error is not None:
            self._given.clear()
        self.close()

    @abstractmethod
    def _parse(self, record: Any) -> T:
        """Convert a record of kafka-python to what the reader returns."""

    def _read(self, record: Any) -> T:
        try:
            return self._parse(record)
        except DecodeError as error:
            place = f"{record.topic}/{record.partition}/{record.offset}"
            raise DecodeError(error.reason, f"record {place}: {error.detail}") from error

    def _next(self, deadline_s: float) -> Any | None:
        """Return the next record with a wanted key; None if none arrives in time."""
        is_over = False
        while True:
            for record in self._records:
                if self._group is not None:
                    partition = TopicPartition(record.topic, record.partition)
                    self._given[partition] = record.offset + 1
                if self._keys is None or record.key in self._keys:
                    return record
            if is_over:
                return None
            left_s = deadline_s - time.monotonic()
            is_over = left_s <= 0  # One more poll: records that have already arrived count.
            self._poll(max(0.0, min(left_s, POLL_TIMEOUT_S)))

    def _poll(self, timeout_s: float) -> None:
        """Fetch the next records; call it only when `_records` is exhausted."""
        if self._given and time.monotonic() >= self._commit_due_s:
            self._commit()
        with self._broker_errors():
            polled = self._consumer.poll(timeout_ms=timeout_s * 1000)
        self._records = itertools.chain.from_iterable(polled.values())

    def _assign(self, partitions: Sequence[int], from_beginning: bool, timeout_s: float) -> None:
        """Assign all partitions and fix the start."""
        assigned = [TopicPartition(self.topic, index) for index in partitions]
        self._consumer.assign(assigned)
        look_up = self._consumer.beginning_offsets if from_beginning else self._consumer.end_offsets
        for partition, offset in look_up(assigned, timeout_ms=timeout_s * 1000).items():
            self._consumer.seek(partition, offset)

    def _join(self, timeout_s: float) -> None:
        """Join the group and fix the start; the group may have no partition left for us."""
        self._consumer.subscribe([self.topic])
        deadline_s = time.monotonic() + timeout_s
        polled: dict[Any, list[Any]] = {}
        while not polled and not self._consumer.assignment() and time.monotonic() < deadline_s:
            polled = self._consumer.poll(timeout_ms=100)
        self._records = itertools.chain.from_iterable(polled.values())
        for partition in self._consumer.assignment():
            self._consumer.position(partition, timeout_ms=timeout_s * 1000)

    def _commit(self) -> None:
        """Commit what was returned, unless the group has reassigned the partitions meanwhile."""
        self._commit_due_s = time.monotonic() + COMMIT_INTERVAL_S
        ours = self._consumer.assignment() if self._given else ()
        offsets = {
            partition: OffsetAndMetadata(offset, "", -1)
            for partition, offset in self._given.items()
            if partition in ours
        }
        self._given.clear()
        if offsets:
            with self._broker_errors(), contextlib.suppress(*_REBALANCED):
                self._consumer.commit(offsets)

    def _broker_errors(self) -> contextlib.AbstractContextManager[None]:
        as_group = f" as group {self._group!r}" if self._group is not None else ""
        return broker_errors(f"reading topic {self.topic!r}{as_group}")
