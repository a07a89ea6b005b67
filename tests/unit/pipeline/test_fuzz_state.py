"""Random bytes where states and commits are kept: found, never stepped, never another error."""

from __future__ import annotations

import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from livestep.pipeline.engine.commit_mark import CommitMark
from livestep.pipeline.state.pool import StateLayout, States
from livestep.pipeline.state.state_records import DamagedStateError, StateRecords
from livestep.pipeline.types import Offset

KEYS = [b"a", b"b", b"\0\xff"]

LAYOUT = StateLayout((torch.zeros(1, 2, 3), torch.zeros(1, 1, dtype=torch.int64)))

RECORDS = StateRecords(LAYOUT, "topic/group/model")

BEFORE = Offset(100)


def saved() -> list[bytes]:
    """Write the records of three keys."""
    states: States = LAYOUT.fresh(len(KEYS))
    states.offsets[:] = [7, 8, 9]
    states.timesteps[:] = [1, 2, 3]
    for number, tensor in enumerate(states.tensors):
        tensor += number + 1
    return RECORDS.write(0, KEYS, states)


def test_what_was_saved_is_read() -> None:
    read = RECORDS.read(0, KEYS, saved(), BEFORE)
    assert read.offsets.tolist() == [7, 8, 9] and read.timesteps.tolist() == [1, 2, 3]


@settings(max_examples=300)
@given(data=st.data())
def test_any_change_of_a_record_is_found(data: st.DataObject) -> None:
    # Given records of which one has been changed
    records = saved()
    row = data.draw(st.integers(0, len(KEYS) - 1))
    record = bytearray(records[row])
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "bytes", "other"]))
    if how == "flip":
        for at in data.draw(st.sets(st.integers(0, 8 * len(record) - 1), min_size=1, max_size=3)):
            record[at // 8] ^= 1 << (at % 8)
    elif how == "cut":
        del record[data.draw(st.integers(0, len(record) - 1)) :]
    elif how == "grow":
        record += data.draw(st.binary(min_size=1, max_size=40))
    elif how == "bytes":
        record = bytearray(data.draw(st.binary(max_size=2 * len(record))))
    else:
        record = bytearray(records[(row + 1) % len(KEYS)])
    records[row] = bytes(record)

    # When they are read, then the key is named, and no state comes out
    with pytest.raises(DamagedStateError) as caught:
        RECORDS.read(0, KEYS, records, BEFORE)
    assert repr(KEYS[row]) in caught.value.detail


@given(st.integers(0, 2), st.integers(1, 9), st.integers(0, 100))
def test_a_record_of_another_partition_or_from_the_future_is_found(
    row: int, partition: int, before: int
) -> None:
    records = saved()
    with pytest.raises(DamagedStateError):
        RECORDS.read(partition, KEYS, records, BEFORE)
    if before <= 9:
        with pytest.raises(DamagedStateError):
            RECORDS.read(0, KEYS, records, Offset(before))
    assert RECORDS.read(0, [KEYS[row]], [records[row]], BEFORE).offsets.tolist() == [7 + row]


@given(st.binary(max_size=60) | st.builds(struct.pack, st.just("<qqqq"), *[st.integers(-9, 9)] * 4))
def test_any_bytes_for_a_clock_are_found(record: bytes) -> None:
    with pytest.raises(DamagedStateError):
        RECORDS.read_clock(0, record, BEFORE)


numbers = st.one_of(
    st.integers().map(str), st.just("9" * 5_000), st.text("0123456789\u0663 -+", max_size=6)
)


@settings(max_examples=300)
@given(
    st.none()
    | st.text(max_size=60)
    | st.builds(
        "livestep/{} model={} partitions={} start={}{}".format,
        st.integers(0, 3),
        st.text("0123456789abcdefg", max_size=20),
        numbers,
        numbers,
        st.sampled_from(["", " topic=", " topic=F0YdD6hsSjSV4NI4+FmdVA"]),
    )
)
def test_any_metadata_of_a_commit_is_a_mark_or_none(text: str | None) -> None:
    mark = CommitMark.from_text(text)
    if mark is not None:
        assert 0 <= mark.partitions < 1 << 63 and 0 <= mark.start < 1 << 63
        assert CommitMark.from_text(mark.to_text()) == mark
