"""Compare the native codec with the Python codec on a million changed events.

    python -m tests.native_fuzz --values 1000000 --seed 1 --library debug/lib_native.so

Give it the library of `cargo build --manifest-path pipeline/native/Cargo.toml`, which has debug
assertions. Ends with exit code 1 at the first difference.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

from livestep.pipeline.batch.codec import Codec
from tests.hostile.hostile_records import KINDS
from tests.support.fuzzed_values import codec_of

#: What is put into an event: the tokens of JSON, and what is on the border of what they allow.
TOKENS = [
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b"false", b" ", b"\n", b'""'),
    *(b"-", b"0", b"1", b".", b"e", b"E", b"+", b"-0", b"2", b"-7", b"12", b"NaN", b"1e39"),
    *(b"3.4028235677973366e38", b"1e-46", b"16777217", b"9007199254740993"),
    *(b"18446744073709551616", b'"start":true,', b'"end":true,', b'"steps_max":3,'),
    *(b"\\u0061", b"\xff", b"\xc3\xa9", b"\xf0\x9f\x98\x80"),
]

BATCH = 500


def load(path: Path) -> ModuleType:
    """Import a library that is not in the package."""
    spec = importlib.util.spec_from_file_location("_native", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def changed(value: bytes, dice: random.Random) -> bytes:
    """Change a few places of a value; return at least one byte."""
    found = bytearray(value)
    for _ in range(dice.choice([0, 1, 1, 1, 2, 3])):
        at = dice.randint(0, len(found))
        what = dice.random()
        if what < 0.25:
            del found[at : at + dice.randint(1, 6)]
        elif what < 0.6:
            found[at:at] = dice.choice(TOKENS)
        elif what < 0.7 and at < len(found):
            found[at] ^= 1 << dice.randint(0, 7)
        elif what < 0.9:
            found[at : at + dice.randint(1, 4)] = dice.choice(TOKENS)
        else:
            found[at : at + dice.choice([0, 8])] = number(dice)
    return bytes(found) or b"{}"


def number(dice: random.Random) -> bytes:
    """Spell a number with any exponent, any number of digits, or as an integer."""
    digits = 10 ** dice.randint(1, 25)
    texts = [
        repr(dice.uniform(-1, 1) * 10.0 ** dice.randint(-50, 40)),
        str(dice.randint(-digits, digits)),
        f"{dice.gauss(0, 10):.{dice.randint(0, 30)}f}",
    ]
    return dice.choice(texts).encode()


def difference(values: list[bytes], library: ModuleType, pair: tuple[Codec, Codec]) -> str | None:
    """Read values with both codecs; return the first difference, or None."""
    is_read = np.ones(len(values), bool)
    native, python = (codec.read(library.ByteColumn(values), is_read, {}) for codec in pair)
    for i, value in enumerate(values):
        for name in ("inputs", "marks", "steps_max"):
            one, other = getattr(native, name)[i], getattr(python, name)[i]
            if one.tobytes() != other.tobytes():
                return f"{value!r}: {name} {one} natively, {other} in Python"
        errors = [str(found.errors.get(i)) for found in (native, python)]
        if errors[0] != errors[1]:
            return f"{value!r}: {errors[0]} natively, {errors[1]} in Python"
    return None


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--library", type=Path, required=True)
    options = parser.parse_args()
    library = load(options.library)
    dice = random.Random(options.seed)
    pairs = {name: (codec_of(kind, library), codec_of(kind, None)) for name, kind in KINDS.items()}
    for _ in range(0, options.values, BATCH):
        name = dice.choice(sorted(pairs))
        known = [row.value for row in KINDS[name].rows if row.value and len(row.value) < 500]
        values = [changed(dice.choice([*KINDS[name].good, *known]), dice) for _ in range(BATCH)]
        if found := difference(values, library, pairs[name]):
            print(f"{name}: {found}")
            return 1
    print(f"{options.values:,} values, seed {options.seed}: no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
