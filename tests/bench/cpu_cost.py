"""CPU time of a worker for each event, all its threads, over a long log in a burst.

The same worker on an empty topic gives the CPU of its start and its end, which is subtracted.
"""

from __future__ import annotations

import resource

from tests.bench.bench import Bench, ContestantError
from tests.bench.bench_topics import fill_topic
from tests.bench.contestants import Contestant
from tests.bench.dataset import Codec

#: Repetitions of the long log: 2.4 million events.
COPIES = 7

#: The slowest row needs 40 s on a quiet machine.
BURST_TIMEOUT_S = 240.0


def topic_of(codec: Codec) -> str:
    """Return the name of the topic that holds the events."""
    return f"cpu-{codec}"


def fill(bench: Bench, codec: Codec, copies: int) -> int:
    """Publish the events once for all rows of a codec; return how many there are."""
    log = bench.logs[-1]
    topic = topic_of(codec)
    for name in (topic, f"{topic}-empty"):
        bench.create_input(name)
    with bench.progress.task(f"publishing {topic}", copies * len(log)) as update:
        for copy in range(copies):
            before = copy * len(log)
            fill_topic(
                bench.services.bootstrap_servers,
                topic,
                log.records(codec),
                lambda count, before=before: update(before + count),  # type: ignore[misc]
            )
    return copies * len(log)


def measure(bench: Bench, contestant: Contestant, events: int) -> float:
    """Let a worker of ours read the topic of its codec once.

    Args:
        bench: Services and models.
        contestant: One of ours.
        events: What `fill` has returned.

    Returns:
        cpu_us: Microseconds of CPU for each event.
    """
    topic = topic_of(contestant.codec)
    whole_s = _cpu_s(bench, contestant, topic)
    start_s = _cpu_s(bench, contestant, f"{topic}-empty")
    return (whole_s - start_s) / events * 1e6


def _cpu_s(bench: Bench, contestant: Contestant, topic: str) -> float:
    """Run a burst; return the CPU seconds of its process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (
        bench.progress.task(f"{contestant.row}, CPU, {topic}", 1),
        bench.contest(contestant, topic, "--burst", is_burst=True) as contest,
    ):
        code = contest.child.wait(BURST_TIMEOUT_S)
        if code:
            raise ContestantError(f"{contestant.row}: exit {code}\n{contest.child.log_tail()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
