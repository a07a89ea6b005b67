"""Codecs between bytes and numbers: the only module that knows the wire format of a value.

The model chooses its codec (`model.json`).  `json` is an object with one member per field;
`float32` is the bare vector, little-endian.  Reading has two steps, so that an invalid record never
affects its neighbors: `decode` validates one value, `to_arrays` converts all valid ones at once.
"""

from __future__ import annotations

import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from livestep.pipeline.columns.byte_column import ByteColumn
from livestep.pipeline.errors import DecodeError
from livestep.pipeline.types import BoolArray, FloatArray, IntArray, MarkArray

if TYPE_CHECKING:
    from livestep.models.disk.model_json import ModelFile
    from livestep.models.loaded_model import LoadedModel


#: For each category output whose label is sampled: the labels' indices, (n,).
Drawn = Mapping[str, IntArray]

#: Result of `Codec.to_arrays`: inputs, (n, H_in); marks, (n,); requested steps, (n,).
Arrays = tuple[FloatArray, MarkArray, IntArray]

#: Vectors up to this length are read as fixed-length tuples, the fastest way in msgspec; longer
#: ones as lists whose length is checked.
_TUPLE_LENGTH_MAX = 64

_DEFAULT_RULES = SequenceRules()


@dataclass(slots=True)
class Decoded:
    """The values of a batch as arrays; invalid ones are rows of zeros.

    Attributes:
        inputs: (n, H_in) float32; see `Codec.to_arrays`.
        marks: (n,) uint8.
        steps_max: (n,) int64.
        errors: Why a value is invalid, by index, ascending.
    """

    inputs: FloatArray
    marks: MarkArray
    steps_max: IntArray
    errors: dict[int, DecodeError]


class Codec(ABC):
    """The wire format of one model's events and predictions.

    Attributes:
        feedback_columns: Columns of each input that an event may leave to the feedback.
        steps_limit: Maximum steps that an event may request; 0 if the model does not generate.
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

    def read(
        self, values: ByteColumn, is_read: BoolArray, header_marks: Mapping[int, int]
    ) -> Decoded:
        """Decode the values of a batch.

        Args:
            values: n values.
            is_read: (n,) bool.  False for a value that is left out: it becomes a bare row of zeros.
            header_marks: START and END, as set by the headers of some records, by index.
        """
        decode = self.decode
        found: list[Any] = values.to_list()
        rows: list[Any] = [None] * len(found)
        errors: dict[int, DecodeError] = {}
        for index in np.flatnonzero(is_read).tolist():
            try:
                rows[index] = decode(found[index], header_marks.get(index, 0))
            except DecodeError as error:
                errors[index] = error
        return Decoded(*self.to_arrays(rows), errors)

    @abstractmethod
    def decode(self, value: bytes, header_marks: int = 0) -> Any:
        """Decode one value into a row for `to_arrays`.

        Args:
            value: Not empty.
            header_marks: START and END, as set by the record's headers. They have the same meaning
                as marks among the members: with a mark, an event without features is bare.

        Raises:
            DecodeError: If the value isn't an event of this model; states the reason.
        """

    @abstractmethod
    def to_arrays(self, rows: Sequence[Any]) -> Arrays:
        """Convert rows to model inputs and marks.

        Args:
            rows: Returned by `decode`; None for an event without a value, which is bare.

        Returns:
            inputs: (n, H_in) float32; infinity where a number is out of range for float32, and NaN
                in all columns of an absent input that can be fed back.
            marks: (n,) uint8.  Bits of `pipeline.batch.marks`.
            steps_max: (n,) int64.  0 if an event requests no number of steps.
        """

    @abstractmethod
    def encode(self, outputs: FloatArray, drawn: Drawn | None = None) -> list[bytes]:
        """Encode model outputs, (n, H_out), as one value per row.

        Args:
            outputs: Logits for a category.
            drawn: Sampled labels, which replace the most probable ones.
        """


def codec_for(model: LoadedModel | ModelFile) -> Codec:
    """Return the codec that the model's directory names.

    Args:
        model: The model, or its parsed `model.json`.

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
    """Raw little-endian float32: an event is H_in numbers, a prediction is H_out numbers."""

    def decode(self, value: bytes, header_marks: int = 0) -> bytes | None:
        """Check the length; `to_arrays` reads the numbers of all rows at once."""
        if len(value) == 4 * self._width:
            if header_marks and self._has_no_feature(value):
                return None
            return value
        if len(value) % 4:
            raise DecodeError("not-float32", f"{len(value)} bytes is not a multiple of four")
        detail = f"{len(value) // 4} numbers, expected {self._width}"
        raise DecodeError("wrong-length", detail)

    def to_arrays(self, rows: Sequence[bytes | None]) -> Arrays:
        """Convert all rows in one call."""
        zeros = bytes(4 * self._width)
        whole = b"".join(zeros if row is None else row for row in rows)
        inputs = np.frombuffer(whole, dtype="<f4").reshape(len(rows), self._width)
        bits = np.array([BARE if row is None else 0 for row in rows], np.uint8)
        return inputs, bits, np.zeros(len(rows), np.int64)

    def _has_no_feature(self, value: bytes) -> bool:
        """Return whether all columns are left to the feedback; only those may be absent."""
        fed_width = sum(columns.stop - columns.start for columns in self.feedback_columns)
        return fed_width == self._width and bool(np.isnan(np.frombuffer(value, "<f4")).all())

    def encode(self, outputs: FloatArray, drawn: Drawn | None = None) -> list[bytes]:
        """Encode numbers, and the probabilities of a category."""
        data = np.ascontiguousarray(activate(self._outputs, outputs), dtype="<f4")
        row_bytes = 4 * data.shape[1]
        whole = data.tobytes()
        return [whole[at : at + row_bytes] for at in range(0, len(whole), row_bytes)]


