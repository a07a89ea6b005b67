# ruff: noqa: SLF001 - the binding gives librdkafka's own codes an underscore
"""Send records in bulk, and know exactly which of them the broker has acknowledged.

librdkafka sends idempotently, in order, and with its gapless guarantee: in a partition, nothing is
delivered after an undelivered record. So the delivered records of a partition are always the first
ones that were sent to it.

Only failures are reported record by record, since a report costs as much as sending. librdkafka
counts the records without a result; once there are none, all that have not failed are delivered.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.errors import ConfigError
from livestep.pipeline.kafka.error_codes import text_of

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


@dataclass(frozen=True, slots=True)
class _Failure:
    record: EventRecord
    error: KafkaError


class RecordSender:
    """Send records to one topic.

    Args:
        options: Options of librdkafka, such as addresses and credentials.
        topic: Topic to send to.
        batch_bytes_max: The topic's limit for a batch; None if unknown.
        is_hurried: Returns whether waiting should end now.

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
        self._topic = topic
        self._is_hurried = is_hurried
        self._settled_count = 0  # delivered by earlier producers
        self._settled_number_max = 0
        self._is_idle = True  # nothing is in flight
        self._handed_count = 0  # handed over to this producer
        self._handed_number_max = 0
        self._failures: dict[int, _Failure] = {}  # by the place among those handed over
        self._waiting: list[EventRecord] = []  # neither delivered nor handed over, in order
        self._errors: dict[int, KafkaError] = {}  # of earlier producers, by row number
        self._unanswered: set[int] = set()
        self._problem: KafkaError | None = None
        self._options = _options(options, batch_bytes_max, self._noted)
        self._producer = self._connect()

    @property
    def delivered_count(self) -> int:
        """How many records the broker has acknowledged; exact once nothing is in flight."""
        return self._settled_count + self._handed_count - len(self._failures) - self._flying_count()

    @property
    def delivered_number_max(self) -> int:
        """The largest row number that may be delivered; no undelivered record has it; 0 for none.

        Exact, except that it may be the number of a row without a record.
        """
        number, place = self._handed_number_max, self._handed_count - 1
        while place in self._failures:
            number = self._failures[place].record.number - 1
            place -= 1
        return max(self._settled_number_max, number if place >= 0 else 0)

    @property
    def undelivered(self) -> list[EventRecord]:
        """Records that have failed or were not sent, in order."""
        failed = [failure.record for failure in self._failures.values()]
        return sorted([*failed, *self._waiting], key=_number_of)

    @property
    def unanswered(self) -> list[EventRecord]:
        """Those of `undelivered` that may be in the topic: the broker has not responded."""
        return [record for record in self.undelivered if record.number in self._unanswered]

    def send(self, records: Sequence[EventRecord]) -> None:
        """Send records; wait while too many await acknowledgement.

        Args:
            records: In the order of their numbers, after those of earlier calls.

        Raises:
            DeliveryFailedError: If one of these or an earlier record can't be delivered.
            SilenceError: If the broker does not respond.
        """
        produce, failed, topic = self._producer.produce, self._failed, self._topic
        first_place = place = self._handed_count
        self._is_idle = False
        try:
            for record in records:
                on_delivery = partial(failed, place, record)
                while True:
                    try:
                        produce(
                            topic,
                            record.value,
                            record.key,
                            on_delivery=on_delivery,
                            timestamp=record.timestamp_ms or 0,
                            headers=record.headers or None,  # type: ignore[arg-type]
                        )
                        break
                    except BufferError:
                        self._handed_count = place
                        self._wait_for_room()
                place += 1
        except KafkaException as error:
            self._failures[place] = _Failure(record, error.args[0])
            place += 1
        finally:
            self._handed_count = place
            sent_count = place - first_place
            self._waiting += records[sent_count:]
            if sent_count:
                self._handed_number_max = records[sent_count - 1].number
        self._poll(0)
        self._check()

    def flush(self, silence_s_max: float = SILENCE_S_MAX) -> None:
        """Wait until all records are acknowledged.

        Raises:
            DeliveryFailedError: If one can't be delivered.
            SilenceError: If the broker does not respond for so long.
        """
        if self._unanswered:
            raise SilenceError("Kafka does not respond")
        self._wait(lambda: not self._flying_count(), silence_s_max)

    def recover(self) -> Refusal | None:
        """Send undelivered records again, in smaller and smaller parts.

        A broker refuses whole batches; this finds the refused record. The records before it are
        then delivered; those after it in its partition are not.

        Returns:
            refusal: For the first refused record; None if all were delivered.

        Raises:
            SilenceError: If the broker does not respond.
        """
        self._start_over()
        part_count = len(self._waiting)
        while self._waiting:
            part, self._waiting = self._waiting[:part_count], self._waiting[part_count:]
            try:
                self.send(part)
                self.flush()
            except DeliveryFailedError:
                self._start_over()
                if len(part) == 1:
                    return self._refusal(part[0])
                last_number = part[-1].number
                left_count = sum(record.number <= last_number for record in self._waiting)
                part_count = max(left_count // _PARTS, 1)
        return None

    def leave_out(self, record: EventRecord) -> None:
        """Drop a refused record; `recover` continues with those after it."""
        self._waiting = [one for one in self._waiting if one.number != record.number]

    def _refusal(self, record: EventRecord) -> Refusal:
        error = self._errors[record.number]
        if error.code() in _NOT_ITSELF:  # the producer itself has failed
            return Refusal(record, text_of(self._problem or error), False)
        return Refusal(record, text_of(error), error.code() in _OF_THE_RECORD)

    def _check(self) -> None:
        if self._failures:
            raise DeliveryFailedError

    def _flying_count(self) -> int:
        """Return how many records have no result; more while errors of the connection wait."""
        count = 0 if self._is_idle else len(self._producer)
        self._is_idle = not count
        return count

    def _wait_for_room(self) -> None:
        count = self._flying_count()
        self._wait(lambda: self._flying_count() < count)

    def _wait(self, is_over: Callable[[], bool], silence_s_max: float = SILENCE_S_MAX) -> None:
        count, heard_s = self.delivered_count, time.monotonic()
        while not is_over():
            self._check()
            # Errors of the connection wait in the same queue, so only a larger count is progress.
            if self.delivered_count > count:
                count, heard_s = self.delivered_count, time.monotonic()
            elif self._is_hurried() or time.monotonic() - heard_s > silence_s_max:
                self._give_up()
            self._poll(_LOOK_S)
        self._check()

    def _start_over(self) -> None:
        """Wait for the records in flight after a failure, and replace the producer."""
        deadline_s = time.monotonic() + SILENCE_S_MAX
        self._producer.purge(in_queue=True, in_flight=False)
        while self._flying_count():
            if self._is_hurried() or time.monotonic() > deadline_s:
                self._give_up()
            self._poll(_LOOK_S)
        errors = {one.record.number: one.error for one in self._failures.values()}
        if lost := {number for number, error in errors.items() if error.code() in _UNKNOWN}:
            self._unanswered |= lost
            raise SilenceError("the connection was lost")
        self._errors = errors
        self._settled_count = self.delivered_count
        self._settled_number_max = self.delivered_number_max
        self._waiting = self.undelivered
        self._failures.clear()
        self._handed_count = self._handed_number_max = 0
        self._producer = self._connect()

    def _give_up(self) -> NoReturn:
        """Cancel what can be canceled; the rest may have arrived."""
        self._producer.purge()
        while self._flying_count():
            self._poll(_LOOK_S)
        self._unanswered = {record.number for record in self.undelivered}
        why = "" if self._problem is None else f": {text_of(self._problem)}"
        raise SilenceError(f"Kafka does not respond{why}")

    def _poll(self, timeout_s: float) -> None:
        try:
            self._producer.poll(timeout_s)
        except KafkaException as error:
            # Fatal for the producer: every waiting record fails, too.
            self._problem = error.args[0]

    def _failed(self, place: int, record: EventRecord, error: KafkaError, message: Message) -> None:
        self._failures[place] = _Failure(record, error)

    def _noted(self, error: KafkaError) -> None:
        self._problem = error

    def _connect(self) -> Producer:
        try:
            return Producer(self._options, logger=_silent)
        except KafkaException as error:
            raise ConfigError(f"Kafka option: {error.args[0].str()}") from error


def _options(
    options: Mapping[str, Any], batch_bytes_max: int | None, error_cb: Callable[[KafkaError], None]
) -> dict[str, Any]:
    """Return the options of a producer: defaults, then the user's, then those we depend on."""
    defaults = {
        "linger.ms": 5,
        "batch.num.messages": PENDING_RECORDS_MAX,
        # For a single record; a batch of several is limited by `batch.size`.
        "message.max.bytes": max(batch_bytes_max or 0, 10 << 20),
        **options,
    }
    record_bytes_max = int(defaults["message.max.bytes"])
    return {
        **defaults,
        "batch.size": min(batch_bytes_max or _BATCH_BYTES_MAX, _BATCH_BYTES_MAX),
        "acks": "all",
        "enable.idempotence": True,
        "enable.gapless.guarantee": True,
        # With more, librdkafka silently keeps a batch after a refused one forever.
        "max.in.flight.requests.per.connection": 1,
        "partitioner": "murmur2_random",
        # Records that expire one by one would leave gaps: `_wait` gives up all at once.
        "message.timeout.ms": 0,
        "delivery.report.only.error": True,
        "queue.buffering.max.messages": PENDING_RECORDS_MAX,
        # The largest record must fit.
        "queue.buffering.max.kbytes": max(PENDING_BYTES_MAX, 2 * record_bytes_max) >> 10,
        "error_cb": error_cb,
    }


def _number_of(record: EventRecord) -> int:
    return record.number
