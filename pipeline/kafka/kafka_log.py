"""The log on Kafka: one consumer in the group, one producer, and a separate reader per replay."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from confluent_kafka import (
    Consumer,
    KafkaException,
    TopicPartition,
)

from livestep.pipeline.columns.log_records import Records
from livestep.pipeline.engine.log import AbortedError, Listener
from livestep.pipeline.errors import BrokerError, ConfigError, FencedError, HistoryMissingError
from livestep.pipeline.kafka.admin import Admin, NoAnswerError
from livestep.pipeline.kafka.client_options import (
    RESERVED,
    client_options,
    consumer_options,
    producer_options,
    replay_options,
)
from livestep.pipeline.kafka.error_codes import (
    END_OF_PARTITION,
    FENCED,
    OUT_OF_RANGE,
    OUT_OF_REACH,
    TOPIC_IS_OTHER,
    text_of,
)
from livestep.pipeline.kafka.offset_reader import REQUEST_TIMEOUT_S, OffsetReader
from livestep.pipeline.kafka.polling import Notice, Polling, open_reader
from livestep.pipeline.kafka.replay import KafkaReplay
from livestep.pipeline.kafka.topic_watch import TopicWatch
from livestep.pipeline.kafka.transaction import Transactions
from livestep.pipeline.process.deadline import Deadline
from livestep.pipeline.settings import Settings
from livestep.pipeline.types import Offset, Outgoing

_log = logging.getLogger("livestep.transport")

#: Part of the session timeout, also a transaction's timeout, that a request within one may take.
_QUESTION_SHARE = 0.8


class KafkaLog:
    """`Log` on librdkafka.

    Args:
        settings: Topics, group, guarantee, options passed through.
        worker_id: Part of the transactional id.
        deadline: Deadline of a stop, which limits requests to the broker.

    Raises:
        ConfigError: If an option is unknown or reserved, or a topic is missing.
        BrokerError: If the broker can't be reached.
    """

    def __init__(
        self, settings: Settings, worker_id: str, deadline: Deadline | None = None
    ) -> None:
        reserved = sorted(RESERVED & settings.kafka_options.keys())
        if reserved:
            raise ConfigError(
                f"Kafka option {reserved[0]} is set by the worker and can't be changed"
            )
        self._settings = settings
        self._deadline = deadline or Deadline()
        self._topic = settings.input_topic
        self._listener: Listener | None = None
        self._failure: Exception | None = None
        self._assigned: set[int] = set()
        self._revoked_in_poll: set[int] = set()
        self._positions: dict[int, Offset] = {}
        self._ended: set[int] = set()
        self._is_end_verified = False
        self._untaken: set[int] = set()
        self._untaken_lag = 0
        # A request may delay an open transaction, so it must be shorter than its timeout.
        session_s = settings.session_timeout_ms / 1000
        self._question_s = min(REQUEST_TIMEOUT_S, _QUESTION_SHARE * session_s)
        transactional_id = None
        if settings.guarantee == "exactly-once":
            transactional_id = f"{settings.group}.{worker_id}"
        try:
            # First, because it checks without log lines that a broker answers and accepts us.
            self._admin = Admin(client_options(settings))
            outputs = [settings.output_topic, settings.dead_letter_topic]
            self._admin.check_topics([self._topic, *outputs])
            self._watch = TopicWatch(
                self._admin,
                self._topic,
                outputs,
                auto_offset_reset=settings.auto_offset_reset,
                timeout_s=self._question_s,
                deadline=self._deadline,
            )
            self._consumer = Consumer(consumer_options(settings), logger=_log)
            producing = producer_options(settings, transactional_id)
            self._transactions = Transactions(producing, self._deadline)
            self._reader = open_reader(self._consumer, self._topic)
            self._offsets = OffsetReader(self._consumer, self._topic, self._deadline)
            self._polling = Polling(self._consumer, self._reader, self._topic, self._positions)
        except KafkaException as error:
            raise ConfigError(f"Kafka option: {error.args[0].str()}") from error
        except NoAnswerError as error:
            raise BrokerError(str(error)) from error
        states = self._watch.states
        self.topic_id, self.partitions = states[self._topic]
        self.partition_counts = {topic: state.partitions for topic, state in states.items()}

    def topic_setting(self, topic: str, name: str) -> str:
        """Return one setting of a topic, such as `cleanup.policy`."""
        return self._admin.setting(topic, name)

    def subscribe(self, listener: Listener) -> None:
        """See `Log.subscribe`."""
        self._listener = listener
        self._transactions.begin()
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._on_assign,
            on_revoke=lambda _, parts: self._on_revoke(parts, is_lost=False),
            on_lost=lambda _, parts: self._on_revoke(parts, is_lost=True),
        )

    def poll(self, records_max: int, timeout_s: float) -> Records:
        """See `Log.poll`; waits for the first record, then adds all that have arrived."""
        self._revoked_in_poll.clear()
        records, notices = self._polling.poll(records_max, timeout_s)
        if self._failure is not None:
            raise self._failure
        if self._ended:
            self._ended -= set(np.unique(records.partitions).tolist())
        for notice in notices:
            self._take_notice(notice)
        if self._revoked_in_poll:
            records = self._without_revoked(records)
        if len(records):
            self._watch.ask()
        self._look_at_topics()
        self._is_end_verified = not len(records) and self._verify_end()
        return records

    def send(self, topic: str, records: Iterable[Outgoing]) -> None:
        """See `Log.send`."""
        if self._watch.is_missing(topic):
            self._watch.check_outputs()
        if not self._transactions.are_real:
            self._verify()  # without a transaction, records are visible immediately
        with self._watch.explaining_sends():
            self._transactions.send(topic, records)

    def commit(self, offsets: Mapping[int, tuple[Offset, str]]) -> None:
        """See `Log.commit`."""
        places = [
            TopicPartition(self._topic, partition, offset, metadata)
            for partition, (offset, metadata) in offsets.items()
        ]
        self._watch.ask_if_unknown()
        with self._watch.explaining_sends():
            # The answer to the request sent by `poll` arrives while the offsets are being sent.
            self._transactions.commit(self._consumer, places, self._verify)
        self._watch.forget()
        self._positions.update({partition: offset for partition, (offset, _) in offsets.items()})

    def rewind(self, positions: Mapping[int, Offset]) -> None:
        """See `Log.rewind`."""
        for partition, offset in positions.items():
            if partition in self._assigned:
                self._ended.discard(partition)
                self._consumer.seek(TopicPartition(self._topic, partition, offset))

    def committed(
        self, partitions: Collection[int] | None = None
    ) -> dict[int, tuple[Offset | None, str]]:
        """See `Log.committed`; with read_committed, the broker waits for open transactions."""
        if partitions is None:
            partitions = range(self.partitions)
        session_s = self._settings.session_timeout_ms / 1000
        return self._offsets.committed(partitions, self._settings.group, session_s)

    def check_topic(self) -> None:
        """See `Log.check_topic`."""
        self._watch.ask()
        try:
            self._note_partitions(self._watch.verify().partitions)
        except NoAnswerError as error:
            raise BrokerError(str(error)) from error

    def bounds(self, partition: int) -> tuple[Offset, Offset]:
        """See `Log.bounds`."""
        return self._offsets.bounds(partition)

    def pause(self, partition: int) -> None:
        """See `Log.pause`."""
        self._consumer.pause([TopicPartition(self._topic, partition)])

    def resume(self, partition: int) -> None:
        """See `Log.resume`."""
        self._consumer.resume([TopicPartition(self._topic, partition)])

    def replay(self, partition: int, start: Offset, end: Offset) -> KafkaReplay:
        """See `Log.replay`."""
        options = replay_options(self._settings)
        return KafkaReplay(
            options, self._topic, partition, start, end, explain=self._explain_reading
        )

    @property
    def is_at_end(self) -> bool:
        """See `Log.is_at_end`; known only in a burst."""
        return self._assigned <= self._ended and self._is_end_verified and not self._untaken

    def lag(self) -> int:
        """See `Log.lag`; may be called from another thread."""
        return self._untaken_lag + self._polling.lag()

    def close(self) -> None:
        """See `Log.close`."""
        self._transactions.close()
        self._reader.close()
        self._consumer.close()

    def _verify(self) -> None:
        """Check before sending that the polled records are from the topic of the start."""
        try:
            now = self._watch.verify()
        except NoAnswerError as error:
            self._transactions.abort(str(error))
            raise AbortedError(str(error)) from error
        self._note_partitions(now.partitions)

    def _look_at_topics(self) -> None:
        """Check the topics if it is time."""
        now = self._watch.look()
        if now is not None:
            self._note_partitions(now.partitions)
            if self._untaken:
                self._look_for_takers()

    def _verify_end(self) -> bool:
        """In a burst that has read everything, check whether there are new partitions."""
        if not self._settings.burst or not self._assigned <= self._ended:
            return False
        self._watch.ask()
        try:
            self._note_partitions(self._watch.verify().partitions)
        except NoAnswerError as error:
            _log.warning("could not check for new partitions, will retry: %s", error)
            return False
        return True

    def _note_partitions(self, count: int) -> None:
        """Record new partitions, which the listener may refuse.

        The number never decreases: a broker that reports fewer doesn't know the new ones yet.
        """
        if count > self.partitions:
            if self._listener is not None:
                self._listener.partitions_changed(count)
            self._untaken |= set(range(self.partitions, count))
            self.partitions = count

    def _look_for_takers(self) -> None:
        """Find new partitions that other workers own: the owner commits an offset at once."""
        committed = self.committed(sorted(self._untaken))
        self._untaken -= {p for p, (offset, _) in committed.items() if offset is not None}
        # `bounds` may fail here: the consumer may not know these partitions yet.
        try:
            ends = self._admin.ends(self._topic, self._untaken, self._question_s)
        except NoAnswerError as error:
            _log.warning("could not read the lag of new partitions, will retry: %s", error)
            return
        self._untaken_lag = sum(ends)

    def _explain_reading(self, notice: Notice) -> None:
        """Raise a clearer error if the topic or its retention causes an error of reading.

        Raises:
            TopicReplacedError: If the topic was deleted or created again.
            StateError: If the log has lost the next record to read.
        """
        code = notice.error.code()
        if code not in TOPIC_IS_OTHER:
            return
        self._watch.ask()
        try:
            self._watch.verify()
        except NoAnswerError as unanswered:
            _log.warning("could not find out why reading fails: %s", unanswered)
            return
        if code == OUT_OF_RANGE:
            start, end = self.bounds(notice.partition)
            raise HistoryMissingError(
                f"{self._topic}/{notice.partition}: the next offset to read is "
                f"{notice.offset}, but the log has {start} to {end}: its retention deletes "
                "records before they are read, or it has lost some. Restart the worker for options"
            )

    def _on_assign(self, _: Any, assigned: Sequence[TopicPartition]) -> None:
        assert self._listener is not None
        partitions = [one.partition for one in assigned]
        try:
            # The group's leader may know new partitions before the broker that we ask.
            self._note_partitions(max([0, *partitions]) + 1)
            starts = self._listener.assigned(partitions)
        except Exception as error:
            # An exception can't propagate through librdkafka, so `poll` raises it.
            self._failure = error
            return
        for partition in starts:
            self._reader.add(partition)
        self._consumer.incremental_assign(
            [TopicPartition(self._topic, p, start.position) for p, start in starts.items()]
        )
        paused = [TopicPartition(self._topic, p) for p, start in starts.items() if start.is_paused]
        if paused:
            self._consumer.pause(paused)
        self._assigned |= set(partitions)
        self._untaken -= self._assigned
        self._untaken_lag = self._untaken_lag if self._untaken else 0
        self._positions.update({p: start.position for p, start in starts.items()})

    def _on_revoke(self, revoked: Sequence[TopicPartition], *, is_lost: bool) -> None:
        assert self._listener is not None
        partitions = [one.partition for one in revoked]
        try:
            self._listener.revoked(partitions, is_lost=is_lost)
        except Exception as error:
            self._failure = error
        self._assigned -= set(partitions)
        for partition in partitions:
            self._positions.pop(partition, None)
        self._ended -= set(partitions)
        self._revoked_in_poll |= set(partitions)
        self._consumer.incremental_unassign(list(revoked))
        for partition in partitions:
            self._reader.remove(partition)

    def _without_revoked(self, records: Records) -> Records:
        """Drop polled records whose partition was revoked.

        Otherwise their offsets could be committed in the new generation: the next owner would miss
        them, or step them twice.
        """
        back_again = self._revoked_in_poll & self._assigned
        self.rewind({partition: self._positions[partition] for partition in back_again})
        is_revoked = np.isin(records.partitions, list(self._revoked_in_poll))
        return records.take(np.flatnonzero(~is_revoked))

    def _take_notice(self, notice: Notice) -> None:
        """Handle what isn't a record: the end of a partition, or an error."""
        error = notice.error
        if error.code() == END_OF_PARTITION:
            if notice.partition in self._assigned:
                self._ended.add(notice.partition)
            return
        if error.code() in FENCED or (error.fatal() and "fenced" in error.str().lower()):
            raise FencedError(
                f"another worker has the group instance id {self._settings.group_instance_id!r}"
            )
        if error.retriable() or error.code() in OUT_OF_REACH:
            _log.warning("the consumer continues after: %s", error.str())
            return
        self._explain_reading(notice)
        raise BrokerError(
            f"reading topic {self._topic} as group {self._settings.group}: {text_of(error)}"
        )
