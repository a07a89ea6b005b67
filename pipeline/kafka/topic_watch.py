"""Detects topics that were deleted, created again, or got more partitions since the start.

Kafka's clients identify a topic only by its name: librdkafka keeps reading at the same offset in a
topic that was deleted and created again, and notices new partitions only when it refreshes its
metadata.  So for each batch the brokers are asked for the input topic's id and partitions: the
request is sent when the records have been polled, and answered before they are committed.  Ids are
never reused, so records polled before the answer are from the topic with that id.  For an idle
worker, a timer checks all topics, too.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence

from livestep.pipeline.engine.log import AbortedError
from livestep.pipeline.engine.topic_state import OutputTopics, TopicState, topic_replaced
from livestep.pipeline.errors import BrokerError, ConfigError, TopicReplacedError
from livestep.pipeline.kafka.admin import Admin, NoAnswerError, Question
from livestep.pipeline.process.deadline import Deadline

_log = logging.getLogger("livestep.transport")

#: Seconds between two checks of all topics.
LOOK_INTERVAL_S = 2.0

#: Seconds after which an unknown topic counts as deleted: for a moment, some brokers don't know a
#: topic that has just been created.
GONE_AFTER_S = 5.0

#: Seconds to look for the cause of an error; there may be no broker that answers.
EXPLANATION_TIMEOUT_S = 2.0

#: Seconds between two requests while a topic is unknown.
_ASK_AGAIN_S = 0.05


class TopicWatch:
    """Checks the input topic for each batch, and all topics periodically.

    Args:
        admin: Sends the requests.
        input_topic: Must not be replaced.
        output_topics: May be replaced, which is logged.
        auto_offset_reset: `Settings.auto_offset_reset`, for messages.
        timeout_s: How long to wait for an answer.
        deadline: Deadline of a stop, which limits that wait.

    Attributes:
        states: All topics as they were at the start.

    Raises:
        ConfigError: If a topic is missing.
        NoAnswerError: If no broker answers.
    """

    def __init__(
        self,
        admin: Admin,
        input_topic: str,
        output_topics: Sequence[str],
        *,
        auto_offset_reset: str,
        timeout_s: float,
        deadline: Deadline,
    ) -> None:
        self._admin = admin
        self._topic = input_topic
        self._names = [input_topic, *output_topics]
        self._auto_offset_reset = auto_offset_reset
        self._timeout_s = timeout_s
        self._deadline = deadline
        self.states: dict[str, TopicState] = {}
        for name, state in admin.ask(self._names, timeout_s).answer(timeout_s).items():
            if state is None:
                raise ConfigError(f"topic {name} has just been deleted")
            self.states[name] = state
        self._id = self.states[input_topic].id
        self._outputs = OutputTopics({name: self.states[name] for name in output_topics})
        self._question: Question | None = None
        self._verified: TopicState | None = None
        self._look: Question | None = None
        self._is_unanswered = False
        self._look_due_s = time.monotonic() + LOOK_INTERVAL_S
        self._gone_since_s: float | None = None

    def ask(self) -> None:
        """Request the state of the input topic, after a poll; `verify` waits for the answer."""
        self._verified = None
        self._question = self._admin.ask([self._topic], self._timeout_s)

    def ask_if_unknown(self) -> None:
        """Call `ask`, unless there is an answer or a pending request."""
        if self._verified is None and self._question is None:
            self.ask()

    def forget(self) -> None:
        """Discard the answer: the next batch needs a new one."""
        self._verified = None

    def verify(self) -> TopicState:
        """Wait for the answer to the last `ask`, or ask now; the answer is kept until `forget`.

        Raises:
            TopicReplacedError: If the input topic has been replaced since the start.
            NoAnswerError: If no broker answers.
        """
        if self._question is None and self._verified is not None:
            return self._verified
        question, self._question = self._question, None
        try:
            self._verified = self._answer(question)
        except NoAnswerError:
            self._admin.find_brokers()
            raise
        return self._verified

    def _answer(self, question: Question | None) -> TopicState:
        """Ask until a broker knows the topic, for `GONE_AFTER_S` at most."""
        deadline_s = time.monotonic() + self._deadline.work_s(GONE_AFTER_S)
        while True:
            question = question or self._admin.ask([self._topic], self._timeout_s)
            now = question.answer(self._deadline.work_s(self._timeout_s))[self._topic]
            if now is not None:
                return self._same(now)
            if time.monotonic() > deadline_s:
                raise self._replaced(None)
            time.sleep(_ASK_AGAIN_S)
            question = None

    def look(self) -> TopicState | None:
        """Check all topics if it is time, without blocking; call it often.

        Returns:
            now: State of the input topic, if a new answer has arrived.

        Raises:
            TopicReplacedError: If the input topic has been replaced since the start.
            BrokerError: If the worker is not authorized, or can no longer write to an output topic.
        """
        if self._look is None:
            if time.monotonic() >= self._look_due_s:
                self._look = self._admin.ask(self._names, self._timeout_s)
            return None
        if not self._look.is_answered:
            return None
        question, self._look = self._look, None
        self._look_due_s = time.monotonic() + LOOK_INTERVAL_S
        try:
            states = question.answer(0)
        except NoAnswerError as error:
            if not self._is_unanswered:
                _log.warning("could not check the topics, will retry: %s", error)
            self._is_unanswered = True
            self._admin.find_brokers()
            return None
        self._is_unanswered = False
        self._outputs.look(states)
        now = states[self._topic]
        if now is None:
            self._gone_since_s = self._gone_since_s or time.monotonic()
            if time.monotonic() - self._gone_since_s > GONE_AFTER_S:
                raise self._replaced(None)
            return None
        self._gone_since_s = None
        return self._same(now)

    @contextlib.contextmanager
    def explaining_sends(self) -> Iterator[None]:
        """Raise a clear error if sending fails because the topic has been deleted."""
        try:
            yield
        except (AbortedError, BrokerError):
            self.check_outputs()
            raise

    def check_outputs(self) -> None:
        """Check after a failed send whether a missing topic is the cause.

        Raises:
            BrokerError: If it is.
        """
        try:
            question = self._admin.ask(self._names, EXPLANATION_TIMEOUT_S)
            timeout_s = self._deadline.work_s(EXPLANATION_TIMEOUT_S)
            self._outputs.look(question.answer(timeout_s))
        except NoAnswerError as error:
            _log.warning("could not check the topics: %s", error)
            return
        self._outputs.refuse_missing()

    def is_missing(self, topic: str) -> bool:
        """Return whether an output topic was missing at the last check."""
        return topic in self._outputs.missing

    def _same(self, now: TopicState) -> TopicState:
        if now.id != self._id:
            raise self._replaced(now)
        return now

    def _replaced(self, now: TopicState | None) -> TopicReplacedError:
        return topic_replaced(self._topic, self._id, now, self._auto_offset_reset)
