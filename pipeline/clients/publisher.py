"""Publish events, and check the delivery of each one: single ones with kafka-python."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from kafka import KafkaProducer
from kafka.errors import KafkaError

from livestep.pipeline.clients.event_encoding import encode_float32, encode_json, mark_headers
from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.connection import CONNECT_TIMEOUT_S, cause, connect, missing_topic
from livestep.pipeline.kafka.topic_setup import admin_options, describe_topics
from livestep.pipeline.records import key_bytes

#: Events and bytes that may await acknowledgement before `publish` blocks: enough for full batches
#: to several partitions, and little compared with the process.
PENDING_EVENTS_MAX = 20_000
PENDING_BYTES_MAX = 32 * 1024 * 1024

#: Time limit for one event, including retries.
DELIVERY_TIMEOUT_S = 30.0


class EventPublisher:
    """Publish events, and make sure that they arrive.

    For many events at once, such as a backfill, use `publish_many`.

    Sending is asynchronous, idempotent and in order for each key. If an event can't be delivered,
    the next `publish`, `flush`, or the end of the `with` block raises an error. Order can't be kept
    after a gap, so all later calls raise the same error. All events of a key go to one partition,
    the one that Kafka's Java clients choose (murmur2). Not thread-safe.

    Args:
        bootstrap_servers: host:port[,host:port...].
        topic: Topic to publish to; must exist.
        codec: As in the model's `model.json`: "json", or "float32" for raw little-endian numbers.
        timeout_s: Time limit for finding a broker, in seconds.
        client_options: Options of kafka-python's KafkaProducer, by its own names.

    Raises:
        BrokerError: If no broker responds.
        MissingTopicError: If the topic does not exist.
        ConfigError: If a client option is unknown.

    Example:
        >>> with EventPublisher("127.0.0.1:9092", "events") as publisher:  # doctest: +SKIP
        ...     publisher.publish("flat-7", {"weather": "sunny"})
        ...     publisher.publish("flat-7", {"weather": "rainy"}, end=True)
        ...     publisher.forget("flat-8")
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        *,
        codec: Literal["json", "float32"] = "json",
        timeout_s: float = CONNECT_TIMEOUT_S,
        **client_options: Any,
    ) -> None:
        self.topic = topic
        self._bootstrap_servers = bootstrap_servers
        self._client_options = client_options
        self._encode = encode_json if codec == "json" else encode_float32
        self._pending: deque[tuple[Any, bytes, int]] = deque()  # future, key, bytes
        self._pending_bytes = 0
        self._failure: BrokerError | None = None
        self._is_closed = False
        # kafka-python 3.0 lets a producer create a missing topic, even if that is turned off.
        for_admin = admin_options(client_options)
        if not describe_topics(bootstrap_servers, [topic], timeout_s=timeout_s, **for_admin):
            raise missing_topic(topic, bootstrap_servers)
        options = {
            "acks": "all",
            "linger_ms": 5,
            "batch_size": 128 * 1024,
            "request_timeout_ms": 10_000,
            "delivery_timeout_ms": int(DELIVERY_TIMEOUT_S * 1000),
            "max_block_ms": int(timeout_s * 1000),
            **client_options,
        }
        self._producer = connect(KafkaProducer, bootstrap_servers, timeout_s=timeout_s, **options)

    def publish(
        self,
        key: str | bytes,
        event: Mapping[str, Any] | Sequence[float | None] | None,
        *,
        timestamp_ms: int | None = None,
        start: bool = False,
        end: bool = False,
        steps_max: int | None = None,
    ) -> None:
        """Send one event. Blocks only if too many events await acknowledgement.

        Marks of the sequence are sent as headers, so they work with any codec.

        Args:
            key: Key of the event; text is sent as UTF-8.
            event: One member for each input of the model, or plain numbers: the vector itself
                (float32; None for numbers that the feedback fills in), or the member `x` (json).
                None sends marks only, which are not stepped.
            timestamp_ms: Event time in milliseconds since 1970 UTC; now if None.
            start: The key's sequence starts here; an open sequence is dropped without an answer.
            end: The key's sequence ends here.
            steps_max: Limit of generated steps, for a model that generates.

        Raises:
            ValueError: If a number is NaN or infinite, `steps_max` is less than 1, or both event
                and marks are missing; nothing was sent.
            TypeError: If key or event can't be encoded; nothing was sent.
            BrokerError: If an earlier event was not delivered; this one was not sent.
        """
        self._settle(wait_for_room=True)
        headers = mark_headers(start=start, end=end, steps_max=steps_max)
        if event is None and not (start or end):
            raise ValueError(
                "event is None without start or end: use `forget` to send a null value"
            )
        value = b"" if event is None else self._encode(event)
        self._send(key_bytes(key), value, timestamp_ms, headers)

    def publish_many(
        self,
        events: Iterable[
            tuple[str | bytes, Mapping[str, Any] | Sequence[float | None]]
            | tuple[str | bytes, Mapping[str, Any] | Sequence[float | None], int]
        ],
    ) -> int:
        """Send any number of events, and wait until the broker has acknowledged all of them.

        Much faster than `publish`, for backfills: librdkafka sends them. Memory is bounded; events
        are read as they are sent. For each key, they follow the events that were published before.

        Args:
            events: (key, event) or (key, event, timestamp_ms), each as for `publish`. Marks are
                members of a JSON event.

        Returns:
            count: How many events were delivered.

        Raises:
            ValueError: If a number is NaN or infinite; the events before it were delivered.
            TypeError: If a key or event can't be encoded; the events before it were delivered.
            BrokerError: If an event was not delivered: has its number and key, and how many were.
            ConfigError: If a client option of this publisher has no counterpart in librdkafka.

        Example:
            >>> with EventPublisher("127.0.0.1:9092", "events") as publisher:  # doctest: +SKIP
            ...     publisher.publish_many(("flat-7", {"degree": n}) for n in range(1_000_000))
            1000000
        """
        # Only bulk publishing needs librdkafka, which takes time to load.
        from livestep.pipeline.clients.bulk import records_of, send_in_bulk

        self.flush()
        encoded = (
            (key_bytes(key), self._encode(event), timestamp[0] if timestamp else None)
            for key, event, *timestamp in events
        )
        try:
            return send_in_bulk(
                self._bootstrap_servers, self.topic, records_of(encoded), self._client_options
            )
        except BrokerError as error:
            self._failure = error
            raise

    def forget(self, key: str | bytes, *, timestamp_ms: int | None = None) -> None:
        """Send a null value: the worker forgets the key, which starts over with its next event.

        There is no prediction, even if a sequence is open. On a compacted topic the broker deletes
        the key's events, too.

        Args:
            key: Key to forget; text is sent as UTF-8.
            timestamp_ms: Event time in milliseconds since 1970 UTC; now if None.

        Raises:
            TypeError: If the key can't be encoded; nothing was sent.
            BrokerError: If an earlier event was not delivered; this one was not sent.
        """
        self._settle(wait_for_room=True)
        self._send(key_bytes(key), None, timestamp_ms, [])

    def _send(
        self,
        key: bytes,
        value: bytes | None,
        timestamp_ms: int | None,
        headers: list[tuple[str, bytes]],
    ) -> None:
        try:
            future = self._producer.send(
                self.topic, value, key=key, timestamp_ms=timestamp_ms, headers=headers
            )
        except KafkaError as error:
            raise self._not_delivered(key, error) from error
        size = len(key) + len(value or b"")
        self._pending.append((future, key, size))
        self._pending_bytes += size

    @property
    def pending_count(self) -> int:
        """How many events were not acknowledged when last checked."""
        return len(self._pending)

    def flush(self, timeout_s: float = DELIVERY_TIMEOUT_S) -> None:
        """Wait until the broker has acknowledged all published events.

        Args:
            timeout_s: Time limit, in seconds.

        Raises:
            BrokerError: If an event was not delivered in time; names topic and key. Events in
                flight may still arrive later.
        """
        self._settle()
        try:
            self._producer.flush(timeout_s)
        except KafkaError as error:
            self._settle()
            if self._pending:
                raise self._not_delivered(self._pending[0][1], error) from error
        self._settle()

    def close(self, timeout_s: float = DELIVERY_TIMEOUT_S) -> None:
        """Flush, then disconnect; a second call does nothing.

        Raises:
            BrokerError: As `flush`, unless it was already raised.
        """
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._failure is None:
                self.flush(timeout_s)
        finally:
            # Undelivered events have raised an error: there is nothing left to wait for.
            with contextlib.suppress(KafkaError):
                self._producer.close(timeout=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close. An error in the block is never hidden by one from closing."""
        try:
            self.close()
        except BrokerError:
            if error is None:
                raise

    def _settle(self, wait_for_room: bool = False) -> None:
        """Drop acknowledged events, and raise the first failure.

        Args:
            wait_for_room: Wait for the oldest events while too many are pending.
        """
        if self._failure is not None:
            raise self._failure
        pending = self._pending
        while pending:
            future, key, size = pending[0]
            if not future.is_done:
                if not wait_for_room or not self._is_full():
                    return
                self._await(future)
                continue
            pending.popleft()
            self._pending_bytes -= size
            if future.failed():
                raise self._not_delivered(*self._refused(key, future.exception))

    def _refused(self, key: bytes, error: BaseException) -> tuple[bytes, BaseException]:
        """Find the refused record, given the first record of its batch.

        A broker refuses a whole batch; the other records in it fail with an unspecific error.
        """
        if type(error) is KafkaError:
            for future, other_key, _ in self._pending:
                if future.failed() and type(future.exception) is not KafkaError:
                    return other_key, future.exception
        return key, error

    def _is_full(self) -> bool:
        return len(self._pending) >= PENDING_EVENTS_MAX or self._pending_bytes >= PENDING_BYTES_MAX

    def _await(self, future: Any) -> None:
        """Wait for one result, good or bad; the caller checks which."""
        try:
            # The client reports a timeout itself; the factor 2 is for a client that hangs.
            future.get(timeout=2 * DELIVERY_TIMEOUT_S)
        except KafkaError as error:
            if not future.is_done:
                raise self._not_delivered(self._pending[0][1], error) from error

    def _not_delivered(self, key: bytes, error: BaseException) -> BrokerError:
        """Create the error, and keep it: all later calls raise it."""
        name = key.decode("utf-8", "backslashreplace")
        self._failure = BrokerError(
            f"an event of key {name!r} was not delivered to topic {self.topic!r}: {cause(error)}"
        )
        return self._failure
