"""Publish any number of events through librdkafka, several times as fast as one by one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.clients.record_sender import (
    DeliveryFailedError,
    RecordSender,
    SilenceError,
)
from livestep.pipeline.environment import kafka_options, read_variables
from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.admin import Admin
from livestep.pipeline.kafka.security import librdkafka_options
from livestep.pipeline.records import key_text

#: Events that are encoded and handed over at once.
_BATCH_EVENTS = 1_000


def send_in_bulk(
    bootstrap_servers: str,
    topic: str,
    records: Iterator[EventRecord],
    client_options: Mapping[str, Any],
) -> int:
    """Send records, and wait until all are delivered.

    If reading the records fails, those before are still delivered; a note on the error has their
    number.

    Args:
        bootstrap_servers: host:port[,host:port...].
        topic: Topic to send to; must exist.
        records: In order, numbered from 1; read as they are sent.
        client_options: Options of kafka-python's KafkaProducer.

    Returns:
        count: How many were delivered.

    Raises:
        BrokerError: If a record is not delivered; has the number of those that were.
        ConfigError: If an option has no counterpart in librdkafka.
    """
    variables = kafka_options(read_variables(os.environ))
    options = librdkafka_options(variables, client_options)
    options["bootstrap.servers"] = bootstrap_servers
    settings = Admin(options).allowed_settings(topic)
    sender = RecordSender(options, topic, int(settings["max.message.bytes"]) if settings else None)
    try:
        _send_all(sender, topic, records)
    except SilenceError as error:
        raise _silent(sender, topic, error) from None
    return sender.delivered_count


def _send_all(sender: RecordSender, topic: str, records: Iterator[EventRecord]) -> None:
    batch: list[EventRecord] = []
    try:
        for record in records:
            batch.append(record)
            if len(batch) == _BATCH_EVENTS:
                full, batch = batch, []
                _deliver(sender, topic, full)
    except (BrokerError, SilenceError):
        raise
    except BaseException as error:
        _deliver(sender, topic, batch)
        _deliver(sender, topic)
        error.add_note(f"{sender.delivered_count:,} events were delivered before it")
        raise
    _deliver(sender, topic, batch)
    _deliver(sender, topic)


def _deliver(
    sender: RecordSender, topic: str, records: Sequence[EventRecord] | None = None
) -> None:
    """Send records, or wait for all; after a failure, try again up to a record that is refused."""
    try:
        if records is None:
            sender.flush()
        else:
            sender.send(records)
    except DeliveryFailedError:
        refusal = sender.recover()
        if refusal is None:
            return
        record = refusal.record
        raise BrokerError(
            f"event {record.number:,} (key {key_text(record.key)!r}) was not delivered to topic "
            f"{topic!r}: {refusal.reason}; {sender.delivered_count:,} events were delivered, all "
            "before it and none of its partition after it"
        ) from None


def _silent(sender: RecordSender, topic: str, error: SilenceError) -> BrokerError:
    return BrokerError(
        f"topic {topic!r}: {error}; {sender.delivered_count:,} events were delivered, and "
        f"{len(sender.unanswered):,} more may be in the topic"
    )


def records_of(encoded: Iterable[tuple[bytes, bytes, int | None]]) -> Iterator[EventRecord]:
    """Number encoded events: key, value, and time in milliseconds since 1970 or None."""
    for number, (key, value, timestamp_ms) in enumerate(encoded, start=1):
        yield EventRecord(number, number, key, value, timestamp_ms)
