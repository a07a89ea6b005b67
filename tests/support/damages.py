"""Kinds of damage that somebody can do to states in the store, and what is to be said of each."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from livestep import LoadedModel
from livestep.pipeline.batch.stepping import Stepper
from livestep.pipeline.state.pool import States
from livestep.pipeline.state.state_records import CHECKSUM_BYTES, HEADER_BYTES, StateRecords

#: New value of each field of the hash; None deletes the field.
Changes = dict[bytes, bytes | None]


@dataclass(frozen=True)
class Scene:
    """A partition's hash, and two keys in it.

    Attributes:
        fields: The hash.
        partition: Index.
        key: The key whose state is damaged.
        other: Another one.
        model: Whose states these are.
        scope: Names topic, group and model to the checksums, as the worker does.
    """

    fields: dict[bytes, bytes]
    partition: int
    key: bytes
    other: bytes
    model: LoadedModel
    scope: str

    @property
    def record(self) -> bytes:
        """The record of the key."""
        return self.fields[b"k" + self.key]

    @property
    def body(self) -> bytes:
        """It without its checksum."""
        return self.record[:-CHECKSUM_BYTES]

    def state(self, **changes: int) -> States:
        """Read the state of the key, with other numbers in its header."""
        records = StateRecords(Stepper(self.model, torch.device("cpu")).layout, self.scope)
        found = records.read(self.partition, [self.key], [self.record], before=1 << 62)
        arrays = {name: np.array([value]) for name, value in changes.items()}
        return replace(found, **arrays)

    def write(self, states: States, *, scope: str | None = None, partition: int | None = None):
        """Change the record to these states, with a checksum that is right for the scope."""
        layout = Stepper(self.model, torch.device("cpu")).layout
        at = self.partition if partition is None else partition
        return self.put(*StateRecords(layout, scope or self.scope).write(at, [self.key], states))

    def put(self, record: bytes) -> Changes:
        """Change the record."""
        return {b"k" + self.key: record}


def _with(scene: Scene, number: float) -> States:
    found = scene.state()
    found.tensors[0].view(-1)[1] = number
    return found


def _turned(scene: Scene, at: int) -> Changes:
    changed = bytearray(scene.record)
    changed[at] ^= 1
    return scene.put(bytes(changed))


def _as_float64(scene: Scene) -> Changes:
    state = np.frombuffer(scene.body[HEADER_BYTES:], dtype="<f4").astype("<f8").tobytes()
    return scene.put(scene.body[:HEADER_BYTES] + state + scene.record[-CHECKSUM_BYTES:])


def _as_float16(scene: Scene) -> Changes:
    numbers = np.frombuffer(scene.body[HEADER_BYTES:], dtype="<f4").astype("<f2").tobytes()
    return scene.put(scene.body[:HEADER_BYTES] + numbers + numbers + scene.record[-CHECKSUM_BYTES:])


def _header(scene: Scene, offset_by: int = 0, timesteps_by: int = 0) -> Changes:
    offset, timesteps = struct.unpack_from("<qq", scene.record)
    header = struct.pack("<qq", offset + offset_by, timesteps + timesteps_by)
    return scene.put(header + scene.record[HEADER_BYTES:])


_CHECKSUM = "its checksum is wrong"

#: States that are changed: name, what is done, what the log says.
RECORDS: dict[str, tuple[Callable[[Scene], Changes], str]] = {
    "truncated": (lambda scene: scene.put(scene.record[:-5]), "bytes, expected"),
    "empty": (lambda scene: scene.put(b""), "it has 0 bytes, expected"),
    "the header alone": (lambda scene: scene.put(scene.record[:16]), "it has 16 bytes, expected"),
    "no record at all": (lambda scene: scene.put(b"hello"), "it has 5 bytes, expected"),
    "longer": (lambda scene: scene.put(scene.record + bytes(4)), "bytes, expected"),
    "of an older version, without a checksum": (lambda scene: scene.put(scene.body), ", expected"),
    "float64": (_as_float64, "bytes, expected"),
    "float16, of the same length": (_as_float16, _CHECKSUM),
    "a bit of the state turned": (lambda scene: _turned(scene, HEADER_BYTES + 2), _CHECKSUM),
    "a bit of the checksum turned": (lambda scene: _turned(scene, -1), _CHECKSUM),
    "zeros": (lambda scene: scene.put(bytes(len(scene.record))), _CHECKSUM),
    "an earlier offset": (lambda scene: _header(scene, offset_by=-1), _CHECKSUM),
    "an offset of the future": (lambda scene: _header(scene, offset_by=1 << 40), _CHECKSUM),
    "other timesteps": (lambda scene: _header(scene, timesteps_by=1), _CHECKSUM),
    "another key's": (lambda scene: scene.put(scene.fields[b"k" + scene.other]), _CHECKSUM),
    "another model's": (
        lambda scene: scene.write(scene.state(), scope=scene.scope[:-1] + "?"),
        _CHECKSUM,
    ),
    "another group's": (
        lambda scene: scene.write(scene.state(), scope="?" + scene.scope),
        _CHECKSUM,
    ),
    "another partition's": (
        lambda scene: scene.write(scene.state(), partition=scene.partition + 1),
        _CHECKSUM,
    ),
    "NaN": (lambda scene: scene.write(_with(scene, float("nan"))), "it is NaN or infinite"),
    "infinite": (lambda scene: scene.write(_with(scene, float("inf"))), "it is NaN or infinite"),
    "of the future, well made": (
        lambda scene: scene.write(scene.state(offsets=1 << 40)),
        "it has seen an event at or after",
    ),
    "of a negative offset, well made": (
        lambda scene: scene.write(scene.state(offsets=-2)),
        "its offset is negative",
    ),
    "of negative timesteps, well made": (
        lambda scene: scene.write(scene.state(timesteps=-2)),
        "its number of timesteps is negative",
    ),
}

#: Other fields than states that are changed; None where it does no harm, and nothing is said.
FIELDS: dict[str, tuple[Changes, str | None]] = {
    "applied no number": ({b"applied": b"ten"}, "field `applied` is b'ten', not a valid number"),
    "applied with a space": ({b"applied": b" 1"}, "field `applied` is b' 1', not a valid number"),
    "applied missing": ({b"applied": None}, "field `applied` is missing"),
    "applied behind": ({b"applied": b"0"}, None),
    "start no number": ({b"start": b"-"}, "field `start` is b'-', not a valid number"),
    "start missing": ({b"start": None}, "field `start` is missing"),
    "start later": ({b"start": b"1"}, "field `start` is 1, and the commit has 0"),
    "start beyond applied": ({b"start": b"9999"}, "field `start` is 9999, larger than `applied`"),
    "partitions no number": ({b"partitions": b""}, "field `partitions` is b'', not a valid number"),
    "another number of partitions": (
        {b"partitions": b"77"},
        "field `partitions` is 77, and the commit has",
    ),
    "saving in the middle of nothing": ({b"saving": b"0/9/1"}, None),
    "saving no number": ({b"saving": b"\xff"}, None),
    "a field of somebody else": ({b"note": b"was here"}, None),
}
