"""The report of the demo: five counts that have to be 0, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from rich.table import Table

from livestep.deploy.demo.demo_story import EXAMPLES_MAX, Story
from livestep.models.loaded_model import LoadedModel
from livestep.pipeline.audit.output_audit import AuditReport, OnProgress, audit
from livestep.pipeline.audit.whole_log import read_whole_log
from livestep.pipeline.records import dead_letter_topic

#: What the largest difference stands beside.
UNROLL = "different from offline unroll"


@dataclass(frozen=True)
class Measured:
    """What was measured while it ran.

    Attributes:
        latencies_ms: Of the slow part, from publishing an event to the arrival of its prediction.
        alone_rate: Events/s of the fast part, as long as one worker was alone.
        fast_rate: Events/s of all of it, from its first event to its last prediction.
        gap_s: Longest time that a partition of the killed worker had no prediction.
    """

    latencies_ms: list[float]
    alone_rate: float
    fast_rate: float
    gap_s: float


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        published: Events that were published.
        audit: What the judge found, see `AuditReport`.
        wrong_dishes: Predictions that name another dish than the rules.
        measured: While it ran.
        examples: Some faults in words.
    """

    published: int
    audit: AuditReport
    wrong_dishes: int
    measured: Measured
    examples: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """The five that have to be 0."""
        # No event of the story is bad: a dead letter, or an event that the topic lost, is a fault.
        missing = max(0, self.published - self.audit.events)
        return {
            "lost": self.audit.lost + self.audit.dead_letters + missing,
            "repeated": self.audit.repeated,
            "out of order": self.audit.out_of_order,
            UNROLL: self.audit.different,
            "different from the rules": self.wrong_dishes,
        }

    @property
    def is_clean(self) -> bool:
        """Whether all five are 0."""
        return not any(self.counts.values())

    def table(self) -> Table:
        """Draw it."""
        measured = self.measured
        p50_ms, p99_ms = np.percentile(measured.latencies_ms, [50, 99], method="inverted_cdf")
        slow = f"{len(measured.latencies_ms)} events, one by one"
        table = Table(show_header=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_column()
        table.add_row("events", f"{self.published:,}", f"of {self.audit.keys:,} flats")
        table.add_row("predictions", f"{self.audit.predictions:,}", end_section=True)
        for name, count in self.counts.items():
            note = f"at most by {self.audit.max_difference:.1e}" if name == UNROLL else ""
            table.add_row(name, f"{count:,}", note, style="red" if count else "green")
        table.add_section()
        table.add_row("events/s", f"{measured.alone_rate:,.0f}", "one worker, full speed")
        table.add_row("events/s", f"{measured.fast_rate:,.0f}", "until the last, kill -9 included")
        table.add_row("latency p50", f"{p50_ms:,.1f} ms", slow)
        table.add_row("latency p99", f"{p99_ms:,.1f} ms", slow)
        table.add_row(
            "longest gap after kill -9", f"{measured.gap_s:,.1f} s", "worker 1's partitions"
        )
        return table


def make_report(
    bootstrap_servers: str,
    topics: tuple[str, str],
    model: LoadedModel,
    story: Story,
    measured: Measured,
    on_progress: OnProgress,
) -> Report:
    """Read the topics with a client that has no part in the predictions, and compare.

    Args:
        bootstrap_servers: host:port[,host:port...].
        topics: Input and output; no worker may be writing.
        model: What has predicted.
        story: What was published, all of it.
        measured: While it ran.
        on_progress: Called with what is done, how much of it, and how much in all.

    Raises:
        BrokerError: If a topic can't be read to its end.
    """
    judged = audit(bootstrap_servers, *topics, model, on_progress=on_progress)
    wrong_dishes = 0
    examples = list(map(str, judged.examples[:EXAMPLES_MAX]))
    if judged.dead_letters:
        examples.append(
            f"lost: {judged.dead_letters:,} events are in {dead_letter_topic(topics[0])}"
        )
    records = read_whole_log(
        bootstrap_servers,
        topics[1],
        on_progress=lambda done, total: on_progress("looking up the rules", done, total),
    )
    for record in records:
        fault = story.wrong_dish(record)
        if fault is not None:
            wrong_dishes += 1
            if wrong_dishes <= EXAMPLES_MAX:
                examples.append(f"different from the rules: {fault}")
    return Report(story.event_count, judged, wrong_dishes, measured, examples)
