"""Run the benchmark: `python -m tests.bench --help`."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

import click
import torch

from livestep.deploy.local.child_process import ServiceError
from livestep.deploy.local.services import local_services
from tests.bench import cpu_cost, latency, memory, results, throughput
from tests.bench import generation_cost as generation
from tests.bench.bench import Bench, ContestantError
from tests.bench.contestants import CONTESTANTS, REPOSITORY, Contestant
from tests.bench.dataset import GROUP_COPIES, Codec
from tests.bench.peer_environment import PeerEnvironment, PeerError
from tests.bench.shapes import Shapes
from tests.bench.throughput import Throughput
from tests.support.rig.machine import describe_machine
from tests.support.rig.progress import Progress
from tests.support.rig.runs import exits, run_folder

#: Repetitions of the utterances for slow and for fast systems: 56,870 and 341,220 events.
COPIES = (GROUP_COPIES, 6 * GROUP_COPIES)

#: All ends within 20 minutes: what would end later than this is left out, and said to be.
THROUGHPUT_UNTIL_S = 13 * 60
LATENCY_UNTIL_S = 15 * 60
SHAPES_UNTIL_S = 18.5 * 60

#: The shapes take about as long at most.
SHAPES_DURATION_S = 3.5 * 60

#: A load above this was somebody else's, and shows in the numbers, most of all in latency.
LOAD_MAX = 0.5

LATENCY_DURATION_S = 16.0
LATENCY_DURATION_QUICK_S = 5.0

RowThroughputs = dict[str, list[Throughput]]


@click.command()
@click.option("--rows", default="", help="Rows to run, with commas, or none.  [default: all]")
@click.option("--repeats", default=3, show_default=True, help="Runs a row; the median counts.")
@click.option("--quick", is_flag=True, help="One short run each, for a first look.")
@click.option("--latency/--no-latency", "with_latency", default=True, help="Measure latency, too.")
@click.option("--cpu/--no-cpu", "with_cpu", default=True, help="Measure CPU per event, too.")
@click.option("--memory/--no-memory", "with_memory", default=True, help="Measure memory, too.")
@click.option(
    "--shapes/--no-shapes", "with_shapes", default=True, help="Measure all shapes of sequence, too."
)
@click.option(
    "--write/--no-write",
    "is_written",
    default=None,
    help="Write results and the tables of README.md and docs/speed.md.  "
    "[default: if all rows ran, and not --quick]",
)
@click.option("--list", "is_listed", is_flag=True, help="Print the rows.")
def main(
    rows: str,
    repeats: int,
    quick: bool,
    with_latency: bool,
    with_cpu: bool,
    with_memory: bool,
    with_shapes: bool,
    is_written: bool | None,
    is_listed: bool,
) -> None:
    """Measure livestep and its peers on the same events, broker and machine."""
    if is_listed:
        print("\n".join(contestant.row for contestant in CONTESTANTS))
        return
    contestants = choose(rows)
    progress = Progress()
    with exits(ServiceError, PeerError, ContestantError):
        found = run(
            contestants,
            progress,
            repeats=1 if quick else repeats,
            copies=(GROUP_COPIES, GROUP_COPIES) if quick else COPIES,
            latency_s=(LATENCY_DURATION_QUICK_S if quick else LATENCY_DURATION_S)
            if with_latency
            else 0.0,
            with_cpu=with_cpu,
            with_memory=with_memory and not quick,
            with_shapes=with_shapes,
            is_quick=quick,
        )
    tables = [results.table(found)] if found.rows else []
    if found.shapes:
        tables.append(results.shapes_table(found))
    print("\n\n".join(tables))
    if is_written is None:
        is_written = not (rows or quick or progress.failures)
    if is_written:
        progress.say(f"wrote {results.write(found)}")
        for page in results.update_pages(REPOSITORY, found):
            progress.say(f"{page} has the new table")
    if progress.failures:
        sys.exit(1)


def choose(rows: str) -> list[Contestant]:
    """Choose contestants by the names of their rows; all if there are no names.

    Raises:
        click.BadParameter: If a name is unknown.
    """
    if rows == "none":
        return []
    names = [name.strip() for name in rows.split(",") if name.strip()]
    known = {contestant.row: contestant for contestant in CONTESTANTS}
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(f"{', '.join(unknown)}: known are {', '.join(known)}")
    return [known[name] for name in names] or CONTESTANTS


def run(
    contestants: Sequence[Contestant],
    progress: Progress,
    *,
    repeats: int,
    copies: tuple[int, int],
    latency_s: float,
    with_cpu: bool,
    with_memory: bool,
    with_shapes: bool,
    is_quick: bool,
) -> results.Results:
    """Run all rows, alternating, then latency, memory and shapes."""
    # The truth is computed step by step; threads would be no help there, and in a contestant's way.
    torch.set_num_threads(1)
    machine = describe_machine()
    if machine.load > LOAD_MAX:
        progress.say(f"warning: the machine is not quiet, its load is {machine.load}")
    with run_folder("bench") as folder:
        directory = folder.path
        progress.say("starting Kafka and Redis")
        with local_services() as services:
            bench = Bench(services, PeerEnvironment(), directory, copies=copies, progress=progress)
            bench.install(contestants)
            bench.fill(contestants)
            throughputs = measure_throughputs(bench, contestants, repeats)
            ran = [contestant for contestant in contestants if throughputs[contestant.row]]
            rows = [make_row(bench, contestant, throughputs[contestant.row]) for contestant in ran]
            if latency_s:
                measure_latencies(bench, ran, rows, latency_s)
            if with_cpu:
                measure_cpu(bench, ran, rows, 1 if is_quick else cpu_cost.COPIES)
            found_memory = memory.measure(bench) if with_memory else None
            shape_rows: list[results.ShapeRow] = []
            if with_shapes:
                until_s = min(SHAPES_UNTIL_S, progress.elapsed_s + SHAPES_DURATION_S)
                shape_rows = Shapes(bench, is_quick, until_s).measure()
        generation_speed = generation.measure(directory / "names") if with_shapes else None
        return results.Results(
            date=results.today(),
            machine=machine,
            rows=rows,
            memory=found_memory,
            shapes=shape_rows,
            generation=generation_speed,
            minutes=round(progress.elapsed_s / 60, 1),
        )


def measure_throughputs(
    bench: Bench, contestants: Sequence[Contestant], repeats: int
) -> RowThroughputs:
    """Run every contestant `repeats` times, alternating; later rounds only while there is time."""
    throughputs: RowThroughputs = {contestant.row: [] for contestant in contestants}
    duration_s: dict[str, float] = {}
    for repeat in range(repeats):
        for contestant in contestants:
            start_s = bench.progress.elapsed_s
            if start_s + duration_s.get(contestant.row, 0.0) > THROUGHPUT_UNTIL_S:
                bench.progress.say(f"no time for run {repeat + 1} of {contestant.row}")
                continue
            title = f"{contestant.row}, run {repeat + 1} of {repeats}"
            try:
                found = throughput.measure(bench, contestant, title)
            except ContestantError as error:
                bench.progress.fail(str(error))
                continue
            duration_s[contestant.row] = bench.progress.elapsed_s - start_s
            throughputs[contestant.row].append(found)
            counts = found.counts
            bench.progress.say(
                f"{contestant.row}: {found.events_per_s:,.0f} events/s, {counts.wrong} wrong, "
                f"{counts.missing} missing, {counts.duplicate} duplicate"
            )
    return throughputs


def make_row(bench: Bench, contestant: Contestant, runs: Sequence[Throughput]) -> results.Row:
    """Summarise the runs of a contestant."""
    log = bench.log_of(contestant)
    memories = [one.rss_mb for one in runs if one.rss_mb is not None]
    return results.Row(
        row=contestant.row,
        system=contestant.system,
        version=contestant.version(bench.peers),
        guarantee=contestant.guarantee,
        durable=contestant.durable,
        codec=contestant.codec,
        events=len(log),
        keys=len(log.key_names),
        events_per_s=round(statistics.median(one.events_per_s for one in runs)),
        runs=[round(one.events_per_s) for one in runs],
        wrong=sum(one.counts.wrong for one in runs),
        missing=sum(one.counts.missing for one in runs),
        duplicate=sum(one.counts.duplicate for one in runs),
        deviation=max(one.counts.deviation for one in runs),
        rss_mb=round(max(memories)) if memories else None,
    )


def measure_latencies(
    bench: Bench, contestants: Sequence[Contestant], rows: Sequence[results.Row], duration_s: float
) -> None:
    """Add the latencies to the rows."""
    for contestant, row in zip(contestants, rows, strict=True):
        if bench.progress.elapsed_s > LATENCY_UNTIL_S:
            bench.progress.say(f"no time for the latency of {contestant.row}")
            continue
        rate = min(latency.EVENTS_PER_S_MAX, row.events_per_s // 4)
        title = f"{contestant.row}, latency at {rate:,} events/s"
        try:
            found = latency.measure(bench, contestant, rate, duration_s, title)
        except ContestantError as error:
            bench.progress.fail(str(error))
            continue
        except latency.NotSettledError as error:
            bench.progress.say(f"{title}: not settled, no figure: {error}")
            continue
        row.latency_events_per_s, row.p50_ms, row.p99_ms = rate, found.p50_ms, found.p99_ms
        bench.progress.say(f"{title}: p50 {found.p50_ms} ms, p99 {found.p99_ms} ms")


def measure_cpu(
    bench: Bench, contestants: Sequence[Contestant], rows: Sequence[results.Row], copies: int
) -> None:
    """Add the CPU of each event to the rows of our workers."""
    events: dict[Codec, int] = {}
    for contestant, row in zip(contestants, rows, strict=True):
        if not contestant.is_worker:
            continue
        if contestant.codec not in events:
            events[contestant.codec] = cpu_cost.fill(bench, contestant.codec, copies)
        cpu_us = cpu_cost.measure(bench, contestant, events[contestant.codec])
        row.cpu_us_per_event = round(cpu_us, 2)
        bench.progress.say(f"{contestant.row}: {cpu_us:.2f} us of CPU an event")


if __name__ == "__main__":
    main()
