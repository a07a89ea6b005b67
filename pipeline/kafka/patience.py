"""Retries of requests that a broker can't answer for a moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import tenacity
from confluent_kafka import KafkaException

from livestep.pipeline.kafka.error_codes import UNSETTLED

#: Seconds between two attempts.
_PAUSE_S = 0.1

T = TypeVar("T")


def ask_again(
    question: Callable[[], T], timeout_s: float, stopped: threading.Event | None = None
) -> T:
    """Repeat a request until a partition's leader, or a group's coordinator, can answer.

    Both are unavailable for a moment when a topic is new, a broker has just started, or leadership
    has moved. librdkafka does not retry these requests.

    Args:
        question: Makes the request.
        timeout_s: How long to retry.
        stopped: If it is set, there are no further attempts.

    Raises:
        KafkaException: If there is no answer in time, or for any other error.
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
