"""Results: `results/<date>.json`, and the tables in the documentation that are made from it."""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec

from tests.support.rig.machine import Machine

RESULTS = Path(__file__).with_name("results")

#: Pages with a table, and the NAME of its markers, `<!-- NAME -->` and `<!-- /NAME -->`.
TABLE, SHAPES_TABLE = ("README.md", "bench"), ("docs/speed.md", "bench-shapes")

#: Rows of the same net, by which what a state costs is seen.
TWINS = ("one-to-one", "synchronized")


class Row(msgspec.Struct, kw_only=True):
    """A line of the results; None is what was not measured.

    Attributes:
        row: Its name for `--rows`.
        events_per_s: Median of `runs`.
        runs: Events per second of each run.
        latency_events_per_s: The steady rate at which p50 and p99 were taken.
        wrong: Sum over all runs, as `missing` and `duplicate`.
        deviation: Largest |output - unroll| of a right output.
        rss_mb: The most memory of the process over all runs, in 10^6 bytes.
        cpu_us_per_event: CPU time of each event, all threads, without the process' start.
    """

    row: str
    system: str
    version: str
    guarantee: str
    durable: bool
    codec: str
    events: int
    keys: int
    events_per_s: int
    runs: list[int]
    latency_events_per_s: int | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    wrong: int
    missing: int
    duplicate: int
    deviation: float
    rss_mb: int | None
    cpu_us_per_event: float | None = None


class Memory(msgspec.Struct, kw_only=True):
    """Memory of a worker while keys grow past its pool, and of a live key.

    Attributes:
        state_bytes: Bytes of one key's hidden state as the model has it.
        pool_slots: Size of the worker's pool.
        rss_mb_by_keys: Memory of the worker, in 10^6 bytes, after so many keys.
        redis_bytes_a_key: Of Redis' MEMORY USAGE.
        redis_record_bytes: What we write for a key, without its name.
        pool_array_bytes_a_key: Arrays and tensors of the pool.
        pool_total_bytes_a_key: With what Python needs to find a slot by its key.
    """

    state_bytes: int
    pool_slots: int
    rss_mb_by_keys: dict[int, int]
    redis_bytes_a_key: int
    redis_record_bytes: int
    pool_array_bytes_a_key: int | None = None
    pool_total_bytes_a_key: int | None = None


class ShapeRow(msgspec.Struct, kw_only=True):
    """A shape of sequence, run by livestep, exactly-once, with JSON.

    Attributes:
        row: Its name.
        net: What was stepped.
        events: In the input topic.
        records: In the output topic, of one run.
        events_per_s: Median of `runs`.
        records_per_s: In the same time.
        runs: Events per second of each run.
        audited_events: Events of the keys that the independent judge has looked at, of one run.
        wrong: What that has found, as `missing` and `duplicate`; of the two, of all keys' answers
            how many there are too few or too many, if that is more.
        deviation: Largest |prediction - truth|.
        rss_mb: The most memory of the process over all runs, in 10^6 bytes.
    """

    row: str
    shape: str
    net: str
    events: int
    records: int
    events_per_s: int
    records_per_s: int
    runs: list[int]
    audited_events: int
    wrong: int
    missing: int
    duplicate: int
    deviation: float
    rss_mb: int | None


class GenerationSpeed(msgspec.Struct, kw_only=True):
    """Generation of many open sequences in one process, without Kafka.

    Attributes:
        net: What generates.
        device: Where, "cpu" with one thread.
        sequences: That are open at the same time.
        records: That all of them give.
        together_ms: For all of them advancing together: one model call a step.
        one_by_one_ms: For one after another, by the same code.
        offline_ms: For one after another, by `models.generate`, which is made to be read.
        different: Sequences that are not the same in all three.
    """

    net: str
    device: str
    sequences: int
    records: int
    together_ms: float
    one_by_one_ms: float
    offline_ms: float
    different: int


class Results(msgspec.Struct, kw_only=True):
    """What one call of the benchmark gave."""

    date: str
    machine: Machine
    rows: list[Row]
    memory: Memory | None = None
    shapes: list[ShapeRow] = []
    generation: GenerationSpeed | None = None
    minutes: float = 0.0


