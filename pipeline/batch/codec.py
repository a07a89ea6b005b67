"""Codecs between bytes and numbers: the only module that knows the wire format of a value.

The model chooses its codec (`model.json`).  `json` is an object with one member per field;
`float32` is the bare vector, little-endian.

Where the native loops are built, they read what they recognize.  The rest is read in Python, in two
steps, so that an invalid record never affects its neighbors: `decode` validates one value,
`to_arrays` converts all valid ones at once.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from livestep.models.fields.encoding import activate, encode, encode_columns
from livestep.models.fields.field_types import (
    Category,
    Field,
    OutputField,
    columns_of,
    field_blocks,
)
from livestep.models.model_errors import FieldError
from livestep.models.sequences.rules import MARKS, SequenceRules
from livestep.pipeline.batch.json_events import event_type, native_fields
from livestep.pipeline.batch.json_predictions import PythonJsonEncoder, pieces_of
from livestep.pipeline.batch.marks import BARE, END, START
from livestep.pipeline.columns.byte_column import ByteColumn
from livestep.pipeline.errors import DecodeError
from livestep.pipeline.native import native
from livestep.pipeline.types import BoolArray, FloatArray, IntArray, MarkArray

if TYPE_CHECKING:
    from livestep.models.disk.model_json import ModelFile
    from livestep.models.loaded_model import LoadedModel


#: For each category output whose label is sampled: the labels' indices, (n,).
Drawn = Mapping[str, IntArray]

#: Result of `Codec.to_arrays`: inputs, (n, H_in); marks, (n,); requested steps, (n,).
Arrays = tuple[FloatArray, MarkArray, IntArray]

#: The same, read natively; and which values are left to Python, (n,).
NativeArrays = tuple[FloatArray, MarkArray, IntArray, BoolArray]

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

    Args:
        inputs: The model's inputs.
        outputs: Its outputs.
        rules: How its events form sequences.
        library: The native loops, or None to use Python only.

    Attributes:
        feedback_columns: Columns of each input that an event may leave to the feedback.
        steps_limit: Maximum steps that an event may request; 0 if the model does not generate.
    """

    def __init__(
        self,
        inputs: Sequence[Field],
        outputs: Sequence[OutputField],
        rules: SequenceRules = _DEFAULT_RULES,
        *,
        library: ModuleType | None = native,
    ) -> None:
        self._library = library
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
        arrays = self._read_natively(values, is_read)
        if arrays is None:
            everything = values.to_list()
            return self._read_each(everything, np.flatnonzero(is_read).tolist(), header_marks)
        inputs, bits, steps_max, is_left = arrays
        for index in header_marks:
            is_left[index] = is_read[index]
        decoded = Decoded(inputs, bits, steps_max, {})
        left = np.flatnonzero(is_left)
        if len(left):
            marks_of = {i: header_marks.get(row, 0) for i, row in enumerate(left.tolist())}
            some = self._read_each(values.take(left).to_list(), range(len(left)), marks_of)
            inputs[left], bits[left], steps_max[left] = some.inputs, some.marks, some.steps_max
            decoded.errors = {int(left[i]): error for i, error in some.errors.items()}
        return decoded

    def _read_each(
        self, values: Sequence[Any], rows_read: Sequence[int], header_marks: Mapping[int, int]
    ) -> Decoded:
        """Decode values one by one; those that aren't in `rows_read` are bare."""
        decode = self.decode
        rows: list[Any] = [None] * len(values)
        errors: dict[int, DecodeError] = {}
        for index in rows_read:
            try:
                rows[index] = decode(values[index], header_marks.get(index, 0))
            except DecodeError as error:
                errors[index] = error
        return Decoded(*self.to_arrays(rows), errors)

    @abstractmethod
    def _read_natively(self, values: ByteColumn, is_read: BoolArray) -> NativeArrays | None:
        """Decode what the native loops recognize; None if they are not used."""

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
    def encode(self, outputs: FloatArray, drawn: Drawn | None = None) -> ByteColumn:
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
        >>> codec.encode(np.array([[0.5]], dtype=np.float32)).to_list()
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

    def _read_natively(self, values: ByteColumn, is_read: BoolArray) -> NativeArrays | None:
        if self._library is None:
            return None
        inputs, is_left = self._library.decode_float32(values, self._width)
        inputs[~is_read] = 0
        bits = np.where(is_read, 0, BARE).astype(np.uint8)
        return inputs, bits, np.zeros(len(inputs), np.int64), is_left & is_read

    def encode(self, outputs: FloatArray, drawn: Drawn | None = None) -> ByteColumn:
        """Encode numbers, and the probabilities of a category."""
        data = np.ascontiguousarray(activate(self._outputs, outputs), dtype="<f4")
        if self._library is not None:
            column: ByteColumn = self._library.encode_float32(data)
            return column
        row_bytes = 4 * data.shape[1]
        whole = data.tobytes()
        return ByteColumn([whole[at : at + row_bytes] for at in range(0, len(whole), row_bytes)])


class JsonCodec(Codec):
    """JSON objects: an event has one member per input, a prediction one per output.

    In Python, msgspec decodes because it also validates types.
    """

    def __init__(
        self,
        inputs: Sequence[Field],
        outputs: Sequence[OutputField],
        rules: SequenceRules = _DEFAULT_RULES,
        *,
        library: ModuleType | None = native,
    ) -> None:
        super().__init__(inputs, outputs, rules, library=library)
        self._decode = msgspec.json.Decoder(event_type(self._inputs, self.steps_limit)).decode
        # A separate type for events with marks only, which may lack required features.
        optional = tuple(field for field in self._inputs if field.optional)
        self._optional = frozenset(field.name for field in optional)
        self._bare_type = event_type(optional, self.steps_limit)
        self._decode_bare = msgspec.json.Decoder(self._bare_type).decode
        self._getters = [operator.attrgetter(f"f{i}") for i in range(len(self._inputs))]
        pieces = pieces_of(self._outputs)
        self._native_decoder = None
        self._encoder: PythonJsonEncoder = (
            PythonJsonEncoder(pieces) if library is None else library.JsonEncoder(pieces)
        )
        if library is not None:
            fields = native_fields(self._inputs, self._fed)
            self._native_decoder = library.JsonDecoder(fields, self.steps_limit)

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

    def _read_natively(self, values: ByteColumn, is_read: BoolArray) -> NativeArrays | None:
        if self._native_decoder is None:
            return None
        arrays: NativeArrays = self._native_decoder.decode(values, is_read)
        return arrays

    def encode(self, outputs: FloatArray, drawn: Drawn | None = None) -> ByteColumn:
        """Encode the outputs, with the most probable label of each category unless one is drawn."""
        drawn = drawn or {}
        chosen = []
        for field, block in zip(self._outputs, field_blocks(self._outputs), strict=True):
            if isinstance(field, Category):
                # Use the logits because two of them may round to the same probability.
                labels = drawn.get(field.name)
                chosen.append(outputs[:, block].argmax(axis=1) if labels is None else labels)
        values = np.ascontiguousarray(activate(self._outputs, outputs))
        return self._encoder.encode(values, chosen)

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
