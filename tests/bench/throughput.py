"""One run over a full log: the rate, and whether every output is right."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.bench import Bench
from tests.bench.checker import Counts, read_outputs
from tests.bench.contestants import Contestant
from tests.bench.reader import OutputReader, steady_rate

#: The slowest row needs about half a minute; starting up takes some seconds.
RUN_TIMEOUT_S = 150.0

#: Resolution of arrival times, small compared with a run of seconds.
READER_PAUSE_S = 0.01


@dataclass(frozen=True)
class Throughput:
    """What one run gave."""

    events_per_s: float
    counts: Counts
    rss_mb: float | None


def measure(bench: Bench, contestant: Contestant, title: str) -> Throughput:
    """Let a contestant read its whole log once."""
    log = bench.log_of(contestant)
    with bench.contest(contestant, bench.topic_of(contestant)) as contest:
        servers, topic = contest.run.bootstrap_servers, contest.run.output_topic
        with (
            OutputReader(servers, topic, READER_PAUSE_S) as reader,
            bench.progress.task(title, len(log)) as update,
        ):

            def on_look(count: int) -> None:
                update(count)
                contest.look_at_memory()

            outputs = reader.read(
                len(log), RUN_TIMEOUT_S, lambda: contest.child.is_running, on_look
            )
    values = read_outputs(outputs.values, contestant.codec, contestant.output_name)
    counts = bench.checker_of(contestant).check(outputs.keys, values)
    return Throughput(steady_rate(outputs.arrivals), counts, contest.rss_mb)
