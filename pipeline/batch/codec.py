"""Bytes <-> numbers: the only file that knows the wire format of a value.

A codec belongs to a model (`model.json`).  `json` is an object with one member for each field;
`float32` is the vector itself, little-endian.  Reading is done in two steps, so that one bad
record never touches its neighbours: `decode` judges one value, `to_array` turns all good ones
into one array.
"""

from __future__ import annotations

import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
import orjson

from livestep.models.fields.encoding import activate, encode, encode_columns
from livestep.models.fields.field_types import (
    Category,
    Field,
    OutputField,
    Text,
    columns_of,
    is_int_text,
)
from livestep.models.model_errors import FieldError
from livestep.models.sequences.rules import MARKS, SequenceRules
from livestep.pipeline.batch.marks import BARE, END, START
from livestep.pipeline.errors import DecodeError
from livestep.pipeline.types import FloatArray, IntArray, MarkArray

if TYPE_CHECKING:
    from livestep.models.disk.model_json import ModelFile
    from livestep.models.loaded_model import LoadedModel


#: For a category output whose label is drawn: the labels' indices, (n,).
Drawn = Mapping[str, IntArray]

#: Inputs, (n, H_in); marks, (n,); steps asked for, (n,): what `Codec.to_arrays` gives.
Arrays = tuple[FloatArray, MarkArray, IntArray]

#: A vector up to this length is read as a tuple of a fixed length, which msgspec does fastest;
#: a longer one as a list whose length is checked.
_TUPLE_LENGTH_MAX = 64

_DEFAULT_RULES = SequenceRules()


class Codec(ABC):
    """The wire format of one model's events and predictions.

    Attributes:
        feedback_columns: Columns of each input that may be left to the feedback.
        steps_limit: Most steps that an event may ask for; 0 if the model generates nothing.
    """

    def __init__(
        self,
        inputs: Sequence[Field],
        outputs: Sequence[OutputField],
        rules: SequenceRules = _DEFAULT_RULES,
    ) -> None:
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._width = sum(field.width for field in inputs)
        self._fed = rules.fed_inputs if rules.is_feeding_events else ()
        self.feedback_columns = tuple(columns_of(inputs, name) for name in rules.fed_inputs)
        self.steps_limit = rules.generation.steps_max if rules.generation else 0

    @abstractmethod
    def decode(self, value: bytes, header_marks: int = 0) -> Any:
        """Read one value into a row that `to_arrays` takes.

        Args:
            value: Not empty.
            header_marks: START and END, as the record's headers set them. They mean what marks
                among the members mean: with one of them, an event without a feature is bare.

        Raises:
            DecodeError: If the value isn't an event of this model; says why.
        """

    @abstractmethod
    def to_arrays(self, rows: Sequence[Any]) -> Arrays:
        """Turn rows into model inputs and marks.

        Args:
            rows: As from `decode`; None for an event without a value, which is bare.

        Returns:
            inputs: (n, H_in) float32; may hold infinity where a number is beyond float32, and holds
                NaN in all columns of an absent input that can be fed back.
            marks: (n,) uint8.  Bits of `pipeline.batch.marks`.
            steps_max: (n,) int64.  0 where an event asks for none.
        """

    @abstractmethod
    def encode(self, outputs: FloatArray, drawn: Drawn | None = None) -> list[bytes]:
        """Write model outputs, (n, H_out), as one value for each row.

        Args:
            outputs: Logits for a category.
            drawn: Labels that are not the most probable ones.
        """


def codec_for(model: LoadedModel | ModelFile) -> Codec:
    """Choose the codec that the model's directory names.

    Args:
        model: The model, or what its `model.json` says of it.

    Example:
        >>> import tempfile
        >>> from livestep import GRU, load_model, save_model
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     save_model(GRU(input_size=2, hidden_size=3, output_size=1), directory)
        ...     codec = codec_for(load_model(directory))
        >>> codec.to_arrays([codec.decode(b'{"x": [1, 2.5]}')])[0].tolist()
        [[1.0, 2.5]]
        >>> codec.encode(np.array([[0.5]], dtype=np.float32))
        [b'{"y":0.5}']
    """
    kinds: dict[str, type[Codec]] = {"json": JsonCodec, "float32": Float32Codec}
    return kinds[model.codec](model.inputs, model.outputs, model.rules)


