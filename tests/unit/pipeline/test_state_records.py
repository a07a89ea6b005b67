"""States as bytes: written, read again bit by bit, and told from what was not written so."""

import numpy as np
import pytest
import torch

from livestep import GRU, LSTM
from livestep.pipeline.state.pool import CLOCK, ENDED, StateLayout
from livestep.pipeline.state.state_records import DamagedStateError, StateRecords
from livestep.pipeline.types import NO_TIME
from tests.support.states import LAYOUT, states

RECORDS = StateRecords(LAYOUT, "events/group/aa")
KEYS = [b"a", b"b", b"c"]


@pytest.mark.parametrize("net", [GRU(2, 3, 1, num_layers=2), LSTM(2, 3, 1)])
def test_records_hold_offset_timesteps_and_state_bit_by_bit(net):
    layout = StateLayout(net.initial_state(1))
    records = StateRecords(layout, "events/group/aa")
    states_written = states(5, 0, 2**40, layout=layout)
    written = records.write(0, KEYS, states_written)
    assert {len(record) for record in written} == {records.record_bytes}
    assert written[2][:8] == (2**40).to_bytes(8, "little")
    assert written[0][8:16] == (50).to_bytes(8, "little")
    read = records.read(0, KEYS, written, before=2**40 + 1)
    assert read.offsets.tolist() == [5, 0, 2**40]
    assert read.timesteps.tolist() == states_written.timesteps.tolist()
    for one, other in zip(read.tensors, states_written.tensors, strict=True):
        assert torch.equal(one, other)


def test_the_bytes_of_a_record_are_the_same_everywhere_and_always():
    # What one machine writes another one reads: XXH3-64 in its canonical form, little-endian
    # numbers before it.
    (written,) = RECORDS.write(3, [b"key"], states(7))
    header, numbers, checksum = (
        "07000000000000004600000000000000",
        "0000e040" * 3,
        "0e221bd1be48523c",
    )
    assert written.hex() == header + numbers + checksum


def test_no_states_make_no_records():
    assert RECORDS.write(0, [], LAYOUT.fresh(0)) == []


def test_of_a_sequence_that_has_ended_there_is_a_header_alone():
    found = states(1, 2)
    found.timesteps[1] = ENDED
    first, second = RECORDS.write(0, [b"a", b"b"], found)
    assert len(first) == RECORDS.record_bytes
    assert second == (2).to_bytes(8, "little") + b"\xff" * 8


def test_every_bit_that_is_turned_is_found_and_its_key_named():
    written = RECORDS.write(0, KEYS, states(1, 2, 3))
    for at in range(8 * RECORDS.record_bytes):
        changed = bytearray(written[1])
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(
            DamagedStateError, match="partition 0: the state of key b'b': its check"
        ):
            RECORDS.read(0, KEYS, [written[0], bytes(changed), written[2]], before=9)


@pytest.mark.parametrize("length", [0, 5, 15, 16, 27, 35, 37, 72])
def test_a_record_of_another_length_is_found_and_named(length):
    first, second, third = RECORDS.write(0, KEYS, states(1, 2, 3))
    with pytest.raises(DamagedStateError, match=rf"key b'c': it has {length} bytes, expected 36"):
        RECORDS.read(0, KEYS, [first, second, (third * 2)[:length]], before=9)


def test_the_number_of_damaged_states_is_reported():
    first, second, third = RECORDS.write(0, KEYS, states(1, 2, 3))
    with pytest.raises(DamagedStateError, match=r"key b'b' \(and 1 more\): its checksum"):
        RECORDS.read(0, KEYS, [first, third, second], before=9)


