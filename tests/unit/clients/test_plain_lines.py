"""Plain lines of JSON take a short path: they become the same records as they would as rows."""

from __future__ import annotations

import io
import itertools
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livestep.models.disk.model_json import ModelFile
from livestep.models.fields.field_types import Category, Number, Text
from livestep.models.sequences.rules import SequenceRules
from livestep.pipeline.clients.event_record import EventRecord
from livestep.pipeline.publishing.columns import BadRow, EventColumns, RowConverter
from livestep.pipeline.publishing.files import BLOCK_BYTES, json_row, read_line_blocks
from livestep.pipeline.publishing.json_records import JsonRecords
from livestep.pipeline.publishing.limits import TopicLimits
from livestep.pipeline.publishing.plain_events import plain_event_type
from livestep.pipeline.publishing.values import JsonValues, ModelValues, Values

NOW_MS = 1_700_000_000_000

LIMITS = TopicLimits(
    max_message_bytes=300, after_max_ms=3_600_000, before_max_ms=86_400_000, clock_ms=lambda: NOW_MS
)

FIELDS = (
    Number("a"),
    Number("b", optional=True),
    Number("v", size=2, optional=True),
    Category("c", ("x", "ü"), optional=True),
)

COLUMNS = [
    EventColumns(("k",)),
    EventColumns(("k",), timestamp="t"),
    EventColumns(("k", "a")),
    EventColumns(fixed_key="all", has_marks=True),
    EventColumns(("k",), has_marks=True, timestamp="end"),
    EventColumns((), values=("a", "k", "start")),
    EventColumns(("k",), forget="b", missing=("x",)),
]


def values_of(columns: EventColumns, has_model: bool) -> Values:
    if not has_model:
        return JsonValues(columns.values, columns.taken_out, is_csv=False)
    description = ModelFile(
        cell="GRU",
        sizes={},
        dtype="float32",
        rules=SequenceRules(),
        inputs=FIELDS,
        outputs=(Number("y"),),
        codec="json",
    )
    return ModelValues(description, columns.values, columns.marks, is_csv=False)


def as_rows(text: bytes, columns: EventColumns, values: Values) -> list[EventRecord | BadRow]:
    """Convert each line as a row, with all checks."""
    converter = RowConverter(columns, values, LIMITS.check)
    records: list[EventRecord | BadRow] = []
    for number, line in enumerate(io.BytesIO(text).readlines(), start=1):
        row = json_row(len(records) + 1, number, line)
        if row is not None:
            records.append(converter.record_of(row))
    return records


numbers = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -0.0, 1e39, 3.5e38, 2**63, 2**64, NOW_MS, NOW_MS - 86_400_001, 5, True]),
)
texts = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["x", "ü", 'a":b', "\x00\x7f\u2028", "", "1", "y" * 250]),
    st.sampled_from(["2023-11-14T22:13:20Z", "1700000000000", "-5"]),
)
simple = st.one_of(numbers, texts, st.none(), st.booleans())
members = st.one_of(simple, simple, simple, st.lists(simple, max_size=3))
nested = st.one_of(members, members, st.dictionaries(st.sampled_from(["k", "z"]), simple))
names = st.sampled_from(["k", "t", "a", "b", "v", "c", "start", "end", "steps_max", "é:"])
objects = st.dictionaries(names, nested, max_size=6)
plain_objects = st.fixed_dictionaries(
    {"k": st.sampled_from(["key", "ü", 7]), "a": st.floats(-10, 10)},
    optional={"b": numbers, "t": st.integers(NOW_MS - 86_000_000, NOW_MS), "c": st.just("x")},
)


def written(value: Any, style: int) -> bytes:
    """Write a value as JSON, with or without spaces and escapes."""
    separators = [(",", ":"), (", ", ": "), (" ,", " : ")][style % 3]
    return json.dumps(value, ensure_ascii=style % 2 == 0, separators=separators).encode(
        "utf-8", "replace"
    )


