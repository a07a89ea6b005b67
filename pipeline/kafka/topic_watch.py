"""Whether the topics still are what they were when the worker started.

A name is all that Kafka's clients go by: librdkafka reads on, at the same offset, in a topic that
was deleted and created again, and sees new partitions when it next asks for metadata.  So the
brokers are asked for the input topic's id and partitions with each batch: the question leaves when
the records are in hand, and its answer is awaited before they are committed.  A deleted topic never
comes back under its id, so records that were polled before such an answer are of that topic.  All
topics are looked at by a timer, too, for a worker that is idle.
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

#: Seconds between two looks at all topics.
LOOK_INTERVAL_S = 2.0

#: Seconds for which a topic has to be unknown to be taken for deleted: one that has just been
#: created is unknown to some brokers for a moment.
GONE_AFTER_S = 5.0

#: Seconds that the cause of an error is looked for: it may be that no broker is there.
EXPLANATION_TIMEOUT_S = 2.0

#: Between two questions meanwhile.
_ASK_AGAIN_S = 0.05


class TopicWatch:
    """Looks at the input topic with each batch, and at all topics now and then.

    Args:
        admin: Asks.
        input_topic: Must not change.
        output_topics: May change, which is logged.
        auto_offset_reset: `Settings.auto_offset_reset`, for messages.
        timeout_s: How long to wait for an answer.
        deadline: Of a stop, which bounds that.

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
        """Ask what the input topic is, which `verify` will wait for: records have been polled."""
        self._verified = None
        self._question = self._admin.ask([self._topic], self._timeout_s)

    def ask_if_unknown(self) -> None:
        """Ask, unless `verify` has an answer or waits for one."""
        if self._verified is None and self._question is None:
            self.ask()

    def forget(self) -> None:
        """Forget the answer: what follows needs another one."""
        self._verified = None

    def verify(self) -> TopicState:
        """Wait for the answer to the last `ask`, or ask now; until `forget` it stays the answer.

        Raises:
            TopicReplacedError: If the input topic is not the one of the start.
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
        """Wait for an answer that names the topic, for a while."""
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
        """Look at all topics if it is time, without waiting; call it again and again.

        Returns:
            now: The input topic, when there is news of it.

        Raises:
            TopicReplacedError: If the input topic is not the one of the start.
            BrokerError: If the worker may not look, or can't write to an output topic any more.
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
                _log.warning("looking at the topics again later: %s", error)
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
        """Name the cause if something can't be sent because its topic is gone."""
        try:
            yield
        except (AbortedError, BrokerError):
            self.check_outputs()
            raise

    def check_outputs(self) -> None:
        """Find out, after something could not be sent, whether its topic is the cause.

        Raises:
            BrokerError: If it is.
        """
        try:
            question = self._admin.ask(self._names, EXPLANATION_TIMEOUT_S)
            timeout_s = self._deadline.work_s(EXPLANATION_TIMEOUT_S)
            self._outputs.look(question.answer(timeout_s))
        except NoAnswerError as error:
            _log.warning("the topics could not be looked at: %s", error)
            return
        self._outputs.refuse_missing()

    def is_missing(self, topic: str) -> bool:
        """Whether an output topic was not there at the last look."""
        return topic in self._outputs.missing

    def _same(self, now: TopicState) -> TopicState:
        if now.id != self._id:
            raise self._replaced(now)
        return now

    def _replaced(self, now: TopicState | None) -> TopicReplacedError:
        return topic_replaced(self._topic, self._id, now, self._auto_offset_reset)