def write(results: Results, directory: Path = RESULTS) -> Path:
    """Write results under their date; a later call on the same day replaces them."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{results.date}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    return path


def read(path: Path) -> Results:
    """Read results, strictly."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def today() -> str:
    """Return the date that names the results."""
    return datetime.date.today().isoformat()


def table(results: Results) -> str:
    """Format the rows in Markdown, the fastest first.

    Latency at another rate than that of the first row is marked by the rate.
    """
    lines = [
        "| system | guarantee | codec | events/s | p50 / p99 ms (at events/s) | "
        "wrong / missing / duplicate | memory MB |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for row in sorted(results.rows, key=lambda row: -row.events_per_s):
        latency = "-"
        if row.p50_ms is not None and row.latency_events_per_s is not None:
            latency = f"{row.p50_ms:,.0f} / {row.p99_ms:,.0f} ({row.latency_events_per_s:,})"
        cells = [
            row.system if row.system.endswith(row.version) else f"{row.system} {row.version}",
            row.guarantee + ("" if row.durable else ", no state"),
            row.codec,
            f"{row.events_per_s:,}",
            latency,
            f"{row.wrong} / {row.missing} / {row.duplicate}",
            "-" if row.rss_mb is None else f"{row.rss_mb:,}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    machine = results.machine
    lines += [
        "",
        f"{results.date}, {machine.processor}, {machine.cores} cores shared by broker, Redis, "
        f"load and worker; Kafka {machine.kafka}, torch {machine.torch} (CPU, one thread), "
        f"Java {machine.java}.",
    ]
    return "\n".join(lines)


def shapes_table(results: Results) -> str:
    """Format the shapes in Markdown, in their order, and what else there is to say of them."""
    lines = [
        "| shape | net | events/s in | records/s out | wrong / missing / duplicate "
        "(events judged) | memory MB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in results.shapes:
        cells = [
            row.shape,
            row.net,
            f"{row.events_per_s:,}",
            f"{row.records_per_s:,}",
            f"{row.wrong} / {row.missing} / {row.duplicate} ({row.audited_events:,})",
            "-" if row.rss_mb is None else f"{row.rss_mb:,}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    notes = []
    rates = {row.row: row.events_per_s for row in results.shapes}
    if all(rates.get(twin) for twin in TWINS):
        first, second = (rates[twin] for twin in TWINS)
        notes.append(f"One-to-one is {first / second:.2f} times as fast as synchronized.")
    if (speed := results.generation) is not None:
        notes.append(
            f"Generation alone ({speed.net}, {speed.device}, one thread): {speed.sequences:,} open "
            f"sequences, {speed.records:,} records, take {speed.together_ms:,.0f} ms together, "
            f"{speed.one_by_one_ms:,.0f} ms one after another: "
            f"{speed.one_by_one_ms / speed.together_ms:,.0f} times as long; the offline twin takes "
            f"{speed.offline_ms:,.0f} ms ({speed.offline_ms / speed.together_ms:,.0f} times). "
            f"Sequences that are not the same in all three: {speed.different}."
        )
    return "\n".join([*lines, "", " ".join(notes)]).rstrip()


def update_pages(root: Path, results: Results) -> list[str]:
    """Put the tables between the markers of their pages; one that was not measured is kept.

    Args:
        root: The project's folder.
        results: What was measured.

    Returns:
        pages: Those that have a new table.

    Raises:
        ValueError: If a page lacks its markers; the pages before it are written.
    """
    tables = {TABLE: table(results) if results.rows else ""}
    tables[SHAPES_TABLE] = shapes_table(results) if results.shapes else ""
    written = []
    for (page, name), content in tables.items():
        if not content:
            continue
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, has_start, rest = (root / page).read_text(encoding="utf-8").partition(start)
        _, has_end, after = rest.partition(end)
        if not (has_start and has_end):
            raise ValueError(f"{page} has no {start} or no {end}")
        (root / page).write_text(f"{before}{start}\n{content}\n{end}{after}", encoding="utf-8")
        written.append(page)
    return written