lines = st.one_of(
    st.builds(written, objects, st.integers(0, 5)),
    st.builds(written, plain_objects, st.integers(0, 5)),
    st.builds(written, st.one_of(members), st.just(0)),
    st.sampled_from([b"", b" ", b'{"k":1,"k":2}', b'{"k":"a","a":1}\r', b"{", b'{"k":"\xff"}']),
    st.sampled_from([b'{"k":"a","a":1e999}', b'{"k":"\\ud800","a":1}', b'{"k":"a","a":1.50}']),
)


@given(
    text=st.lists(lines, max_size=8).map(b"\n".join),
    columns=st.sampled_from(COLUMNS),
    has_model=st.booleans(),
)
def test_lines_become_the_same_records_as_rows(
    text: bytes, columns: EventColumns, has_model: bool
) -> None:
    values = values_of(columns, has_model)
    batches = JsonRecords(columns, values, LIMITS).batches([io.BytesIO(text).readlines()])
    assert list(itertools.chain(*batches)) == as_rows(text, columns, values)


class Counted(JsonValues):
    """Counts the values that need a second look."""

    count = 0

    def features(self, members: Any) -> dict[str, Any]:
        self.count += 1
        return super().features(members)


@pytest.mark.parametrize(
    "line",
    [
        b'{"k":"a","a":1,"b":-2.5e3,"c":"ok","d":null,"e":true}\n',
        b'{"k": 17, "a": 1}\r\n',
        b'{"k":"a","t":"2023-11-14T22:13:20Z","a":"12:30"}\n',
        '{"a":"ü","k":"ü"}\n'.encode(),
    ],
)
def test_ordinary_lines_are_plain(line: bytes) -> None:
    columns = EventColumns(("k",), timestamp="t" if b'"t"' in line else None)
    values = Counted((), columns.taken_out, is_csv=False)
    batches = JsonRecords(columns, values, LIMITS).batches([[line] * 100])
    assert all(isinstance(record, EventRecord) for batch in batches for record in batch)
    # The first event is always converted as a row.
    assert values.count == 1


def test_a_line_that_is_nested_too_deeply_is_a_bad_row() -> None:
    deep = b'{"k":"a","x":' + b'{"y":' * 1_000 + b"1" + b"}" * 1_001 + b"\n"
    lines = [b'{"k":"a"}\n', deep, b'{"k":"b"}\n']
    values = values_of(COLUMNS[0], has_model=False)
    batches = JsonRecords(COLUMNS[0], values, LIMITS).batches([lines])
    first, bad, last = itertools.chain(*batches)
    assert isinstance(bad, BadRow)
    assert "nested too deeply" in bad.reason
    assert (first.number, last.number) == (1, 3)


def test_a_text_input_is_checked_as_a_row() -> None:
    assert plain_event_type([Number("a"), Text("word", "abc", 3)]) is None


# ---- blocks of lines


@given(
    text=st.lists(st.sampled_from([b"", b"a", b"\r", b"b" * 7]), max_size=20).map(b"\n".join),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9),
)
def test_blocks_have_all_lines_wherever_reading_stops(text: bytes, sizes: list[int]) -> None:
    class Pipe(io.BytesIO):
        """Returns a few bytes at once, as a pipe may."""

        def read1(self, size: int | None = -1, /) -> bytes:
            sizes.append(sizes.pop(0))
            return self.read(sizes[-1])

    blocks = list(read_line_blocks(Pipe(text)))
    assert [line for block in blocks for line in block] == io.BytesIO(text).readlines()
    # Only the end of the file can lack a line end.
    assert all(line.endswith(b"\n") for block in blocks[:-1] for line in block)


def test_a_block_is_small_whatever_the_size_of_the_file() -> None:
    text = orjson.dumps({"k": "a", "x": [0.5] * 12}) + b"\n"
    blocks = read_line_blocks(io.BytesIO(text * 20_000))
    assert max(sum(map(len, block)) for block in blocks) <= BLOCK_BYTES + len(text)
