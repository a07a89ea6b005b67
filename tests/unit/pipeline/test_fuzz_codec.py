"""Random bytes and random changes to good events: an event or a dead letter, nothing else."""

from __future__ import annotations

import json
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestep.models.model_errors import FieldReason
from livestep.pipeline.batch.codec import Codec
from livestep.pipeline.batch.marks import marks_of
from livestep.pipeline.batch.packing import pack
from livestep.pipeline.clients.readers import decode_float32, decode_json
from livestep.pipeline.columns.log_records import records_of
from livestep.pipeline.errors import DecodeError
from livestep.pipeline.memory.memory_broker import MemoryRecord
from livestep.pipeline.records import (
    Source,
    dead_letter_headers,
    read_dead_letter_headers,
    read_prediction_headers,
)
from tests.hostile.hostile_records import KINDS, Row
from tests.support.fuzzed_values import CODECS, duplicated, json_values, values

#: Every reason that a value or a mark can be given; those of keys and steps come later.
REASONS = {
    *get_args(FieldReason),
    *("not-json", "not-float32", "bad-mark", "bad-steps-max", "empty-value", "value-too-long"),
    *("no-key", "key-too-long", "bad-header"),
}


def judged(codec: Codec, value: bytes) -> str | None:
    """Decode; give the reason of a refusal, None for an event."""
    try:
        row = codec.decode(value)
    except DecodeError as error:
        assert error.detail
        return error.reason
    inputs, _, _ = codec.to_arrays([row])
    assert inputs.dtype == np.float32 and len(inputs) == 1
    return None


@settings(max_examples=400)
@given(values)
def test_any_value_is_an_event_or_refused_with_a_known_reason(named: tuple[str, bytes]) -> None:
    reason = judged(CODECS[named[0]], named[1])
    assert reason is None or reason in REASONS


@settings(max_examples=250)
@given(duplicated())
def test_members_that_stand_there_twice_are_read_or_refused(named: tuple[str, bytes]) -> None:
    reason = judged(CODECS[named[0]], named[1])
    assert reason is None or reason in REASONS


header_names = st.sampled_from(["sequence", "steps-max", "source", "trace", ""])
headers = st.lists(
    st.tuples(
        header_names,
        st.none()
        | st.binary(max_size=12)
        | st.sampled_from([b"start", b"end", b"start,end", b"3", b"0", b"9" * 5_000]),
    ),
    max_size=4,
)


@given(headers)
def test_any_headers_are_marks_or_refused(found: list[tuple[str, bytes | None]]) -> None:
    try:
        marks, steps = marks_of(found)
    except DecodeError as error:
        assert error.reason in ("bad-mark", "bad-steps-max")
    else:
        assert marks in (0, 1, 2, 3) and steps >= 0


records = st.lists(
    st.builds(
        lambda named, key, found: Row("fuzz", "", named[1] if named else None, key, found),
        st.none() | values,
        st.sampled_from([b"k", b"other", b"", None, b"\0\xff", b"z" * 2_000]),
        headers,
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=200)
@given(st.sampled_from(["plain", "fields", "float32", "generating"]), records, st.data())
def test_good_neighbours_are_read_exactly_as_if_they_were_alone(
    name: str, fuzzed: list[Row], data: st.DataObject
) -> None:
    # Given good events with anything between them
    codec = CODECS[name]
    goods = [Row("good", "", value) for value in KINDS[name].good for _ in range(3)]
    mixed = data.draw(st.permutations([*goods, *fuzzed]))

    def packed(rows: list[Row]) -> Any:
        found = [
            MemoryRecord(("events", 0, i), (row.key, row.value), 0, list(row.headers))
            for i, row in enumerate(rows)
        ]
        return pack(records_of("events", found), codec, key_bytes_max=1_000, value_bytes_max=1_000)

    # When they are packed together, and the good ones alone
    batch = packed(mixed)
    alone = packed([row for row in mixed if row.name == "good"])

    # Then each record is an event or a dead letter, and the good ones have the same numbers
    assert len(batch.records) + len(batch.dead) == len(mixed)
    assert {letter.reason for letter in batch.dead} <= REASONS
    kept = [i for i, offset in enumerate(batch.offsets.tolist()) if mixed[offset].name == "good"]
    assert len(kept) == len(goods)
    assert batch.inputs[kept].tobytes() == alone.inputs.tobytes()
    assert batch.marks[kept].tolist() == alone.marks.tolist()
    assert batch.steps_max[kept].tolist() == alone.steps_max.tolist()
    assert {batch.keys[int(batch.key_index[i])] for i in kept} == {(0, b"k")}


our_names = st.sampled_from(
    ["source", "timestep", "model", "step", "finish", "ended-by"]
    + ["dead-letter-reason", "dead-letter-detail", "trace"]
)
any_headers = st.lists(
    st.tuples(
        our_names,
        st.none()
        | st.binary(max_size=10)
        | st.sampled_from([b"events/0/1", b"7", b"9" * 5_000, b"e/0/" + b"9" * 5_000, b"e/-1/+1"]),
    ),
    max_size=9,
)


@settings(max_examples=200)
@given(any_headers)
def test_headers_of_any_record_are_read_or_refused(found: list[tuple[str, bytes | None]]) -> None:
    for read in (read_prediction_headers, read_dead_letter_headers):
        try:
            read(found)
        except DecodeError as error:
            assert error.reason == "bad-header"


@given(any_headers, st.text(max_size=50))
def test_a_dead_letter_keeps_whatever_headers_its_record_has(
    own: list[tuple[str, bytes | None]], detail: str
) -> None:
    source = Source("events", 3, 5)
    written = dead_letter_headers(own, "not-json", detail, source)
    reason, _, place, kept = read_dead_letter_headers(written)
    assert (reason, place, list(kept)) == ("not-json", source, own)


@pytest.mark.parametrize("decode", [decode_json, decode_float32])
@given(value=st.binary(max_size=40) | json_values.map(lambda one: json.dumps(one).encode()))
def test_any_value_of_a_prediction_is_read_or_refused(decode: Any, value: bytes) -> None:
    try:
        decode(value)
    except DecodeError as error:
        assert error.reason in ("not-json", "not-float32", "wrong-length")