class Float32Codec(Codec):
    """Raw little-endian float32: an event is H_in numbers, a prediction H_out."""

    def decode(self, value: bytes, header_marks: int = 0) -> bytes | None:
        """Check the length; the numbers are read all at once later."""
        if len(value) == 4 * self._width:
            if header_marks and self._has_no_feature(value):
                return None
            return value
        if len(value) % 4:
            raise DecodeError("not-float32", f"{len(value)} bytes are no multiple of four")
        raise DecodeError("wrong-length", f"{len(value) // 4} numbers where {self._width} belong")

    def to_arrays(self, rows: Sequence[bytes | None]) -> Arrays:
        """Read all rows in one go."""
        zeros = bytes(4 * self._width)
        whole = b"".join(zeros if row is None else row for row in rows)
        inputs = np.frombuffer(whole, dtype="<f4").reshape(len(rows), self._width)
        bits = np.array([BARE if row is None else 0 for row in rows], np.uint8)
        return inputs, bits, np.zeros(len(rows), np.int64)

    def _has_no_feature(self, value: bytes) -> bool:
        """Whether all columns are left to the feedback; only those may be absent."""
        fed_width = sum(columns.stop - columns.start for columns in self.feedback_columns)
        return fed_width == self._width and bool(np.isnan(np.frombuffer(value, "<f4")).all())

    def encode(self, outputs: FloatArray, drawn: Drawn | None = None) -> list[bytes]:
        """Write numbers, and probabilities for a category."""
        data = np.ascontiguousarray(activate(self._outputs, outputs), dtype="<f4")
        row_bytes = 4 * data.shape[1]
        whole = data.tobytes()
        return [whole[at : at + row_bytes] for at in range(0, len(whole), row_bytes)]


class JsonCodec(Codec):
    """JSON objects: an event has one member for each input, a prediction one for each output.

    msgspec reads, since it checks kinds on the way; orjson writes, since it gives a float32 the
    digits that a float32 has (0.1, not 0.10000000149011612).
    """

    def __init__(
        self,
        inputs: Sequence[Field],
        outputs: Sequence[OutputField],
        rules: SequenceRules = _DEFAULT_RULES,
    ) -> None:
        super().__init__(inputs, outputs, rules)
        event_type = _event_type(self._inputs, self.steps_limit)
        self._decode = msgspec.json.Decoder(event_type).decode
        # An event of marks alone is read apart, since one may lack features that are required.
        optional = tuple(field for field in self._inputs if field.optional)
        self._optional = frozenset(field.name for field in optional)
        self._bare_type = _event_type(optional, self.steps_limit)
        self._decode_bare = msgspec.json.Decoder(self._bare_type).decode
        self._getters = [operator.attrgetter(f"f{i}") for i in range(len(self._inputs))]
        self._template = b"{" + b",".join(_template(field) for field in self._outputs) + b"}"
        self._labels = [
            [orjson.dumps(value) for value in field.values] if isinstance(field, Category) else []
            for field in self._outputs
        ]

    def decode(self, value: bytes, header_marks: int = 0) -> Any:
        """Read one object; kinds, lengths, names and categories are checked by msgspec, in C."""
        row: Any
        try:
            row = self._decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            row = self._bare_or_explain(value, header_marks, error)
        if header_marks:
            row.start = row.start or bool(header_marks & START)
            row.end = row.end or bool(header_marks & END)
        return row

    def to_arrays(self, rows: Sequence[Any]) -> Arrays:
        """Turn columns into arrays: one numpy call a field."""
        bits, steps_max = self._marks(rows)
        featured = rows
        is_bare = (bits & BARE) != 0
        is_all_featured = not is_bare.any()
        if not is_all_featured:
            featured = [rows[i] for i in np.flatnonzero(~is_bare).tolist()]
        columns = [list(map(get, featured)) for get in self._getters]
        inputs = encode_columns(self._inputs, columns, self._fed)
        if not is_all_featured:
            whole = np.zeros((len(rows), self._width), np.float32)
            whole[~is_bare] = inputs
            inputs = whole
        # What has no value is no bare mark by its row: `pack` knows what it is.
        return inputs, bits, steps_max

    def encode(self, outputs: FloatArray, drawn: Drawn | None = None) -> list[bytes]:
        """Write a column at a time; a row is put together by the model's template."""
        if not len(outputs):
            return []
        values = activate(self._outputs, outputs)
        columns: list[list[bytes]] = []
        start = 0
        for field, labels in zip(self._outputs, self._labels, strict=True):
            block = np.ascontiguousarray(values[:, start : start + field.width])
            logits = outputs[:, start : start + field.width]
            start += field.width
            if labels:
                # Of the logits, since two of them may round to one probability.
                chosen = (drawn or {}).get(field.name)
                if chosen is None:
                    chosen = logits.argmax(axis=1)
                columns.append([labels[i] for i in chosen.tolist()])
                columns.extend(_texts(np.ascontiguousarray(column)) for column in block.T)
            else:
                columns.append(_texts(block))
        template = self._template
        return [template % row for row in zip(*columns, strict=True)]

    def _marks(self, rows: Sequence[Any]) -> tuple[MarkArray, IntArray]:
        """Read the marks of rows; one whose features are all absent or null is bare."""
        bits = np.zeros(len(rows), np.uint8)
        steps_max = np.zeros(len(rows), np.int64)
        # One pass over all rows, and the work on the few that are marked.
        for i in [i for i, row in enumerate(rows) if row is None or row.start or row.end]:
            row = rows[i]
            if row is None:
                bits[i] = BARE
                continue
            bits[i] = START * row.start + END * row.end
            if type(row) is self._bare_type or all(get(row) is None for get in self._getters):
                bits[i] |= BARE
        if self.steps_limit:
            steps_max[:] = [0 if row is None else row.steps_max or 0 for row in rows]
        return bits, steps_max

    def _bare_or_explain(self, value: bytes, header_marks: int, error: Exception) -> Any:
        """Read a bare mark, or name the reason why a value was refused; for few values only.

        Raises:
            DecodeError: With the reason.
        """
        try:
            event = msgspec.json.decode(value)
        except msgspec.ValidationError as cause:
            # Without a type to check, this is a number beyond float64: 1e999 is JSON.
            raise DecodeError("not-finite", str(cause)) from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as cause:
            raise DecodeError("not-json", str(cause)) from None
        if not isinstance(event, dict):
            raise DecodeError("not-an-object", f"a JSON {type(event).__name__}, not an object")
        marks = {name: event.pop(name) for name in MARKS if name in event}
        self._check_marks(marks)
        is_marked = header_marks or marks.get("start") or marks.get("end")
        if is_marked and all(
            member is None and name in self._optional for name, member in event.items()
        ):
            try:
                return self._decode_bare(value)
            except msgspec.ValidationError as cause:
                # The last of two members of one name is right, and an earlier one is not.
                raise DecodeError("wrong-kind", str(cause)) from None
        try:
            encode(self._inputs, [event])
        except FieldError as cause:
            raise DecodeError(cause.reason, cause.detail) from None
        raise DecodeError("wrong-kind", str(error))

    def _check_marks(self, marks: Mapping[str, Any]) -> None:
        for name in ("start", "end"):
            if not isinstance(marks.get(name, False), bool):
                raise DecodeError("bad-mark", f"{name!r} is true or false, not {marks[name]!r}")
        steps_max = marks.get("steps_max")
        if steps_max is None:
            return
        if not self.steps_limit:
            raise DecodeError("bad-steps-max", "this model generates nothing")
        if type(steps_max) is not int or not 1 <= steps_max <= self.steps_limit:
            detail = f"'steps_max' is 1 to {self.steps_limit}, not {steps_max!r}"
            raise DecodeError("bad-steps-max", detail)


