"""Runs of livestep over each shape of sequence, judged by `pipeline.audit.judge`."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from livestep import LoadedModel
from tests.bench.bench import Bench, ContestantError
from tests.bench.bench_topics import fill_topic
from tests.bench.contestants import Contestant, Run, livestep
from tests.bench.reader import OutputReader, steady_rate
from tests.bench.results import TWINS, ShapeRow
from tests.bench.shape_audit import ShapeCounts, audit_sample
from tests.bench.shape_cases import SHAPE_CASES, LogName, ShapeCase, ShapeLog, make_shape_log
from tests.bench.throughput import READER_PAUSE_S

#: Runs of the two that are compared, if there is time; each of the others has one.
TWIN_RUNS, TWIN_RUNS_QUICK = 5, 1

#: Events of a log that is made for a shape, by its name.
EVENTS: dict[LogName, int] = {"vowels-ended": 340_000, "origins": 40_000, "words": 170_000}

#: In a quick run they are fewer by this.
QUICK_DIVISOR = 6

#: One key in so many is judged: where events are unrolled together, and where they are stepped one
#: by one.
ONE_KEY_IN, ONE_KEY_IN_SLOW = 10, 40

#: A run needs some seconds.
RUN_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class ShapeRun:
    """What one run gave."""

    events_per_s: float
    records: int
    rss_mb: float | None
    found: ShapeCounts | None


@dataclass
class Shapes:
    """The logs and models of all shapes, on a bench.

    Args:
        bench: Services and the log that all contestants read.
        is_quick: Short logs, and one run each.
        until_s: Runs beyond the first of each shape begin before this, in seconds of the bench.
    """

    bench: Bench
    is_quick: bool
    until_s: float

    def measure(self, cases: Sequence[ShapeCase] = tuple(SHAPE_CASES)) -> list[ShapeRow]:
        """Run all shapes, the twins more than once; one that fails is left out, and said to be."""
        logs = {name: self._publish(name) for name in dict.fromkeys(case.log for case in cases)}
        models = {case.row: case.make().save(self.bench.directory / _name(case)) for case in cases}
        runs: dict[str, list[ShapeRun]] = {case.row: [] for case in cases}
        for repeat in range(TWIN_RUNS_QUICK if self.is_quick else TWIN_RUNS):
            if repeat and self.bench.progress.elapsed_s > self.until_s:
                self.bench.progress.say(f"no time for run {repeat + 1} of the shapes compared")
                break
            # In turn, so that neither is always the first.
            for case in reversed(cases) if repeat % 2 else cases:
                if repeat and not (case.row in TWINS and runs[case.row]):
                    continue
                try:
                    found = self._run(case, models[case.row], logs[case.log], is_first=not repeat)
                except (ContestantError, TimeoutError) as error:
                    self.bench.progress.fail(str(error))
                else:
                    runs[case.row].append(found)
        return [_row(case, logs[case.log], runs[case.row]) for case in cases if runs[case.row]]

    def _publish(self, name: LogName) -> ShapeLog:
        count = EVENTS.get(name, 0) // (QUICK_DIVISOR if self.is_quick else 1)
        log = make_shape_log(name, self.bench.logs[1], count)
        topic = _topic(name)
        self.bench.create_input(topic)
        with self.bench.progress.task(f"publishing {topic}", log.events) as update:
            fill_topic(self.bench.services.bootstrap_servers, topic, log.records(), update)
        return log

    def _run(
        self, case: ShapeCase, model: LoadedModel, log: ShapeLog, *, is_first: bool
    ) -> ShapeRun:
        """Let a worker read a log to its end; the first one's outputs are judged."""
        contestant = Contestant(
            row=_name(case), system="livestep", kind="ours", guarantee="exactly-once",
            durable=True, command=livestep("exactly-once", _name(case)),
        )  # fmt: skip
        with self.bench.contest(contestant, _topic(case.log), "--burst", is_burst=True) as contest:
            servers, topic = contest.run.bootstrap_servers, contest.run.output_topic
            with (
                OutputReader(servers, topic, READER_PAUSE_S) as reader,
                self.bench.progress.task(_name(case), log.answer_count) as update,
            ):

                def on_look(count: int) -> None:
                    update(min(count, log.answer_count))
                    contest.look_at_memory()

                # How many records a generated sequence has is not known before: the worker ends by
                # itself when it has read all.
                outputs = reader.read(
                    None, RUN_TIMEOUT_S, lambda: contest.child.is_running, on_look
                )
            if contest.child.exit_code != 0:
                raise ContestantError(f"{_name(case)}:\n{contest.child.log_tail()}")
            found = self._judge(case, model, log, contest.run) if is_first else None
        if not len(outputs):
            raise ContestantError(f"{_name(case)} has no output:\n{contest.child.log_tail()}")
        rate = steady_rate(outputs.arrivals) * log.events / len(outputs)
        counts = found.counts if found else "not judged"
        self.bench.progress.say(f"{_name(case)}: {rate:,.0f} events/s, {counts}")
        return ShapeRun(rate, len(outputs), contest.rss_mb, found)

    def _judge(self, case: ShapeCase, model: LoadedModel, log: ShapeLog, run: Run) -> ShapeCounts:
        found = audit_sample(
            run.bootstrap_servers,
            run.input_topic,
            run.output_topic,
            model,
            one_key_in=ONE_KEY_IN if _is_unrolled(case, model) else ONE_KEY_IN_SLOW,
            answer_count=log.answer_count,
        )
        for example in found.examples:
            self.bench.progress.say(f"{_name(case)}: {example}")
        return found


def _row(case: ShapeCase, log: ShapeLog, runs: Sequence[ShapeRun]) -> ShapeRow:
    """Summarise the runs of a shape."""
    events_per_s = statistics.median(run.events_per_s for run in runs)
    judged = [run.found for run in runs if run.found is not None]
    memories = [run.rss_mb for run in runs if run.rss_mb is not None]
    return ShapeRow(
        row=case.row,
        shape=case.shape,
        net=case.net,
        events=log.events,
        records=runs[0].records,
        events_per_s=round(events_per_s),
        records_per_s=round(events_per_s * runs[0].records / log.events),
        runs=[round(run.events_per_s) for run in runs],
        audited_events=sum(found.events for found in judged),
        wrong=sum(found.counts.wrong for found in judged),
        missing=sum(found.counts.missing for found in judged),
        duplicate=sum(found.counts.duplicate for found in judged),
        deviation=max(found.counts.deviation for found in judged),
        rss_mb=round(max(memories)) if memories else None,
    )


def _is_unrolled(case: ShapeCase, model: LoadedModel) -> bool:
    return case.log == "vowels" and not model.rules.feedback


def _name(case: ShapeCase) -> str:
    return f"shape-{case.row}"


def _topic(name: LogName) -> str:
    return f"shape-events-{name}"
