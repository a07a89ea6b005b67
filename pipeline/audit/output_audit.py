"""Compares what a worker wrote with the offline unroll of its input.

It shares nothing with the worker but the model and the names of headers: it reads the topics with
another client, steps whole sequences instead of batch after batch, and parses values itself.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from livestep.models.loaded_model import LoadedModel
from livestep.models.rounding import Rounding
from livestep.pipeline.audit.audit_report import AuditReport
from livestep.pipeline.audit.judge import Judge
from livestep.pipeline.audit.unrolled import unroll_log
from livestep.pipeline.audit.whole_log import LogBounds, log_bounds, read_whole_log
from livestep.pipeline.errors import ConfigError, MissingTopicError
from livestep.pipeline.kafka.topic_setup import end_offsets
from livestep.pipeline.records import dead_letter_topic

#: Called with a description of the stage, what is done, and the total.
OnProgress = Callable[[str, int, int], None]

#: Whether the audit covers a key; a record without a key has None.
KeyFilter = Callable[[bytes | None], bool]

__all__ = ["AuditReport", "OnProgress", "audit"]


def audit(
    bootstrap_servers: str,
    input_topic: str,
    output_topic: str,
    model: LoadedModel,
    *,
    dead_letters: str | None = None,
    group: str | None = None,
    may_repeat: bool = False,
    rounding: Rounding = "exact",
    key_filter: KeyFilter | None = None,
    on_progress: OnProgress | None = None,
) -> AuditReport:
    """Read the input, dead-letter and output topics, and compare.

    Each key's state is taken to be zero at the first event that the input topic still has. All
    events that the audit covers are held in memory. Waits for open transactions.

    Args:
        bootstrap_servers: host:port[,host:port...].
        input_topic: The topic that the worker read.
        output_topic: The topic that it wrote, from this input only.
        model: The model that it ran all the time.
        dead_letters: Its dead-letter topic; None for the default one, which may be missing.
        group: Its consumer group: events that it has not committed are not judged, so that the
            worker may keep running. None judges every event: no worker may be writing.
        may_repeat: Whether repeated records are allowed, as with the guarantee at-least-once.
        rounding: "exact" if every number must be equal bit for bit; see `Judge`.
        key_filter: Limits the audit to some keys; None for all.
        on_progress: Called from time to time.

    Returns:
        report: See `AuditReport`.

    Raises:
        BrokerError: If a topic can't be read to its end.
        MissingTopicError: If a topic doesn't exist.
        ConfigError: If some keys of a model with session gaps are asked for.
    """
    if key_filter is not None and model.rules.session_gap_ms is not None:
        raise ConfigError(
            "this model has a session gap, so a key's sequence may be ended by an event of any "
            "other key: audit all keys"
        )
    show = on_progress or _show_nothing
    bounds = log_bounds(bootstrap_servers, input_topic, group)
    judged, notes = _judged_offsets(input_topic, bounds, group, model)
    output_partitions = len(end_offsets(bootstrap_servers, output_topic))
    letters = dead_letters or _default_dead_letters(bootstrap_servers, input_topic)

    def records(topic: str) -> Iterator[Any]:
        found = read_whole_log(
            bootstrap_servers, topic, on_progress=partial(show, f"reading {topic}")
        )
        return (record for record in found if key_filter is None or key_filter(record.key))

    judge = Judge(
        input_topic,
        output_partitions,
        model,
        judged=judged,
        may_repeat=may_repeat,
        rounding=rounding,
    )
    for record in records(letters) if letters else ():
        judge.take_dead_letter(record)
    events = (one for one in records(input_topic) if judge.covers((one.partition, one.offset)))
    judge.take_events(unroll_log(events, model, judge.dead, partial(show, "unrolling")))
    for record in records(output_topic):
        judge.take_prediction(record)
    return dataclasses.replace(judge.report(), notes=tuple(notes))


def _default_dead_letters(bootstrap_servers: str, input_topic: str) -> str | None:
    """Return the name of the default dead-letter topic; None if it doesn't exist."""
    name = dead_letter_topic(input_topic)
    try:
        end_offsets(bootstrap_servers, name)
    except MissingTopicError:
        return None
    return name


def _judged_offsets(
    topic: str, bounds: Mapping[int, LogBounds], group: str | None, model: LoadedModel
) -> tuple[dict[int, range], list[str]]:
    """Choose which events to judge, and describe in words which are left out."""
    notes = []
    has_commits = any(one.committed is not None for one in bounds.values())
    if group is not None and not has_commits:
        notes.append(f"group {group!r} has no committed offsets: every event is judged")
    judged = {}
    for partition, (begin, committed, end) in bounds.items():
        if begin and not model.rules.is_stateless:
            notes.append(
                f"partition {partition} of {topic} begins at offset {begin}: a key with events "
                "before that has a state that the audit can't know, and its predictions may differ"
            )
        judged[partition] = range(begin, sys.maxsize)
        if has_commits:
            judged[partition] = range(begin, max(begin, committed or 0))
            if judged[partition].stop < end:
                notes.append(
                    f"partition {partition} of {topic}: events from offset "
                    f"{judged[partition].stop} to {end - 1} are not committed by group {group!r} "
                    "yet, and not judged"
                )
    return judged, notes


def _show_nothing(what: str, done: int, total: int) -> None:
    return