def _event_type(fields: Sequence[Field], steps_limit: int) -> type[msgspec.Struct]:
    """Define the struct of one event: f0, f1, ... for the fields, in order, and the marks."""
    members: list[Any] = [("start", bool, False), ("end", bool, False)]
    if steps_limit:
        limits = msgspec.Meta(ge=1, le=steps_limit)
        members.append(("steps_max", Annotated[int, limits] | None, None))
    for i, field in enumerate(fields):
        if isinstance(field, Category):
            # An integer counts as its decimal text: dish 1 and dish "1" are the same.
            numbers = tuple(int(v) for v in field.values if is_int_text(v))
            kind: Any = Literal[field.values + numbers]
        elif isinstance(field, Text):
            limits = msgspec.Meta(max_length=field.length, pattern=_pattern(field))
            kind = Annotated[str, limits]
        elif field.size == 1:
            kind = float
        elif field.size <= _TUPLE_LENGTH_MAX:
            kind = tuple[(float,) * field.size]  # type: ignore[misc]
        else:
            limits = msgspec.Meta(min_length=field.size, max_length=field.size)
            kind = Annotated[list[float], limits]
        members.append((f"f{i}", kind | None, None) if field.optional else (f"f{i}", kind))
    return msgspec.defstruct(
        "Event",
        members,
        rename={f"f{i}": field.name for i, field in enumerate(fields)},
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def _pattern(field: Text) -> str:
    """Match texts of the alphabet only; msgspec searches, and `$` would allow a newline behind."""
    return "^[" + "".join(map(re.escape, field.alphabet)) + r"]*\Z"


def _template(field: OutputField) -> bytes:
    """Write one member with a %b for each text that `JsonCodec.encode` puts in."""
    name = orjson.dumps(field.name).replace(b"%", b"%%")
    if isinstance(field, Category):
        values = [orjson.dumps(value).replace(b"%", b"%%") + b":%b" for value in field.values]
        return name + b':{"label":%b,"probabilities":{' + b",".join(values) + b"}}"
    return name + (b":%b" if field.size == 1 else b":[%b]")


def _texts(block: FloatArray) -> list[bytes]:
    """Write each row's numbers as JSON, comma between them, by one call for the whole block."""
    whole = orjson.dumps(block, option=orjson.OPT_SERIALIZE_NUMPY)
    if block.ndim == 2 and block.shape[1] > 1:
        return whole[2:-2].split(b"],[")
    return whole.replace(b"[", b"").replace(b"]", b"").split(b",")