class JsonCodec(Codec):
    """JSON objects: an event has one member per input, a prediction one per output.

    msgspec decodes because it also validates types; orjson encodes because it writes a float32 with
    the digits of a float32 (0.1, not 0.10000000149011612).
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
        # A separate type for events with marks only, which may lack required features.
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
        """Decode one object; msgspec checks types, lengths, names and categories in C."""
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
        """Convert columns to arrays, with one numpy call per field."""
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
        # A row without a value is not necessarily a bare mark: `pack` decides.
        return inputs, bits, steps_max

    def encode(self, outputs: FloatArray, drawn: Drawn | None = None) -> list[bytes]:
        """Encode one column at a time; the model's template joins the columns of a row."""
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
                # Use the logits because two of them may round to the same probability.
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
        """Return the marks of rows; a marked row without a feature is bare."""
        bits = np.zeros(len(rows), np.uint8)
        steps_max = np.zeros(len(rows), np.int64)
        # One cheap pass over all rows; the work is done only for the few that are marked.
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
        """Decode a bare mark, or explain why a value is invalid; called for few values only.

        Raises:
            DecodeError: With the reason.
        """
        try:
            event = msgspec.json.decode(value)
        except msgspec.ValidationError as cause:
            # Without a type to check, this is a number out of range for float64: 1e999 is JSON.
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
                # Of two members with the same name, the last is valid and an earlier one is not.
                raise DecodeError("wrong-kind", str(cause)) from None
        try:
            encode(self._inputs, [event])
        except FieldError as cause:
            raise DecodeError(cause.reason, cause.detail) from None
        raise DecodeError("wrong-kind", str(error))

    def _check_marks(self, marks: Mapping[str, Any]) -> None:
        for name in ("start", "end"):
            if not isinstance(marks.get(name, False), bool):
                detail = f"{name!r} must be true or false, not {marks[name]!r}"
                raise DecodeError("bad-mark", detail)
        steps_max = marks.get("steps_max")
        if steps_max is None:
            return
        if not self.steps_limit:
            raise DecodeError("bad-steps-max", "this model does not generate sequences")
        if type(steps_max) is not int or not 1 <= steps_max <= self.steps_limit:
            detail = f"'steps_max' must be 1 to {self.steps_limit}, not {steps_max!r}"
            raise DecodeError("bad-steps-max", detail)


def _event_type(fields: Sequence[Field], steps_limit: int) -> type[msgspec.Struct]:
    """Define the struct of one event: f0, f1, ... for the fields, in order, plus the marks."""
    members: list[Any] = [("start", bool, False), ("end", bool, False)]
    if steps_limit:
        limits = msgspec.Meta(ge=1, le=steps_limit)
        members.append(("steps_max", Annotated[int, limits] | None, None))
    for i, field in enumerate(fields):
        if isinstance(field, Category):
            # An integer is equivalent to its decimal text: dish 1 and dish "1" are the same.
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
    """Return a regex for texts of the alphabet; with `$` it would accept a trailing newline."""
    return "^[" + "".join(map(re.escape, field.alphabet)) + r"]*\Z"


def _template(field: OutputField) -> bytes:
    """Return the template of one member, with a %b for each text that `encode` inserts."""
    name = orjson.dumps(field.name).replace(b"%", b"%%")
    if isinstance(field, Category):
        values = [orjson.dumps(value).replace(b"%", b"%%") + b":%b" for value in field.values]
        return name + b':{"label":%b,"probabilities":{' + b",".join(values) + b"}}"
    return name + (b":%b" if field.size == 1 else b":[%b]")


def _texts(block: FloatArray) -> list[bytes]:
    """Encode each row's numbers as comma-separated JSON, with one call for the whole block."""
    whole = orjson.dumps(block, option=orjson.OPT_SERIALIZE_NUMPY)
    if block.ndim == 2 and block.shape[1] > 1:
        return whole[2:-2].split(b"],[")
    return whole.replace(b"[", b"").replace(b"]", b"").split(b",")
