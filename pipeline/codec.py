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
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from models import Category, FieldError, LoadedModel, activate, encode, encode_columns
from models.fields import Field
from pipeline.errors import DecodeError

FloatArray = npt.NDArray[np.float32]

#: A vector up to this length is read as a tuple of a fixed length, which msgspec does fastest;
#: a longer one as a list whose length is checked.
_TUPLE_LENGTH_MAX = 64

#: What msgspec refuses in a struct's name for a member.
_NOT_IN_STRUCT = re.compile(r'["\\\x00-\x1f]')


class Codec(ABC):
    """The wire format of one model's events and predictions."""

    def __init__(self, inputs: Sequence[Field], outputs: Sequence[Field]) -> None:
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)

    @abstractmethod
    def decode(self, value: bytes) -> Any:
        """Read one value into a row that `to_array` takes.

        Raises:
            DecodeError: If the value isn't an event of this model; says why.
        """

    @abstractmethod
    def to_array(self, rows: Sequence[Any]) -> FloatArray:
        """Turn rows into model inputs.

        Returns:
            inputs: (n, H_in) float32; may hold infinity where a number is beyond float32.
        """

    @abstractmethod
    def encode(self, outputs: FloatArray) -> list[bytes]:
        """Write model outputs, (n, H_out), as one value for each row."""


def codec_for(model: LoadedModel) -> Codec:
    """Choose the codec that the model's directory names.

    Example:
        >>> import tempfile
        >>> from models import GRU, load_model, save_model
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     save_model(GRU(input_size=2, hidden_size=3, output_size=1), directory)
        ...     codec = codec_for(load_model(directory))
        >>> codec.to_array([codec.decode(b'{"x": [1, 2.5]}')]).tolist()
        [[1.0, 2.5]]
        >>> codec.encode(np.array([[0.5]], dtype=np.float32))
        [b'{"y":0.5}']
    """
    kinds: dict[str, type[Codec]] = {"json": JsonCodec, "float32": Float32Codec}
    return kinds[model.codec](model.inputs, model.outputs)


class Float32Codec(Codec):
    """Raw little-endian float32: an event is H_in numbers, a prediction H_out."""

    def __init__(self, inputs: Sequence[Field], outputs: Sequence[Field]) -> None:
        super().__init__(inputs, outputs)
        self._width = sum(field.width for field in inputs)

    def decode(self, value: bytes) -> bytes:
        """Check the length; the numbers are read all at once later."""
        if len(value) == 4 * self._width:
            return value
        if len(value) % 4:
            raise DecodeError("not-float32", f"{len(value)} bytes are no multiple of four")
        raise DecodeError("wrong-length", f"{len(value) // 4} numbers where {self._width} belong")

    def to_array(self, rows: Sequence[bytes]) -> FloatArray:
        """Read all rows in one go."""
        return np.frombuffer(b"".join(rows), dtype="<f4").reshape(len(rows), self._width)

    def encode(self, outputs: FloatArray) -> list[bytes]:
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

    def __init__(self, inputs: Sequence[Field], outputs: Sequence[Field]) -> None:
        super().__init__(inputs, outputs)
        self._decode: Callable[[bytes], Any]
        self._getters: list[Callable[[Any], Any]]
        if any(_NOT_IN_STRUCT.search(field.name) for field in self._inputs):
            self._decode = self._decode_slowly
            self._getters = [operator.methodcaller("get", field.name) for field in self._inputs]
        else:
            self._decode = msgspec.json.Decoder(_event_type(self._inputs)).decode
            self._getters = [operator.attrgetter(f"f{i}") for i in range(len(self._inputs))]
        self._template = b"{" + b",".join(_template(field) for field in self._outputs) + b"}"
        self._labels = [
            [orjson.dumps(value) for value in field.values] if isinstance(field, Category) else []
            for field in self._outputs
        ]

    def decode(self, value: bytes) -> Any:
        """Read one object; kinds, lengths, names and categories are checked by msgspec, in C."""
        try:
            return self._decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._explain(value, error) from None

    def to_array(self, rows: Sequence[Any]) -> FloatArray:
        """Turn columns into arrays: one numpy call a field."""
        columns = [list(map(get, rows)) for get in self._getters]
        return encode_columns(self._inputs, columns)

    def encode(self, outputs: FloatArray) -> list[bytes]:
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
                columns.append([labels[i] for i in logits.argmax(axis=1).tolist()])
                columns.extend(_texts(np.ascontiguousarray(column)) for column in block.T)
            else:
                columns.append(_texts(block))
        template = self._template
        return [template % row for row in zip(*columns, strict=True)]

    def _decode_slowly(self, value: bytes) -> Any:
        """Read one object of a model with a name that msgspec can't have in a struct."""
        event = msgspec.json.decode(value)
        try:
            encode(self._inputs, [event])
        except FieldError as error:
            raise msgspec.ValidationError(error.detail) from None  # as the fast road does
        return event

    def _explain(self, value: bytes, error: Exception) -> DecodeError:
        """Name the reason for a value that the fast road refused; slow, and for bad ones only."""
        try:
            event = msgspec.json.decode(value)
        except msgspec.ValidationError as cause:
            # Without a type to check, this is a number beyond float64: 1e999 is JSON.
            return DecodeError("not-finite", str(cause))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as cause:
            return DecodeError("not-json", str(cause))
        if not isinstance(event, dict):
            return DecodeError("not-an-object", f"a JSON {type(event).__name__}, not an object")
        try:
            encode(self._inputs, [event])
        except FieldError as cause:
            return DecodeError(cause.reason, cause.detail)
        return DecodeError("wrong-kind", str(error))


def _event_type(fields: Sequence[Field]) -> type[msgspec.Struct]:
    """Define the struct of one event: attribute f0, f1, ... for the fields' names, in order."""
    members: list[Any] = []
    for i, field in enumerate(fields):
        if isinstance(field, Category):
            # An integer counts as its decimal text: dish 1 and dish "1" are the same.
            numbers = tuple(int(v) for v in field.values if _is_int_text(v))
            kind: Any = Literal[field.values + numbers]
            members.append((f"f{i}", kind | None, None) if field.optional else (f"f{i}", kind))
        elif field.size == 1:
            members.append((f"f{i}", float))
        elif field.size <= _TUPLE_LENGTH_MAX:
            members.append((f"f{i}", tuple[(float,) * field.size]))  # type: ignore[misc]
        else:
            limits = msgspec.Meta(min_length=field.size, max_length=field.size)
            members.append((f"f{i}", Annotated[list[float], limits]))
    return msgspec.defstruct(
        "Event",
        members,
        rename={f"f{i}": field.name for i, field in enumerate(fields)},
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def _is_int_text(text: str) -> bool:
    # int64 is the range that msgspec takes in a Literal.
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= 18 and str(int(text)) == text


def _template(field: Field) -> bytes:
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
