# ruff: noqa: SLF001 - the binding gives librdkafka's own codes an underscore
"""Send records, and track the result of each one.

librdkafka sends idempotently, in order, and with its gapless guarantee: in a partition, nothing is
delivered after an undelivered record. So the delivered records of a partition are always the first
ones that were sent to it.
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

#: Records and bytes that may await acknowledgement: enough for full batches to several partitions,
#: and little compared with the process.
PENDING_RECORDS_MAX = 20_000
PENDING_BYTES_MAX = 32 * 1024 * 1024

#: How long the broker may be silent while records await acknowledgement, in seconds.
SILENCE_S_MAX = 30.0

#: A refused batch is split into this many parts: each refusal needs a new producer, which takes
#: longer than a few more parts.
_PARTS = 16

#: Seconds between two checks whether a wait should end.
_LOOK_S = 0.1

#: Largest batch: what a consumer fetches at once.
_BATCH_BYTES_MAX = 1_000_000

#: Codes of librdkafka for records that were not refused themselves.
_NOT_ITSELF = frozenset(
    {
        KafkaError._PURGE_QUEUE,
        KafkaError._FATAL,
        KafkaError._INVALID_DIFFERENT_RECORD,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
    }
)

#: The record was sent, and no response will arrive.
_UNKNOWN = frozenset(
    {
        KafkaError._PURGE_INFLIGHT,
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._MSG_TIMED_OUT,
    }
)

#: Refusals because of the record itself; others would affect any record.
_OF_THE_RECORD = frozenset(
    {KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD, KafkaError.MSG_SIZE_TOO_LARGE}
)

#: Its messages are also raised as errors of calls and records.
_silent = logging.getLogger("livestep.publish.librdkafka")
_silent.setLevel(logging.CRITICAL + 1)


class DeliveryFailedError(Exception):
    """Raised if a record was not delivered: send nothing else before `recover`."""


class SilenceError(Exception):
    """Raised if the broker does not respond: send nothing else."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the broker refused a record.

    Attributes:
        record: The record.
        reason: The broker's message.
        is_of_the_record: Whether the broker could accept another record.
    """

    record: EventRecord
    reason: str
    is_of_the_record: bool


class RecordSender:
    """Send records to one topic.

    Args:
        options: Options of librdkafka, such as addresses and credentials.
        topic: Topic to send to.
        batch_bytes_max: The topic's limit for a batch; None if unknown.
        is_hurried: Returns whether waiting should end now.

    Attributes:
        delivered_count: How many records the broker has acknowledged.
        delivered_number_max: The largest row number among these; 0 for none.

    Raises:
        ConfigError: If an option is unknown.
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
        self._pending: dict[int, EventRecord] = {}  # sent, not acknowledged
        self._pending_bytes = 0
        self._errors: dict[int, KafkaError] = {}
        self._unanswered: set[int] = set()
        self._flying_count = 0  # sent to the producer, result unknown
        self._problem: KafkaError | None = None
        self._options = {
            "linger.ms": 5,
            "batch.num.messages": PENDING_RECORDS_MAX,
            # For a single record; a batch of several is limited by `batch.size`.
            "message.max.bytes": max(batch_bytes_max or 0, 10 << 20),
            **options,
            "batch.size": min(batch_bytes_max or _BATCH_BYTES_MAX, _BATCH_BYTES_MAX),
            "acks": "all",
            "enable.idempotence": True,
            "enable.gapless.guarantee": True,
            # With more, librdkafka silently keeps a batch after a refused one forever.
            "max.in.flight.requests.per.connection": 1,
            "partitioner": "murmur2_random",
            # Records that expire one by one would leave gaps: `_wait` gives up all at once.
            "message.timeout.ms": 0,
            "queue.buffering.max.messages": 2 * PENDING_RECORDS_MAX,
            "error_cb": self._noted,
        }
        self._producer = self._connect()

    @property
    def undelivered(self) -> list[EventRecord]:
        """Records that were sent and not acknowledged, in order."""
        return [self._pending[number] for number in sorted(self._pending)]

    @property
    def unanswered(self) -> list[EventRecord]:
        """Those of `undelivered` that may be in the topic: the broker has not responded."""
        return [record for record in self.undelivered if record.number in self._unanswered]

    def send(self, record: EventRecord) -> None:
        """Send a record; wait while too many await acknowledgement.

        Raises:
            DeliveryFailedError: If this or an earlier record can't be delivered.
            SilenceError: If the broker does not respond.
        """
        self._hand_over(record)
        self._wait(lambda: not self._is_full())

    def flush(self, silence_s_max: float = SILENCE_S_MAX) -> None:
        """Wait until all records are acknowledged.

        Raises:
            DeliveryFailedError: If one can't be delivered.
            SilenceError: If the broker does not respond for so long.
        """
        if self._unanswered:
            raise SilenceError("Kafka does not respond")
        self._wait(lambda: not self._flying_count, silence_s_max)

    def recover(self) -> Refusal | None:
        """Send undelivered records again, in smaller and smaller parts.

        A broker refuses whole batches; this finds the refused record. The records before it are
        then delivered; those after it in its partition are not.

        Returns:
            refusal: For the first refused record; None if all were delivered.

        Raises:
            SilenceError: If the broker does not respond.
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
        """Drop a refused record; `recover` continues with those after it."""
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
        """Wait for records in flight after a failure, when nothing else leaves the queue."""
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
        """Cancel what can be canceled; the rest may have arrived."""
        self._producer.purge()
        while self._flying_count:
            self._poll(_LOOK_S)
        self._unanswered = set(self._pending)
        why = "" if self._problem is None else f": {text_of(self._problem)}"
        raise SilenceError(f"Kafka does not respond{why}")

    def _poll(self, timeout_s: float) -> None:
        try:
            self._producer.poll(timeout_s)
        except KafkaException as error:
            # Fatal for the producer: every waiting record fails, too.
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
