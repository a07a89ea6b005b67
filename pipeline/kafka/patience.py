"""Questions that a broker can't answer for a moment: asked again until it can."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import tenacity
from confluent_kafka import KafkaException

from livestep.pipeline.kafka.error_codes import UNSETTLED

#: Seconds between two questions.
_PAUSE_S = 0.1

T = TypeVar("T")


def ask_again(
    question: Callable[[], T], timeout_s: float, stopped: threading.Event | None = None
) -> T:
    """Ask until a partition has a leader, or a group its coordinator, that can answer.

    Both are missing for a moment where a topic is new, a broker has just started, or leadership has
    moved. librdkafka does not repeat these questions.

    Args:
        question: Asks librdkafka.
        timeout_s: For how long.
        stopped: Once it is set, it is not asked again.

    Raises:
        KafkaException: If there is no answer in time, or it is another error.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_unsettled),
        stop=tenacity.stop_any(
            tenacity.stop_after_delay(timeout_s),
            tenacity.stop_when_event_set(stopped or threading.Event()),
        ),
        wait=tenacity.wait_fixed(_PAUSE_S),
        reraise=True,
    )
    return retrying(question)


def _is_unsettled(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in UNSETTLED
