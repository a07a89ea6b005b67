"""Random bytes and random changes to model directories: they load, or raise ModelError."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livestep import ModelError, load_model
from livestep.models.disk.model_json import decode_description
from tests.hostile.model_directories import JSON, WEIGHTS, make_good


class Good:
    """A valid directory, and a place for corrupted copies of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_good(folder)
        self.json, self.weights = ((folder / name).read_bytes() for name in (JSON, WEIGHTS))

    def loads(self, name: str, content: bytes) -> bool:
        """Return whether the directory loads with another content of one file."""
        (self.folder / JSON).write_bytes(self.json)
        (self.folder / WEIGHTS).write_bytes(self.weights)
        (self.folder / name).write_bytes(content)
        try:
            load_model(self.folder)
        except ModelError as error:
            assert str(error)
            return False
        return True


@pytest.fixture(scope="module")
def good() -> Iterator[Good]:
    with tempfile.TemporaryDirectory() as folder:
        yield Good(Path(folder))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, 2**31, 2**63, 10**30, 10**6, -1, 1_000])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
    | st.sampled_from(["GRU", "LSTM", "Glimpses", "EncoderDecoder", "torchscript", "os:system"])
    | st.sampled_from(["number", "category", "text", "json", "float32", "one-to-many", "index"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for name, one in inner:
        yield (*path, name)
        if isinstance(one, dict | list):
            yield from places(one, (*path, name))


@settings(max_examples=150)
@given(data=st.data())
def test_any_value_in_any_place_of_a_description_is_accepted_or_refused(
    good: Good, data: st.DataObject
) -> None:
    # Given a description with some of its values replaced or removed
    members = json.loads(good.json)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(sorted(places(members), key=repr)))
        where = members
        for name in path[:-1]:
            where = where[name]
        if data.draw(st.booleans()):
            where[path[-1]] = data.draw(anything)
        else:
            del where[path[-1]]

    # When it is loaded, then it is refused, or is still the same model
    changed = json.dumps(members).encode()
    assert not good.loads(JSON, changed) or load_model(good.folder).fingerprint


@settings(max_examples=150)
@given(content=st.binary(max_size=100) | anything.map(lambda one: json.dumps(one).encode()))
def test_any_bytes_for_a_description_are_refused(content: bytes) -> None:
    with pytest.raises(ModelError):
        decode_description(content, None)


@settings(max_examples=150)
@given(data=st.data())
def test_no_changed_weights_load(good: Good, data: st.DataObject) -> None:
    # Given weights with flipped bits, truncated, or with bytes inserted
    content = bytearray(good.weights)
    for _ in range(data.draw(st.integers(1, 3))):
        # The header, which says what is where, more often than its share.
        at = data.draw(st.integers(0, len(content)) | st.integers(0, 600))
        what = data.draw(st.sampled_from(["flip", "cut", "insert", "shorten"]))
        if what == "flip":
            content[min(at, len(content) - 1)] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "cut":
            del content[at : at + data.draw(st.integers(1, 20))]
        elif what == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            del content[at:]
        content = content or bytearray(1)

    # When they are loaded, then the fingerprint finds it at the latest; spaces have no meaning
    if good.loads(WEIGHTS, bytes(content)):
        tensors = good.weights[8 + int.from_bytes(good.weights[:8], "little") :]
        assert bytes(content).endswith(tensors)
