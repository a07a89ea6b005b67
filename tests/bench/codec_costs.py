"""What it costs to decode and encode values, with the native loops and in Python.

`python -m tests.bench.codec_costs` prints the table of docs/speed.md; no services are needed.
Nanoseconds of processor time for each record, the best of some runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import orjson

from livestep import Category, Number, Text
from livestep.pipeline.batch.codec import Codec, Float32Codec, JsonCodec
from livestep.pipeline.columns.byte_column import ByteColumn
from livestep.pipeline.native import native

_RECORDS, _RUNS = 20_000, 9

_WEATHER = ("sunny", "rainy", "cloudy", "foggy", "windy", "snowy", "stormy", "mild")


class Case(NamedTuple):
    """A wire format, with records of it.

    Attributes:
        name: What the records are.
        kind: The codec.
        inputs: The model's inputs.
        outputs: The model's outputs.
        values: Events.
        rows: (n, H_out) float32.  What the model returned.
    """

    name: str
    kind: type[Codec]
    inputs: list[Any]
    outputs: list[Any]
    values: list[bytes]
    rows: Any


def cases() -> list[Case]:
    """Make the records, always the same ones."""
    numbers = np.random.default_rng(0).standard_normal((_RECORDS, 12)).astype(np.float32)
    vectors = [orjson.dumps({"x": row}, option=orjson.OPT_SERIALIZE_NUMPY) for row in numbers]
    mixed = [
        orjson.dumps(
            {
                "degrees": float(row[0]),
                "weather": _WEATHER[int(abs(row[1]) * 3) % len(_WEATHER)],
                "word": "abcde"[: 1 + int(abs(row[2])) % 5],
                "dish": int(abs(row[3]) * 3) % 5,
            }
        )
        for row in numbers
    ]
    fields = [
        Number("degrees"),
        Category("weather", _WEATHER),
        Text("word", "abcdefghij", 10),
        Category("dish", tuple("01234"), optional=True),
    ]
    twelve, nine = [Number("x", 12)], [Number("y", 9)]
    labels = [Number("y"), Category("weather", _WEATHER)]
    raw = [row.tobytes() for row in numbers]
    rows = np.ascontiguousarray(numbers[:, :9])
    return [
        Case("JSON, 12 floats -> 9 floats", JsonCodec, twelve, nine, vectors, rows),
        Case("JSON, number, text, 2 categories -> label", JsonCodec, fields, labels, mixed, rows),
        Case("float32, 12 floats -> 9 floats", Float32Codec, twelve, nine, raw, rows),
    ]


def nanoseconds(work: Callable[[], object]) -> float:
    """Measure the processor time of a record."""
    best = float("inf")
    for _ in range(_RUNS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best / _RECORDS * 1e9


def costs(case: Case, library: ModuleType | None) -> tuple[float, float]:
    """Measure decoding and encoding."""
    codec = case.kind(case.inputs, case.outputs, library=library)
    column, is_read = ByteColumn(case.values), np.ones(len(case.values), bool)
    decode = nanoseconds(lambda: codec.read(column, is_read, {}))
    return decode, nanoseconds(lambda: codec.encode(case.rows))


def main() -> None:
    """Print the table."""
    print("| records | decode, Python | decode, native | encode, Python | encode, native |")
    print("|---|---:|---:|---:|---:|")
    for case in cases():
        python, natively = costs(case, None), costs(case, native)
        cells = (python[0], natively[0], python[1], natively[1])
        print(f"| {case.name} | " + " | ".join(f"{cell:,.0f}" for cell in cells) + " |")


if __name__ == "__main__":
    main()
