"""Values of records for fuzzing: random bytes, any JSON, and changed events of each kind."""

from __future__ import annotations

import json
from types import ModuleType

from hypothesis import strategies as st

from livestep.pipeline.batch.codec import Codec, Float32Codec, JsonCodec
from livestep.pipeline.native import native
from tests.hostile.hostile_records import KINDS, Kind


def codec_of(kind: Kind, library: ModuleType | None = native) -> Codec:
    """Make the codec of a kind, with the native loops or in Python."""
    options = dict(kind.options)
    codec = {"json": JsonCodec, "float32": Float32Codec}[options.pop("codec", "json")]
    return codec(**options, library=library)


CODECS = {name: codec_of(kind) for name, kind in KINDS.items()}

names = st.sampled_from(sorted(CODECS))

#: JSON of all kinds, with the names that matter.
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["sunny", "1", "a", ".", 1, 5, 6, "\0"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["x", "start", "end", "steps_max", "before", "weather", "t", "word", "", "f0"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """Take a value of the table, good or bad, and change some of its bytes."""
    name = draw(names)
    short = [row.value for row in KINDS[name].rows if row.value and len(row.value) < 500]
    value = bytearray(draw(st.sampled_from([*KINDS[name].good, *short]))[:500])
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(value)))
        what = draw(st.sampled_from(["cut", "insert", "flip", "double"]))
        if what == "cut":
            del value[at : at + draw(st.integers(1, 8))]
        elif what == "insert":
            value[at:at] = draw(st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"[", b","]))
        elif what == "flip" and at < len(value):
            value[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "double":
            # A member twice, with another value: what is last counts for some readers.
            value[at:at] = value[: draw(st.integers(0, 60))]
    return name, bytes(value)


values = st.one_of(
    st.tuples(names, st.binary(max_size=60)),
    st.tuples(names, json_values.map(lambda value: json.dumps(value).encode())),
    mutated(),
)


@st.composite
def duplicated(draw: st.DrawFn) -> tuple[str, bytes]:
    """Write an object whose members may occur twice, with values of any kind."""
    name = draw(
        st.sampled_from([name for name in sorted(CODECS) if name not in ("float32", "wide")])
    )
    member = st.sampled_from(["x", "start", "end", "steps_max", "before", "weather", "t", "word"])
    some = st.sampled_from(["true", "false", "1", "9", "null", '"a"', '"sunny"', "[1,2,3]", "1e39"])
    pairs = draw(st.lists(st.tuples(member, some), max_size=6))
    return name, b"{%b}" % ",".join(f'"{key}":{value}' for key, value in pairs).encode()
