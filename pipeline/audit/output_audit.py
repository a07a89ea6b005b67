"""The judge: compares what a worker wrote with the offline unroll of what it was given.

It shares nothing with the worker but the model and the names of headers: it reads the topics with
another client, steps each key by `unroll` instead of packed batches, and reads values by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from livestep.models.loaded_model import LoadedModel
from livestep.pipeline.audit.judge import AuditReport, Judge
from livestep.pipeline.audit.unrolled import unroll_log
from livestep.pipeline.audit.whole_log import read_whole_log
from livestep.pipeline.errors import BrokerError
from livestep.pipeline.kafka.topic_setup import describe_topics
from livestep.pipeline.records import dead_letter_topic

#: Called with what is being done, how much of it is done, and how much it is in all.
OnProgress = Callable[[str, int, int], None]

__all__ = ["AuditReport", "OnProgress", "audit"]


def audit(
    bootstrap_servers: str,
    input_topic: str,
    output_topic: str,
    model: LoadedModel,
    *,
    on_progress: OnProgress | None = None,
) -> AuditReport:
    """Read input, dead-letter and output topic whole, and compare.

    States are taken to begin at the first event that the input topic still has. Waits for
    transactions that are open; no worker should be writing.

    Args:
        bootstrap_servers: host:port[,host:port...].
        input_topic: What the worker read.
        output_topic: What it wrote, from this input alone.
        model: The model that it ran all the time.
        on_progress: Called now and then.

    Returns:
        report: See `AuditReport`.

    Raises:
        BrokerError: If a topic is missing or can't be read to its end.
    """
    show = on_progress or _show_nothing
    topics = describe_topics(bootstrap_servers)
    for topic in (input_topic, output_topic):
        if topic not in topics:
            raise BrokerError(f"there is no topic {topic!r} to audit at {bootstrap_servers}")

    def records(topic: str) -> Iterator[Any]:
        return read_whole_log(
            bootstrap_servers, topic, on_progress=partial(show, f"reading {topic}")
        )

    judge = Judge(input_topic, topics[output_topic].partition_count, model)
    if dead_letter_topic(input_topic) in topics:
        for record in records(dead_letter_topic(input_topic)):
            judge.take_dead_letter(record)
    judge.take_events(
        unroll_log(records(input_topic), model, judge.dead, partial(show, "unrolling"))
    )
    for record in records(output_topic):
        judge.take_prediction(record)
    return judge.report()


def _show_nothing(what: str, done: int, total: int) -> None:
    return
