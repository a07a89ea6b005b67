"""The table from a key to its slot, native and in Python, against a plain dictionary."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from livestep.pipeline.columns.byte_column import PythonByteColumn
from livestep.pipeline.columns.key_table import PythonKeyTable
from livestep.pipeline.native import native

KITS = [pytest.param((PythonByteColumn, PythonKeyTable), id="Python")]
if native is not None:
    KITS.append(pytest.param((native.ByteColumn, native.KeyTable), id="native"))

SLOTS = 12

# Names around the length that the native table still stores in place.
NAMES = [b"", b"a", b"b", b"n" * 22, b"n" * 23, b"n" * 24, b"n" * 25, b"long" * 100, b"\0", b"\0\0"]


@pytest.fixture(params=KITS)
def kit(request):
    return request.param


def columns(kit, keys):
    partitions = np.array([partition for partition, _ in keys], dtype=np.int64)
    return partitions, kit[0]([name for _, name in keys])


def integers(*values):
    return np.array(values, dtype=np.int64)


def insert(kit, table, slot_of):
    table.insert(*columns(kit, list(slot_of)), np.arange(len(slot_of)), integers(*slot_of.values()))


def find(kit, table, keys):
    return table.find(*columns(kit, keys)).tolist()


class TableMachine(RuleBasedStateMachine):
    """Any operations leave a table with what a dictionary holds."""

    kit = None

    def __init__(self):
        super().__init__()
        self.table = self.kit[1](SLOTS)
        self.truth = {}

    @rule(keys=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(NAMES)), unique=True))
    def insert_new(self, keys):
        free = sorted(set(range(SLOTS)) - set(self.truth.values()), reverse=True)
        rows = [row for row, key in enumerate(keys) if key not in self.truth][: len(free)]
        slots = free[: len(rows)]
        self.table.insert(*columns(self.kit, keys), integers(*rows), integers(*slots))
        self.truth.update((keys[row], slot) for row, slot in zip(rows, slots, strict=True))

    @rule(data=st.data())
    def remove(self, data):
        slots = data.draw(st.sets(st.sampled_from(sorted(self.truth.values()) or [-1])))
        slots = [slot for slot in slots if slot >= 0]
        self.table.remove(integers(*slots))
        self.truth = {key: slot for key, slot in self.truth.items() if slot not in slots}

    @rule(partition=st.integers(0, 3))
    def forget(self, partition):
        expected = sorted(slot for key, slot in self.truth.items() if key[0] == partition)
        assert self.table.forget(partition).tolist() == expected
        self.truth = {key: slot for key, slot in self.truth.items() if key[0] != partition}

    @invariant()
    def holds_what_the_dictionary_holds(self):
        keys = [(partition, name) for partition in range(4) for name in NAMES]
        assert find(self.kit, self.table, keys) == [self.truth.get(key, -1) for key in keys]
        assert len(self.table) == len(self.truth)


@pytest.mark.parametrize("kit", KITS)
def test_any_operations_leave_what_a_dictionary_holds(kit):
    machine = type("Machine", (TableMachine,), {"kit": kit})
    case = machine.TestCase
    case.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
    case().runTest()


def test_many_keys_are_found_after_the_table_has_grown(kit):
    keys = [(row % 5, b"key-%d" % row) for row in range(20_000)]
    table = kit[1](len(keys))
    insert(kit, table, {key: slot for slot, key in enumerate(keys)})
    assert find(kit, table, keys) == list(range(len(keys)))
    table.remove(np.arange(0, 20_000, 2))
    assert find(kit, table, keys) == [slot if slot % 2 else -1 for slot in range(len(keys))]
    assert len(table) == 10_000


def test_a_slot_with_a_key_is_refused(kit):
    table = kit[1](SLOTS)
    insert(kit, table, {(0, b"a"): 3})
    with pytest.raises(ValueError, match="slot 3 has a key"):
        insert(kit, table, {(0, b"b"): 3})


def test_a_key_with_a_slot_is_refused(kit):
    table = kit[1](SLOTS)
    with pytest.raises(ValueError, match="a key has slot 3 already"):
        table.insert(*columns(kit, [(0, b"a"), (0, b"a")]), integers(0, 1), integers(3, 4))


def test_a_slot_without_a_key_is_not_removed(kit):
    with pytest.raises(ValueError, match="slot 3 has no key"):
        kit[1](SLOTS).remove(integers(3))


@pytest.mark.parametrize("slot", [-1, SLOTS])
def test_a_slot_out_of_range_is_refused(kit, slot):
    table = kit[1](SLOTS)
    with pytest.raises(ValueError, match=f"slot {slot} of {SLOTS}"):
        insert(kit, table, {(0, b"a"): slot})
    with pytest.raises(ValueError, match=f"slot {slot} of {SLOTS}"):
        table.remove(integers(slot))


@pytest.mark.parametrize("row", [-1, 1])
def test_a_row_out_of_range_is_refused(kit, row):
    with pytest.raises(ValueError, match=f"row {row} of 1"):
        kit[1](SLOTS).insert(*columns(kit, [(0, b"a")]), integers(row), integers(0))


@pytest.mark.parametrize("partition", [-1, 2**31])
def test_a_number_that_is_not_a_partition_is_refused(kit, partition):
    table = kit[1](SLOTS)
    for call in (
        lambda: find(kit, table, [(partition, b"a")]),
        lambda: insert(kit, table, {(partition, b"a"): 0}),
        lambda: table.forget(partition),
    ):
        with pytest.raises(ValueError, match=f"{partition} is not a partition"):
            call()


def test_columns_of_different_lengths_are_refused(kit):
    table = kit[1](SLOTS)
    with pytest.raises(ValueError, match="2 partitions for 1 keys"):
        table.find(integers(0, 0), kit[0]([b"a"]))
    with pytest.raises(ValueError, match="2 slots for 1 keys"):
        table.insert(*columns(kit, [(0, b"a")]), integers(0), integers(0, 1))


def test_a_missing_name_is_refused(kit):
    with pytest.raises(ValueError, match="key 0 is missing"):
        find(kit, kit[1](SLOTS), [(0, None)])
