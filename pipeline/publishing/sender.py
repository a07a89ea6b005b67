# ruff: noqa: SLF001 - the binding gives librdkafka's own codes an underscore
"""Sending records and knowing of each one what became of it.

librdkafka sends: idempotent, in order, and with its gapless guarantee, so that nothing of a
partition is delivered behind a record that was not. What is delivered of a partition is therefore
always the first part of what was handed over for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from livestep.pipeline.errors import ConfigError
from livestep.pipeline.kafka.error_codes import text_of
from livestep.pipeline.publishing.columns import EventRecord

#: Records and bytes that may wait for the broker's answer: enough for full batches to some
#: partitions, little beside the process.
PENDING_RECORDS_MAX = 20_000
PENDING_BYTES_MAX = 32 * 1024 * 1024

#: How long the broker may be silent while records wait for its answer.
SILENCE_S_MAX = 30.0

#: Into how many parts a refused batch is divided: a refusal needs a new producer, which takes
#: longer than some more parts.
_PARTS = 16

#: How often a wait looks whether it should end.
_LOOK_S = 0.1

#: A batch at most: what the fetch of a consumer takes in one piece.
_BATCH_BYTES_MAX = 1_000_000

#: What librdkafka says of records that were not refused themselves.
_NOT_ITSELF = frozenset(
    {
        KafkaError._PURGE_QUEUE,
        KafkaError._FATAL,
        KafkaError._INVALID_DIFFERENT_RECORD,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
    }
)

#: The record was sent, and no answer can come any more.
_UNKNOWN = frozenset(
    {
        KafkaError._PURGE_INFLIGHT,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._MSG_TIMED_OUT,
    }
)

#: Refusals that are the record's own; others would meet any record.
_OF_THE_RECORD = frozenset(
    {KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD, KafkaError.MSG_SIZE_TOO_LARGE}
)

#: Its messages come to us as errors of calls and of records.
_silent = logging.getLogger("livestep.publish.librdkafka")
_silent.setLevel(logging.CRITICAL + 1)


class DeliveryFailedError(Exception):
    """Raised if a record was not delivered: nothing more may be sent before `recover`."""


class SilenceError(Exception):
    """Raised if the broker does not answer: nothing more may be sent."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the broker said of a record.

    Attributes:
        record: The record.
        reason: What the broker said.
        is_of_the_record: Whether another record could have been taken.
    """

    record: EventRecord
    reason: str
    is_of_the_record: bool


class RecordSender:
    """Send records to one topic.

    Args:
        options: librdkafka's, such as the address and how to log in.
        topic: Where to.
        batch_bytes_max: The topic's limit for a batch; None if it isn't known.
        is_hurried: Whether waiting for answers should end now.

    Attributes:
        delivered_count: Records that the broker has acknowledged.
        delivered_number_max: The largest number of one of these; 0 if there is none.

    Raises:
        ConfigError: If there is no such option.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        topic: str,
        batch_bytes_max: int | None = None,
        is_hurried: Callable[[], bool] = lambda: False,
    ) -> None:
        self.delivered_count = 0
        self.delivered_number_max = 0
        self._topic = topic
        self._is_hurried = is_hurried
        self._pending: dict[int, EventRecord] = {}  # handed over, not acknowledged
        self._pending_bytes = 0
        self._errors: dict[int, KafkaError] = {}
        self._unanswered: set[int] = set()
        self._flying_count = 0  # handed over to the producer, and no word of what became of them
        self._problem: KafkaError | None = None
        self._options = {
            "linger.ms": 5,
            "batch.num.messages": PENDING_RECORDS_MAX,
            # For a single record; a batch of several stays within `batch.size`.
            "message.max.bytes": max(batch_bytes_max or 0, 10 << 20),
            **options,
            "batch.size": min(batch_bytes_max or _BATCH_BYTES_MAX, _BATCH_BYTES_MAX),
            "acks": "all",
            "enable.idempotence": True,
            "enable.gapless.guarantee": True,
            # With more, librdkafka keeps a batch behind a refused one for ever, without a word.
            "max.in.flight.requests.per.connection": 1,
            "partitioner": "murmur2_random",
            # Records that expire one by one would leave gaps: `_wait` gives up all of them at once.
            "message.timeout.ms": 0,
            "queue.buffering.max.messages": 2 * PENDING_RECORDS_MAX,
            "error_cb": self._noted,
        }
        self._producer = self._connect()

    @property
    def undelivered(self) -> list[EventRecord]:
        """Records that were handed over and not acknowledged, in order."""
        return [self._pending[number] for number in sorted(self._pending)]

    @property
    def unanswered(self) -> list[EventRecord]:
        """Those of `undelivered` that may be in the topic: the broker has not answered."""
        return [record for record in self.undelivered if record.number in self._unanswered]

    def send(self, record: EventRecord) -> None:
        """Hand a record over; wait while too many wait for an answer.

        Raises:
            DeliveryFailedError: If this or an earlier record can't be delivered.
            SilenceError: If the broker doesn't answer.
        """
        self._hand_over(record)
        self._wait(lambda: not self._is_full())

    def flush(self, silence_s_max: float = SILENCE_S_MAX) -> None:
        """Wait until all records are acknowledged.

        Raises:
            DeliveryFailedError: If one can't be delivered.
            SilenceError: If the broker doesn't answer for so long.
        """
        if self._unanswered:
            raise SilenceError("Kafka does not answer")
        self._wait(lambda: not self._flying_count, silence_s_max)

    def recover(self) -> Refusal | None:
        """Send what was not delivered once more, in ever smaller parts.

        A broker refuses whole batches; this finds the record that it refuses. Records before that
        one are delivered then, and those of its partition behind it are not.

        Returns:
            refusal: Of the first record that was refused; None if all were delivered.

        Raises:
            SilenceError: If the broker doesn't answer.
        """
        self._drain()
        self._producer = self._connect()
        part_count = len(self._pending)
        while self._pending:
            part = self.undelivered[:part_count]
            try:
                for record in part:
                    self._hand_over(record)
                self.flush()
            except DeliveryFailedError:
                self._drain()
                if len(part) == 1:
                    return self._refusal(part[0])
                left_count = sum(record.number in self._pending for record in part)
                part_count = max(left_count // _PARTS, 1)
                self._producer = self._connect()
        return None

    def leave_out(self, record: EventRecord) -> None:
        """Give up a record that was refused; `recover` goes on with those behind it."""
        self._forget(record.number)

    def _refusal(self, record: EventRecord) -> Refusal:
        error = self._errors[record.number]
        if error.code() in _NOT_ITSELF:  # the producer itself has failed
            return Refusal(record, text_of(self._problem or error), False)
        return Refusal(record, text_of(error), error.code() in _OF_THE_RECORD)

    def _hand_over(self, record: EventRecord) -> None:
        number = record.number
        if number not in self._pending:
            self._pending[number] = record
            self._pending_bytes += _bytes_of(record)
        try:
            self._producer.produce(
                self._topic,
                record.value,
                record.key,
                timestamp=record.timestamp_ms or 0,
                headers=[*record.headers] or None,
                on_delivery=partial(self._answered, number),
            )
            self._flying_count += 1
        except KafkaException as error:
            self._errors[number] = error.args[0]
        self._poll(0)
        if self._errors:
            raise DeliveryFailedError

    def _wait(self, is_over: Callable[[], bool], silence_s_max: float = SILENCE_S_MAX) -> None:
        count, heard_s = -1, 0.0
        while not is_over() or self._errors:
            if self._errors:
                raise DeliveryFailedError
            if count != self.delivered_count:
                count, heard_s = self.delivered_count, time.monotonic()
            elif self._is_hurried() or time.monotonic() - heard_s > silence_s_max:
                self._give_up()
            self._poll(_LOOK_S)

    def _drain(self) -> None:
        """Wait for what is in flight, after a failure: nothing new leaves the queue then."""
        deadline_s = time.monotonic() + SILENCE_S_MAX
        self._producer.purge(in_queue=True, in_flight=False)
        while self._flying_count:
            if self._is_hurried() or time.monotonic() > deadline_s:
                self._give_up()
            self._poll(_LOOK_S)
        if lost := {n for n, error in self._errors.items() if error.code() in _UNKNOWN}:
            self._unanswered |= lost
            raise SilenceError("the connection was lost")

    def _give_up(self) -> NoReturn:
        """Take back what can be taken back; the rest may have arrived."""
        self._producer.purge()
        while self._flying_count:
            self._poll(_LOOK_S)
        self._unanswered = set(self._pending)
        why = "" if self._problem is None else f": {text_of(self._problem)}"
        raise SilenceError(f"Kafka does not answer{why}")

    def _poll(self, timeout_s: float) -> None:
        try:
            self._producer.poll(timeout_s)
        except KafkaException as error:
            # Fatal for the producer: each record that waits is told as well.
            self._problem = error.args[0]

    def _answered(self, number: int, error: KafkaError | None, message: Message) -> None:
        self._flying_count -= 1
        if error is not None:
            self._errors[number] = error
            return
        self._forget(number)
        self.delivered_count += 1
        self.delivered_number_max = max(self.delivered_number_max, number)

    def _noted(self, error: KafkaError) -> None:
        self._problem = error

    def _forget(self, number: int) -> None:
        self._pending_bytes -= _bytes_of(self._pending.pop(number))
        self._errors.pop(number, None)

    def _is_full(self) -> bool:
        return len(self._pending) >= PENDING_RECORDS_MAX or self._pending_bytes >= PENDING_BYTES_MAX

    def _connect(self) -> Producer:
        self._errors.clear()
        try:
            return Producer(self._options, logger=_silent)
        except KafkaException as error:
            raise ConfigError(f"Kafka option: {error.args[0].str()}") from error


def _bytes_of(record: EventRecord) -> int:
    return len(record.key) + len(record.value or b"")
