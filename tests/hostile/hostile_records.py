"""Records that a worker may meet: most can't be used, some look so and are good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from livestep import (
    GRU,
    Category,
    Feedback,
    Generation,
    Number,
    SequenceRules,
    StepModel,
    Text,
    VanillaRNN,
)

#: What happens to a record that is stepped and answered, or taken without an answer.
PREDICTED, TAKEN = "predicted", "taken, no answer"

#: Settings under which the table holds; all else is as by default.
VALUE_BYTES_MAX = 999_000

#: 2100-01-01 and year 292,278,994, milliseconds since 1970 UTC.
FAR_FUTURE_MS, END_OF_TIME_MS = 4_102_444_800_000, 2**63 - 1


class Row(NamedTuple):
    """One kind of record.

    Attributes:
        name: What it is.
        outcome: `PREDICTED`, `TAKEN`, or the reason of its dead letter.
        value: Its value.
        key: Its key; that of its good neighbours unless the key is what is bad.
        headers: Its headers.
        timestamp_ms: Its event time; 0 for that of its neighbours.
        is_for_memory_only: Whether Kafka itself would refuse or change it.
    """

    name: str
    outcome: str
    value: bytes | None
    key: bytes | None = b"k"
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp_ms: int = 0
    is_for_memory_only: bool = False


class Kind(NamedTuple):
    """A model, good events of it, and the records that it meets.

    Attributes:
        what: The model in words.
        good: Values of good neighbours, with marks in them where the model needs them.
        rows: The records.
        options: Of `save_model`: fields, codec, rules.
    """

    what: str
    good: tuple[bytes, ...]
    rows: tuple[Row, ...]
    options: dict[str, Any]

    def net(self) -> StepModel:
        """Make the net, always the same."""
        torch.manual_seed(0)
        inputs, outputs = (
            sum(field.width for field in self.options[side]) for side in ("inputs", "outputs")
        )
        if "fragile" not in self.what:
            return GRU(inputs, 4, outputs)
        net = VanillaRNN(inputs, 2, outputs)
        with torch.no_grad():
            for weight in net.parameters():
                weight.zero_()
            net.recurrent.weight_ih_l0.fill_(1.0)
            net.head.weight.fill_(2e38)  # tanh(0.1) twice is finite, tanh(10) twice is not
        return net


GOOD = b'{"x": [1, 2, 3]}'
DEEP = 100_000

#: As long as a key may be, with each byte in it.
LONG_KEY = (bytes(range(256)) * 4)[:1_000]


def x(second: str) -> bytes:
    """Write a good event, but for its second number."""
    return b'{"x": [1, %b, 3]}' % second.encode()


PLAIN = Kind(
    "three numbers, JSON",
    (GOOD,),
    (
        # What is not JSON.
        Row("an empty value", "empty-value", b""),
        Row("plain text", "not-json", b"x=1"),
        Row("half an object", "not-json", b'{"x": [1, 2'),
        Row("a good event and more behind it", "not-json", GOOD + b" 7"),
        Row("two events, a line each", "not-json", GOOD + b"\n" + GOOD),
        Row("a NUL byte behind a good event", "not-json", GOOD + b"\0"),
        Row("a NUL byte alone", "not-json", b"\0"),
        Row("a byte order mark before a good event", "not-json", b"\xef\xbb\xbf" + GOOD),
        Row("UTF-16", "not-json", GOOD.decode().encode("utf-16")),
        Row("a name that is not UTF-8", "not-json", b'{"x\xff": 1}'),
        Row("an unpaired surrogate in a name", "not-json", b'{"\\ud800": 1}'),
        Row("single quotes", "not-json", b"{'x': [1, 2, 3]}"),
        Row("a comma too many", "not-json", b'{"x": [1, 2, 3],}'),
        Row("a comment", "not-json", b"// good\n" + GOOD),
        Row("NaN", "not-json", x("NaN")),
        Row("Infinity", "not-json", x("-Infinity")),
        Row("a number with a leading zero", "not-json", x("01")),
        Row("a hexadecimal number", "not-json", x("0x10")),
        Row("100,000 lists in one another", "not-json", b"[" * DEEP + b"]" * DEEP),
        Row("the same for a feature", "not-json", b'{"x": ' + b"[" * DEEP + b"]" * DEEP + b"}"),
        Row("100,000 objects in one another", "not-json", b'{"x":' * DEEP + b"1" + b"}" * DEEP),
        Row("gzip", "not-json", b"\x1f\x8b\x08\0\0\0\0\0\x02\xff\xabV\xaaP"),
        Row("a pickle", "not-json", b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c"),
        # What is JSON and no event.
        Row("null", "not-an-object", b"null"),
        Row("a truth value", "not-an-object", b"true"),
        Row("a number", "not-an-object", b"7"),
        Row("a text", "not-an-object", b'"x"'),
        Row("a list", "not-an-object", b"[1, 2, 3]"),
        Row("an event in a list", "not-an-object", b"[" + GOOD + b"]"),
        Row("an object without members", "missing-feature", b"{}"),
        Row("a member too many", "unknown-feature", b'{"x": [1, 2, 3], "y": 1}'),
        Row("a member with a name in capitals", "unknown-feature", b'{"X": [1, 2, 3]}'),
        Row("a member whose name is NUL", "unknown-feature", b'{"x": [1, 2, 3], "\\u0000": 1}'),
        Row("a name of 900 KB", "unknown-feature", b'{"%b": 1}' % (b"\\u0001" * 150_000)),
        Row("too few numbers", "wrong-length", b'{"x": [1, 2]}'),
        Row("no numbers", "wrong-length", b'{"x": []}'),
        Row("too many numbers", "wrong-length", b'{"x": [1, 2, 3, 4]}'),
        Row("400,000 numbers", "wrong-length", b'{"x": [1' + b",1" * 399_999 + b"]}"),
        Row("a number for a list", "wrong-kind", b'{"x": 1}'),
        Row("null for a list", "wrong-kind", b'{"x": null}'),
        Row("null for a number", "wrong-kind", x("null")),
        Row("a text for a number", "wrong-kind", x('"2"')),
        Row("a truth value for a number", "wrong-kind", x("true")),
        Row("a list for a number", "wrong-kind", x("[2]")),
        Row("a good member behind a bad one", "wrong-kind", b'{"x": 1, "x": [1, 2, 3]}'),
        # Numbers.
        Row("1e39: beyond float32", "not-finite", x("1e39")),
        Row("1e400: beyond float64", "not-finite", x("1e400")),
        Row("1e5000000000", "not-finite", x("1e5000000000")),
        Row("an integer of 400 digits", "not-finite", x("9" * 400)),
        Row("an integer of 500,000 digits", "not-finite", x("9" * 500_000)),
        Row("-0", PREDICTED, x("-0")),
        Row("-0.0", PREDICTED, x("-0.0")),
        Row("1e-400: zero", PREDICTED, x("1e-400")),
        Row("the largest float32", PREDICTED, x("3.4028235e38")),
        Row("a number with 100,000 decimals", PREDICTED, x("0." + "1" * 100_000)),
        Row("the last of two good members of a name", PREDICTED, b'{"x":[9,9,9],"x":[1,2,3]}'),
        Row("spaces and line breaks everywhere", PREDICTED, b'\r\n{ "x"\t:[ 1,2 ,\n3 ] } \n'),
        Row("an escaped name", PREDICTED, b'{"\\u0078": [1, 2, 3]}'),
        # Keys and sizes.
        Row("no key", "no-key", GOOD, None),
        Row("an empty key", "no-key", GOOD, b""),
        Row("a key of 1,001 bytes", "key-too-long", GOOD, b"k" * 1_001),
        Row("a key of 900 KB", "key-too-long", GOOD, b"k" * 900_000),
        Row("a key of 1,000 bytes, each byte in it", PREDICTED, GOOD, LONG_KEY),
        Row("a key of one NUL byte", PREDICTED, GOOD, b"\0"),
        Row("a key that is not UTF-8", PREDICTED, GOOD, b"\xff\xfe"),
        Row("a key like a field of ours in Redis", PREDICTED, GOOD, b"applied"),
        Row("a value a byte too long", "value-too-long", GOOD.ljust(VALUE_BYTES_MAX + 1)),
        Row("a value that fits no dead letter", "value-too-long", GOOD.ljust(1_048_400)),
        Row("a value of 900 KB", PREDICTED, GOOD.ljust(900_000)),
        # Marks and headers.
        Row("a null value: the key is forgotten", TAKEN, None),
        Row("the same with a mark", TAKEN, None, headers=[("sequence", b"end")]),
        Row("a mark that is neither true nor false", "bad-mark", b'{"x": [1, 2, 3], "end": 1}'),
        Row("a mark of 900 KB", "bad-mark", b'{"x": [1,2,3], "end": "%b"}' % (b"z" * 900_000)),
        Row("a mark that is null", "bad-mark", b'{"x": [1, 2, 3], "start": null}'),
        Row("a bare mark twice, wrong and right", "wrong-kind", b'{"end": 1, "end": true}'),
        Row("an end of nothing", "end-without-beginning", b'{"end": true}', b"nobody"),
        Row("a mark that is false", "missing-feature", b'{"end": false}'),
        Row("steps of a model without steps", "bad-steps-max", b'{"x": [1, 2, 3], "steps_max": 2}'),
        Row("a mark in capitals in a header", "bad-mark", GOOD, headers=[("sequence", b"END")]),
        Row("a mark without a value", "bad-mark", GOOD, headers=[("sequence", None)]),
        Row("a mark that is not UTF-8", "bad-mark", GOOD, headers=[("sequence", b"\xff")]),
        Row("a header's mark of 900 KB", "bad-mark", GOOD, headers=[("sequence", b"\0" * 900_000)]),
        Row("steps of a model without them", "bad-steps-max", GOOD, headers=[("steps-max", b"3")]),
        Row("a bad mark before a good one", "bad-mark", GOOD,
            headers=[("sequence", b"x"), ("sequence", b"start")]),
        Row("of two marks the last counts", PREDICTED, GOOD,
            headers=[("sequence", b"end"), ("sequence", b"start")]),
        Row("a member and a header that agree", PREDICTED, b'{"x": [1, 2, 3], "start": true}',
            headers=[("sequence", b"start")]),
        Row("a member is start, the header end", PREDICTED, b'{"x": [1, 2, 3], "start": true}',
            headers=[("sequence", b"end")]),
        Row("headers of the names of ours", PREDICTED, GOOD,
            headers=[("source", b"x"), ("timestep", b"\xff"), ("model", None),
                     ("dead-letter-reason", b"x")]),
        Row("the same of a bad record", "not-json", b"{",
            headers=[("source", b"a/0/0"), ("dead-letter-reason", b"x"),
                     ("dead-letter-detail", None)]),
        Row("a thousand headers", PREDICTED, GOOD, headers=[("h", b"v")] * 1_000),
        Row("a header of 900 KB", PREDICTED, GOOD, headers=[("trace", b"\xff" * 900_000)]),
        Row("a header without a name", PREDICTED, GOOD, headers=[("", b"v")]),
        Row("a header's name that is not ASCII", PREDICTED, GOOD, headers=[("\u2603", b"v")]),
        # Time.
        Row("an event of the year 2100", PREDICTED, GOOD, timestamp_ms=FAR_FUTURE_MS,
            is_for_memory_only=True),
        Row("an event at the end of time", PREDICTED, GOOD, timestamp_ms=END_OF_TIME_MS,
            is_for_memory_only=True),
        Row("a record without a time (-1)", PREDICTED, GOOD, timestamp_ms=-1),
        Row("an event before 1970", PREDICTED, GOOD, timestamp_ms=-5_000),
    ),
    {"inputs": [Number("x", 3)], "outputs": [Number("y", 2)]},
)  # fmt: skip

WORD = b'{"weather": "sunny", "t": 1, "word": "ab"}'

FIELDS = Kind(
    "a category, a number, a text",
    (WORD, b'{"weather": 1, "t": 2}'),
    (
        Row("an unknown category", "unknown-category", WORD.replace(b"sunny", b"snow")),
        Row("a category in capitals", "unknown-category", WORD.replace(b"sunny", b"Sunny")),
        Row("an empty category", "unknown-category", WORD.replace(b"sunny", b"")),
        Row("an integer that is none", "unknown-category", WORD.replace(b'"sunny"', b"2")),
        Row("an integer of 4,000 digits", "unknown-category",
            WORD.replace(b'"sunny"', b"9" * 4_000)),
        Row("a fraction for a category", "wrong-kind", WORD.replace(b'"sunny"', b"1.0")),
        Row("null for a category", "wrong-kind", WORD.replace(b'"sunny"', b"null")),
        Row("a list for a category", "wrong-kind", WORD.replace(b'"sunny"', b'["sunny"]')),
        Row("a surrogate in a text", "not-json", WORD.replace(b"ab", b"\\ud83d")),
        Row("a text that is not UTF-8", "not-json", WORD.replace(b"ab", b"\xc3\x28")),
        Row("a character beyond the alphabet", "unknown-character", WORD.replace(b"ab", b"az")),
        Row("a line break behind a text", "unknown-character", WORD.replace(b"ab", b"ab\\n")),
        Row("an emoji in a text", "unknown-character", WORD.replace(b"ab", b"\xf0\x9f\x98\x80")),
        Row("a text too long", "text-too-long", WORD.replace(b"ab", b"abcab")),
        Row("a text of 900 KB", "text-too-long", WORD.replace(b"ab", b"a" * 900_000)),
        Row("a number for a text", "wrong-kind", WORD.replace(b'"ab"', b"1")),
        Row("a text for a number", "wrong-kind", WORD.replace(b'"t": 1', b'"t": "1"')),
        Row("a required member less", "missing-feature", b'{"weather": "sunny"}'),
        Row("an empty text", PREDICTED, WORD.replace(b"ab", b"")),
        Row("an optional text that is null", PREDICTED, WORD.replace(b'"ab"', b"null")),
    ),
    {
        "inputs": [
            Category("weather", ("sunny", "1")), Number("t"), Text("word", "abc", 4, optional=True)
        ],
        "outputs": [Number("y"), Category("dish", ("1", "2"))],
    },
)  # fmt: skip


def raw(*numbers: float) -> bytes:
    """Write little-endian float32."""
    return np.array(numbers, "<f4").tobytes()


FLOAT32 = Kind(
    "three numbers, raw float32",
    (raw(1, 2, 3),),
    (
        Row("13 bytes for 12", "not-float32", raw(1, 2, 3) + b"\0"),
        Row("one byte", "not-float32", b"\0"),
        Row("JSON where raw numbers belong", "wrong-length", GOOD),
        Row("a number too many", "wrong-length", raw(1, 2, 3, 4)),
        Row("a number too few", "wrong-length", raw(1, 2)),
        Row("900 KB of numbers", "wrong-length", bytes(900_000)),
        Row("NaN in raw numbers", "not-finite", raw(1, np.nan, 3)),
        Row("infinity in raw numbers", "not-finite", raw(1, 2, -np.inf)),
        Row("an empty value without a mark", "empty-value", b""),
        Row("the least float32 there is", PREDICTED, raw(1, 1e-45, -0.0)),
    ),
    {"inputs": [Number("x", 3)], "outputs": [Number("y", 2)], "codec": "float32"},
)

LABELS = ("a", ".")

GENERATING = Kind(
    "encode-decode, five steps at most",
    (b'{"x": 1, "start": true}', b'{"x": 1, "end": true}'),
    (
        Row("no steps at all", "bad-steps-max", b'{"x": 1, "steps_max": 0}'),
        Row("more steps than allowed", "bad-steps-max", b'{"x": 1, "steps_max": 6}'),
        Row("steps of 400 digits", "bad-steps-max", b'{"x": 1, "steps_max": %b}' % (b"9" * 400)),
        Row("steps with a fraction", "bad-steps-max", b'{"x": 1, "steps_max": 2.0}'),
        Row("true for steps", "bad-steps-max", b'{"x": 1, "steps_max": true}'),
        Row("steps twice, wrong and right", "wrong-kind",
            b'{"end": true, "steps_max": 9, "steps_max": 3}'),
        Row("steps in words", "bad-steps-max", b'{"x": 1}', headers=[("steps-max", b"many")]),
        Row("steps below zero", "bad-steps-max", b'{"x": 1}', headers=[("steps-max", b"-1")]),
        Row("a header's steps of 5,000 digits", "bad-steps-max", b'{"x": 1}',
            headers=[("steps-max", b"9" * 5_000)]),
        Row("digits of another script", "bad-steps-max", b'{"x": 1}',
            headers=[("steps-max", "\u0663".encode())]),
        Row("an end after an end", "end-without-beginning", b'{"end": true}', b"ended before"),
        Row("a start and an end in one", PREDICTED, b'{"x": 1, "start": true, "end": true}'),
    ),
    {
        "inputs": [Number("x"), Category("before", LABELS, optional=True)],
        "outputs": [Category("label", LABELS)],
        "rules": SequenceRules(
            "encode-decode",
            feedback=(Feedback("label", "before"),),
            generation=Generation(5, "label", "."),
        ),
    },
)  # fmt: skip

FRAGILE = Kind(
    "a fragile net, whose step may not be finite",
    (b'{"x": 0.1}',),
    (
        Row("an event whose step is not finite", "not-finite-step", b'{"x": 10}'),
        Row("the same as the first of a key", "not-finite-step", b'{"x": -10}', b"new"),
    ),
    {"inputs": [Number("x")], "outputs": [Number("y")]},
)

NOW_MS = 1_700_000_000_000

GAP = Kind(
    "a session gap of a second",
    (b'{"x": 1}',),
    (
        Row("a time an hour before the clock", PREDICTED, b'{"x": 1}', b"late", (), 1_000),
        Row("a time of the year 2100", PREDICTED, b'{"x": 1}', b"future", (), FAR_FUTURE_MS, True),
        Row("no time (-1) after that", PREDICTED, b'{"x": 1}', b"none", (), -1),
        Row("the end of time", PREDICTED, b'{"x": 1}', b"end", (), END_OF_TIME_MS, True),
        Row("bad, with a time of the year 2100", "not-json", b"{", b"bad", (), FAR_FUTURE_MS, True),
    ),
    {
        "inputs": [Number("x")],
        "outputs": [Number("y")],
        "rules": SequenceRules(session_gap_ms=1_000),
    },
)

WIDTH = 10_000


def wide(count: int, number: str = "0.12345678") -> bytes:
    """Write an event of many numbers."""
    return b'{"x": [%b]}' % ",".join([number] * count).encode()


WIDE = Kind(
    "10,000 features",
    (wide(WIDTH),),
    (
        Row("9,999 numbers of 10,000", "wrong-length", wide(WIDTH - 1)),
        Row("10,001 numbers", "wrong-length", wide(WIDTH + 1)),
        Row("10,000 texts", "wrong-kind", wide(WIDTH, '"1"')),
        Row("10,000 numbers beyond float32", "not-finite", wide(WIDTH, "1e39")),
        Row("10,000 numbers of 85 digits", PREDICTED, wide(WIDTH, "0." + "1" * 85)),
    ),
    {"inputs": [Number("x", WIDTH)], "outputs": [Number("y", WIDTH)]},
)

KINDS = {
    "plain": PLAIN,
    "fields": FIELDS,
    "float32": FLOAT32,
    "generating": GENERATING,
    "fragile": FRAGILE,
    "gap": GAP,
    "wide": WIDE,
}


def records_of(kind: Kind) -> list[tuple[Row, bool]]:
    """Put each row between good neighbours: records in order, and whether it is the row itself."""
    placed: list[tuple[Row, bool]] = []
    for row in kind.rows:
        goods = [Row("good", PREDICTED, value) for value in kind.good]
        placed += [(good, False) for good in goods]
        placed.append((row, True))
        placed += [(good._replace(key=b"other"), False) for good in goods]
    return placed


__all__ = ["KINDS", "PREDICTED", "TAKEN", "Kind", "Row", "records_of"]
