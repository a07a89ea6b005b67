"""Transactions: commit predictions, dead letters and offsets together, or nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from livestep.pipeline.columns.outgoing_columns import OutgoingColumns
from livestep.pipeline.engine.log import AbortedError
from livestep.pipeline.errors import BrokerError, FencedError
from livestep.pipeline.kafka.error_codes import (
    DELIVERY_FAILED,
    FENCED,
    QUEUE_FULL,
    UNAUTHORIZED,
    text_of,
)
from livestep.pipeline.kafka.native_client import native_handle
from livestep.pipeline.native import native
from livestep.pipeline.process.call_watchdog import CallWatchdog
from livestep.pipeline.process.deadline import Deadline
from livestep.pipeline.types import Outgoing

_log = logging.getLogger("livestep.transport")

#: Seconds for one call of the transaction API, including librdkafka's own retries.
CALL_TIMEOUT_S = 30.0

#: Seconds after which such a call hangs. `send_offsets_to_transaction` may ignore its timeout when
#: the connection to the group's coordinator is lost (librdkafka issue 5456, open as of 2.14).
CALL_HANGS_S = 2 * CALL_TIMEOUT_S

#: Seconds for which a commit with an unknown result is retried.
COMMIT_TIMEOUT_S = 120.0

#: How often to wait for room in a full send queue, and seconds of each wait.
_QUEUE_FULL_TRIES, _QUEUE_FULL_WAIT_S = 600, 0.1


class Transactions:
    """One producer, one transaction at a time.

    Args:
        options: librdkafka options; with `transactional.id` for exactly once.  Without it, for at
            least once, `commit` is a flush followed by the consumer's commit.
        deadline: Deadline of a stop, which limits each call that starts after it.
    """

    def __init__(self, options: dict[str, Any], deadline: Deadline | None = None) -> None:
        self._deadline = deadline or Deadline()
        self._id = options.get("transactional.id")
        #: Whether transactions are used; without them, records are visible immediately.
        self.are_real = self._id is not None
        self._failed: KafkaError | None = None
        self._failed_topic = ""
        self._producer = Producer(
            {**options, "on_delivery": self._on_delivery, "delivery.report.only.error": True},
            logger=_log,
        )
        self._is_open = False
        self._watchdog = CallWatchdog(CALL_HANGS_S)
        # The native loop has no delivery reports: it needs a commit that fails if a delivery has.
        self._handle = native_handle(self._producer) if self.are_real else None
        self._senders: dict[str, Any] = {}
        #: Whether to send with delivery reports, since a delivery has failed for an unknown reason.
        self._is_explaining = False

    def begin(self) -> None:
        """Take over the transactional id: aborts an open transaction of an earlier worker.

        Raises:
            BrokerError: If the broker can't be reached, or doesn't support transactions.
        """
        if self._id is None:
            return
        try:
            with self._watchdog.watch("init_transactions"):
                self._producer.init_transactions(self._deadline.work_s(CALL_TIMEOUT_S))
        except KafkaException as error:
            if error.args[0].code() in UNAUTHORIZED:
                raise self._unauthorized(error.args[0]) from error
            raise BrokerError(
                f"the broker refuses transactions of {self._id!r}: {error.args[0].str()}; a broker "
                "without transactions needs --guarantee at-least-once"
            ) from error

    def send(self, topic: str, records: Iterable[Outgoing]) -> None:
        """Send records in the open transaction; open one if needed.

        Raises:
            AbortedError: If the broker requires an abort; the transaction has been aborted.
            FencedError: If another worker uses this transactional id.
        """
        if not self._is_open:
            self._call(self._open)
        if isinstance(records, OutgoingColumns) and self._handle and not self._is_explaining:
            self._send_columns(topic, records)
            return
        produce = self._producer.produce
        for key, value, partition, timestamp_ms, headers in records:
            waits = 0
            while True:
                try:
                    produce(topic, value, key, partition, None, None, timestamp_ms, headers)
                except BufferError:
                    waits += 1
                    self._wait_for_room(topic, waits)
                    continue
                except KafkaException as error:
                    self._raise(error)
                break

    def _send_columns(self, topic: str, records: OutgoingColumns) -> None:
        """Send records with the native loop."""
        sender = self._senders.get(topic)
        if sender is None:
            assert native is not None
            sender = self._senders[topic] = native.TopicSender(self._handle, topic)
        sent = waits = 0
        while sent < len(records):
            start = sent
            sent, code = sender.send(
                start,
                keys=records.keys,
                values=records.values,
                partitions=records.partitions,
                timestamps_ms=records.timestamps_ms,
                headers=records.headers,
            )
            if code == QUEUE_FULL:
                waits = 1 if sent > start else waits + 1
                self._wait_for_room(topic, waits)
            elif code:
                self._raise(KafkaException(KafkaError(code)))

    def commit(
        self,
        consumer: Any,
        offsets: Sequence[TopicPartition],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Commit the sent records and the offsets.

        Args:
            consumer: Member of the group.
            offsets: Offsets with their metadata.
            check: Called right before the commit itself; if it raises, nothing is committed.

        Raises:
            AbortedError: If nothing was committed.
            FencedError: If another worker has replaced this one.
            BrokerError: If the result remains unknown.
        """
        if not self._is_open:
            self._call(self._open)  # clears an earlier failure, even if there is nothing to send
        if self._id is None:
            check()
            self._commit_at_least_once(consumer, offsets)
            return
        try:
            timeout_s = self._deadline.work_s(CALL_TIMEOUT_S)
            with self._watchdog.watch("send_offsets_to_transaction"):
                self._producer.send_offsets_to_transaction(
                    list(offsets), consumer.consumer_group_metadata(), timeout_s
                )
        except KafkaException as error:
            # Not retried, even if librdkafka allows it: an abort loses nothing, and a second call
            # after a timeout has been seen to hang.
            self._raise(error)
        check()
        # A crash here aborts the transaction; one line later it is committed.
        self._call(lambda: self._producer.commit_transaction(self._deadline.work_s(CALL_TIMEOUT_S)))
        self._is_open = self._is_explaining = False

    def abort(self, reason: str) -> None:
        """Abort the open transaction, if there is one.

        Raises:
            FencedError: If another worker uses this transactional id.
            BrokerError: If the broker can't be reached.
        """
        if self._is_open:
            self._is_open = False
            if self._id is None:
                self._producer.purge()
            else:
                self._abort(reason)

    def close(self) -> None:
        """Abort the open transaction and close the producer."""
        for sender in self._senders.values():
            sender.close()
        self._senders.clear()
        try:
            if self._id is None:
                self._producer.purge()  # closing would send the records of a failed batch
            elif self._is_open:
                # Leaves time to leave the group, too.
                timeout_s = self._deadline.call_s(CALL_TIMEOUT_S)
                self._producer.abort_transaction(self._deadline.leave_s(timeout_s))
            self._producer.close()
        except KafkaException as error:
            # The broker aborts it after a timeout, or another worker has taken over the id.
            _log.warning("could not abort, the broker will: %s", error.args[0].str())
        finally:
            self._watchdog.close()

    def _open(self) -> None:
        self._failed = None
        if self._id is not None:
            self._producer.begin_transaction()
        self._is_open = True

    def _wait_for_room(self, topic: str, waits: int) -> None:
        """Wait a moment for room in the full send queue.

        Args:
            topic: Topic of the record to send.
            waits: Number of waits for this record, including this one.

        Raises:
            BrokerError: If there have been too many waits.
        """
        if waits > _QUEUE_FULL_TRIES:
            raise BrokerError(
                f"records for topic {topic} could not be sent: the send queue remains full"
            )
        self._producer.poll(self._deadline.work_s(_QUEUE_FULL_WAIT_S))

    def _commit_at_least_once(self, consumer: Any, offsets: Sequence[TopicPartition]) -> None:
        waiting = self._producer.flush(self._deadline.work_s(COMMIT_TIMEOUT_S))
        self._is_open = False
        if self._failed is not None and self._failed.code() in UNAUTHORIZED:
            raise self._unauthorized(self._failed)
        if waiting or self._failed is not None:
            reason = self._failed.str() if self._failed else f"{waiting} records not delivered"
            self._producer.purge()
            raise AbortedError(reason)
        try:
            # A crash here repeats the batch's predictions, as at least once allows.
            committed = consumer.commit(offsets=list(offsets), asynchronous=False)
        except KafkaException as error:
            raise AbortedError(error.args[0].str()) from error
        # librdkafka raises only if all partitions have failed.
        for one in committed:
            if one.error is not None:
                raise AbortedError(f"partition {one.partition}: {one.error.str()}")

    def _call(self, call: Any) -> None:
        """Make one call of the transaction API, and retry it while the result is unknown."""
        deadline = time.monotonic() + COMMIT_TIMEOUT_S
        while True:
            try:
                with self._watchdog.watch("a transaction call"):
                    call()
                return
            except KafkaException as error:
                cause = error.args[0]
                is_in_time = self._deadline.work_s(deadline - time.monotonic()) > 0
                if cause.retriable() and is_in_time:
                    _log.warning("retrying a transaction call: %s", cause.str())
                    continue
                self._raise(error)

    def _raise(self, error: KafkaException) -> None:
        """Translate an error; abort the transaction if the error requires it."""
        cause = error.args[0]
        if cause.code() in FENCED:
            raise self._fenced(cause) from error
        for one in (self._failed, cause):
            if one is not None and one.code() in UNAUTHORIZED:
                raise self._unauthorized(one) from error
        if cause.fatal():
            raise BrokerError(f"the broker reports a permanent error: {cause.str()}") from error
        if cause.code() == KafkaError.MSG_SIZE_TOO_LARGE or (
            self._failed is not None and self._failed.code() == KafkaError.MSG_SIZE_TOO_LARGE
        ):
            raise BrokerError(
                "a prediction or dead letter is longer than its topic's max.message.bytes; raise "
                f"that limit ({cause.str()})"
            ) from error
        if not self._is_open and not cause.txn_requires_abort():
            raise BrokerError(f"the broker reports an error: {cause.str()}") from error
        reason = self._failed.str() if self._failed is not None else cause.str()
        # The batch is sent again, and fails again with its reason, unless the cause has gone.
        self._is_explaining = self._failed is None and cause.code() == DELIVERY_FAILED
        self._is_open = False
        if self._id is None:
            self._producer.purge()
            raise AbortedError(reason) from error
        self._abort(reason)
        raise AbortedError(reason) from error

    def _abort(self, reason: str) -> None:
        """Abort the open transaction, and retry while the broker is unavailable."""
        deadline = time.monotonic() + COMMIT_TIMEOUT_S
        while True:
            try:
                with self._watchdog.watch("abort_transaction"):
                    self._producer.abort_transaction(self._deadline.work_s(CALL_TIMEOUT_S))
                return
            except KafkaException as error:
                cause = error.args[0]
                if cause.code() in FENCED:
                    raise self._fenced(cause) from error
                is_in_time = self._deadline.work_s(deadline - time.monotonic()) > 0
                if not cause.retriable() or not is_in_time:
                    raise BrokerError(f"abort failed: {cause.str()}, after: {reason}") from error
                _log.warning("retrying the abort: %s", cause.str())

    def _unauthorized(self, cause: KafkaError) -> BrokerError:
        """Make the error for a missing permission; `close` aborts an open transaction."""
        what = f"writing to topic {self._failed_topic}" if self._failed_topic else "writing"
        return BrokerError(f"{what} as transactional id {self._id!r}: {text_of(cause)}")

    def _fenced(self, cause: KafkaError) -> FencedError:
        return FencedError(
            f"the broker has fenced {self._id!r}: another worker has this worker id, or a "
            "transaction was open for longer than --session-timeout-ms "
            f"({cause.str()}). A restart continues after the last commit"
        )

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        if error is not None and self._failed is None:
            self._failed, self._failed_topic = error, message.topic()