@pytest.mark.parametrize(
    "foreign",
    [
        StateRecords(LAYOUT, "events/group/bb").write(0, [b"a"], states(1)),
        StateRecords(LAYOUT, "events/other/aa").write(0, [b"a"], states(1)),
        RECORDS.write(1, [b"a"], states(1)),
        RECORDS.write(0, [b"b"], states(1)),
        RECORDS.write(0, [b""], states(1)),
    ],
    ids=["model", "group", "partition", "key", "clock"],
)
def test_a_record_is_right_in_its_own_place_only(foreign):
    with pytest.raises(DamagedStateError, match="checksum"):
        RECORDS.read(0, [b"a"], foreign, before=9)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda s: s.tensors[0].view(3, -1)[1].fill_(np.nan), "NaN or infinite"),
        (lambda s: s.tensors[0].view(3, -1)[1, 2:].fill_(-np.inf), "NaN or infinite"),
        (lambda s: s.offsets.put(1, 9), "seen an event at or after 9"),
        (lambda s: s.offsets.put(1, -1), "offset is negative"),
        (lambda s: s.timesteps.put(1, -2), "timesteps is negative"),
    ],
    ids=["NaN", "infinite", "future", "negative offset", "negative timesteps"],
)
def test_what_no_worker_has_saved_is_found_also_under_a_right_checksum(change, what):
    made = states(1, 2, 3)
    change(made)
    with pytest.raises(DamagedStateError, match=f"key b'b': it.*{what}"):
        RECORDS.read(0, KEYS, RECORDS.write(0, KEYS, made), before=9)


def test_a_first_state_that_is_infinite_itself_is_none_the_worse_for_it():
    # Given a model that begins with the smallest of all numbers: a running maximum
    layout = StateLayout(torch.full((1, 3), -torch.inf))
    records = StateRecords(layout, "events/group/aa")
    first = layout.fresh(1)
    first.offsets[:] = 4
    read = records.read(0, [b"a"], records.write(0, [b"a"], first), before=9)
    assert torch.equal(read.tensors[0], first.tensors[0])


def test_times_are_the_offset_and_the_clock_of_a_state_and_checked():
    layout = StateLayout(torch.zeros(1, 2), extras={CLOCK: torch.zeros(1, 1, dtype=torch.int64)})
    records = StateRecords(layout, "events/group/aa")
    found = layout.fresh(2)
    found.offsets[:] = [4, 5]
    found.tensors[1][:, 0] = torch.tensor([1_000, 2_000])
    written = dict(zip(KEYS, records.write(0, KEYS[:2], found), strict=False))
    assert list(records.times(0, written)) == [(4, 1_000, b"a"), (5, 2_000, b"b")]
    assert list(records.times(0, {})) == []
    with pytest.raises(DamagedStateError, match="key b'b': its checksum"):
        list(records.times(0, {b"a": written[b"a"], b"b": written[b"a"]}))


def test_a_clock_is_written_as_the_record_of_a_state_and_read_again():
    record = RECORDS.write_clock(0, 10, 123)
    assert record[:16] == (9).to_bytes(8, "little") + (1).to_bytes(8, "little")
    assert RECORDS.read_clock(0, record, 10) == 123
    assert RECORDS.read_clock(0, RECORDS.write_clock(0, 1, NO_TIME), 10) == NO_TIME
    assert RECORDS.read_clock(0, None, 10) == NO_TIME


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (b"", "0 bytes"),
        (RECORDS.write_clock(0, 10, 123)[:-8], "24 bytes"),
        (RECORDS.write_clock(0, 10, 123)[:-1] + b"?", "checksum"),
        (RECORDS.write_clock(1, 10, 123), "checksum"),
        (RECORDS.write_clock(0, 11, 123), "is 123 at offset 10.*below 10"),
        (RECORDS.write_clock(0, 10, -2), "is -2 at offset 9"),
    ],
    ids=["empty", "without checksum", "turned", "another partition's", "future", "negative"],
)
def test_a_clock_that_is_not_what_was_saved_is_found(record, what):
    with pytest.raises(DamagedStateError, match=f"partition 0: the clock.*{what}"):
        RECORDS.read_clock(0, record, 10)
