"""Convert the members of a row to the value of a record, with or without a model's fields.

JsonValues     members by name; a CSV cell that looks like a number becomes one
VectorValues   float32 without a model: one order for the whole file
ModelValues    either codec; the model's inputs decide
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from livestep.models.disk.model_json import ModelFile
from livestep.models.fields.encoding import encode
from livestep.models.fields.event_checks import check_event
from livestep.models.fields.field_types import Category, Field, Number
from livestep.models.model_errors import FieldError
from livestep.pipeline.clients.event_encoding import encode_float32
from livestep.pipeline.publishing.csv_cells import cell_value, integer_problem, is_exact, number_of
from livestep.pipeline.publishing.json_lines import has_long_integer
from livestep.pipeline.publishing.plain_events import plain_event_type

_to_json = msgspec.json.Encoder().encode

#: Length limit of a value in an error message.
_SHOWN = 80


class Values(ABC):
    """Creates the value of an event.

    Attributes:
        is_json: Whether it is a JSON object, where marks reserve some names.
    """

    is_json = True

    def plain(self, members: dict[str, Any]) -> bytes | None:
        """Convert and encode an event without marks in one step, if nothing in it is special.

        Args:
            members: As parsed from JSON, without an integer of more than 64 bits; may be changed.

        Returns:
            value: As `features` and `encode` would return it; None if they must decide.
        """
        return None

    @abstractmethod
    def features(self, members: Mapping[str, Any]) -> dict[str, Any]:
        """Choose and convert the members of the value.

        Raises:
            ValueError: If one is invalid.
        """

    @abstractmethod
    def encode(
        self, features: Mapping[str, Any], steps_max: int | None, names: Iterable[str]
    ) -> bytes:
        """Encode the value of an event.

        Args:
            features: As from `features`.
            steps_max: The mark, if it is set.
            names: Names of all members of the row, including those without a value.

        Raises:
            ValueError: If it can't be encoded.
        """


class JsonValues(Values):
    """Members by their names, as JSON.

    Args:
        chosen: Columns of the value, in this order; empty for the default.
        taken_out: Columns with another role.
        is_csv: Whether members are CSV cells, which are parsed.
    """

    def __init__(self, chosen: Sequence[str], taken_out: Collection[str], *, is_csv: bool) -> None:
        self._chosen = tuple(chosen)
        self._taken_out = taken_out
        self._is_csv = is_csv

    def plain(self, members: dict[str, Any]) -> bytes | None:
        """Encode the members of the value."""
        if self._chosen:
            members = {name: members[name] for name in self._chosen if name in members}
        else:
            for name in self._taken_out:
                members.pop(name, None)
        try:
            return _to_json(members)
        except RecursionError:
            return None

    def features(self, members: Mapping[str, Any]) -> dict[str, Any]:
        """Choose the members that have a value."""
        names = self._chosen or [name for name in members if name not in self._taken_out]
        present = {name: members[name] for name in names if name in members}
        if not self._is_csv:
            return present
        return {name: cell_value(cell) for name, cell in present.items() if cell.strip()}

    def encode(
        self, features: Mapping[str, Any], steps_max: int | None, names: Iterable[str]
    ) -> bytes:
        """Encode an object."""
        return _json(features)


class VectorValues(Values):
    """Raw float32 without a model: one order and one length for the whole file.

    Args:
        names: The order; empty for that of the first event.
        taken_out: Columns with another role.
        is_chosen: Whether other members are left out; otherwise they are an error.
        is_csv: Whether empty text is an empty cell.
    """

    is_json = False

    def __init__(
        self, names: Sequence[str], taken_out: Collection[str], *, is_chosen: bool, is_csv: bool
    ) -> None:
        self._names = tuple(names)
        self._taken_out = taken_out
        self._is_chosen = is_chosen
        self._is_csv = is_csv
        self._counts: dict[str, int] = {}  # numbers of a list; 0 for a single number

    def features(self, members: Mapping[str, Any]) -> dict[str, Any]:
        """Parse the numbers, by name."""
        return {
            name: number_of(name, value)
            for name, value in members.items()
            if (name in self._names if self._is_chosen else name not in self._taken_out)
            and not (self._is_csv and not value.strip())
        }

    def encode(
        self, features: Mapping[str, Any], steps_max: int | None, names: Iterable[str]
    ) -> bytes:
        """Encode the numbers in the order of the names."""
        names = self._names or tuple(name for name in names if name not in self._taken_out)
        order = ", ".join(names)
        for name in features:
            if name not in names:
                raise ValueError(f"{name!r} is not among the numbers of the first event: {order}")
        vector: list[Any] = []
        counts: dict[str, int] = {}
        for name in names:
            if name not in features:
                self._names = names
                raise ValueError(
                    f"{name!r} is missing: --codec float32 needs every number, in the order {order}"
                )
            value = features[name]
            counts[name] = len(value) if isinstance(value, list) else 0
            if counts[name] != self._counts.get(name, counts[name]):
                raise ValueError(f"{name!r} has more or fewer elements than in the first event")
            vector.extend(value if isinstance(value, list) else [value])
        for element in vector:
            if not isinstance(element, int | float | None) or isinstance(element, bool):
                raise ValueError(f"{str(element)[:_SHOWN]!r} is not a number")
        written = encode_float32(vector)
        # A name defines the place of a missing number; else only a complete event sets the order.
        self._names, self._counts = names, counts
        return written


class ModelValues(Values):
    """The inputs of a model, converted and checked as the worker checks them.

    Args:
        description: Description of the model.
        chosen: Columns that may be inputs; empty for all.
        marks: Columns that are marks, not inputs.
        is_csv: Whether empty text is an empty cell.
    """

    def __init__(
        self,
        description: ModelFile,
        chosen: Sequence[str],
        marks: Collection[str],
        *,
        is_csv: bool,
    ) -> None:
        self.is_json = description.codec == "json"
        rules = description.rules
        self._steps_limit = rules.generation.steps_max if rules.generation else 0
        self._fields = description.inputs
        self._fed = rules.fed_inputs if rules.is_feeding_events else ()
        self._wanted: list[Field] = [
            field
            for field in description.inputs
            if field.name not in marks and (not chosen or field.name in chosen)
        ]
        self._is_csv = is_csv
        is_complete = set(self.required) <= {field.name for field in self._wanted}
        self._plain_type = plain_event_type(self._wanted) if self.is_json and is_complete else None

    def plain(self, members: dict[str, Any]) -> bytes | None:
        """Choose the model's inputs, check their types, and encode them."""
        if self._plain_type is None:
            return None
        try:
            return _to_json(msgspec.convert(members, self._plain_type))
        except msgspec.ValidationError:
            return None

    @property
    def required(self) -> list[str]:
        """Names of the inputs that every event must have."""
        return [field.name for field in self._fields if not field.optional]

    def features(self, members: Mapping[str, Any]) -> dict[str, Any]:
        """Choose the model's inputs, and convert them by its fields."""
        return {
            field.name: _converted(field, members[field.name])
            for field in self._wanted
            if field.name in members and not (self._is_csv and not members[field.name].strip())
        }

    def encode(
        self, features: Mapping[str, Any], steps_max: int | None, names: Iterable[str]
    ) -> bytes:
        """Check as the worker does, and encode with the model's codec."""
        if steps_max is not None and steps_max > self._steps_limit:
            raise ValueError(
                f"'steps_max' is {steps_max}, but this model generates at most {self._steps_limit}"
                if self._steps_limit
                else "'steps_max' is set, but this model does not generate"
            )
        try:
            check_event(self._fields, features, 0)
            if self.is_json:
                return _model_json(features)
            return encode(self._fields, [features], self._fed).astype("<f4").tobytes()
        except FieldError as error:
            raise ValueError(error.detail) from None


def _json(features: Mapping[str, Any]) -> bytes:
    value = _encoded(features)
    if has_long_integer(value):
        for member in features.values():
            _refuse_inexact(member)
    return value


def _encoded(features: Mapping[str, Any]) -> bytes:
    try:
        return _to_json(features)
    except UnicodeEncodeError:
        raise ValueError("a text is not valid UTF-8: surrogates not allowed") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_inexact(value: Any) -> None:
    """Refuse an integer that JSON doesn't keep exactly, at any depth."""
    if isinstance(value, dict | list):
        for element in value.values() if isinstance(value, dict) else value:
            _refuse_inexact(element)
    elif isinstance(value, int) and not is_exact(value):
        raise ValueError(integer_problem(str(value)))


def _converted(field: Field, value: Any) -> Any:
    """Convert text to the type of a field; the checks find what is wrong."""
    if not isinstance(value, str):
        return value
    if isinstance(field, Number):
        if field.size == 1:
            return number_of(field.name, value)
        return _list_of(field, value)
    if isinstance(field, Category) and value not in field.values:
        return value.strip()
    return value


def _model_json(features: Mapping[str, Any]) -> bytes:
    value = _encoded(features)
    return _encoded(_as_float32s(features)) if has_long_integer(value) else value


def _as_float32s(value: Any) -> Any:
    """Convert integers that JSON doesn't keep exactly to floats: a model uses float32 anyway."""
    if isinstance(value, dict):
        return {name: _as_float32s(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_as_float32s(element) for element in value]
    return float(value) if isinstance(value, int) and not is_exact(value) else value


def _list_of(field: Number, text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError(
            f"{field.name!r} is {text[:_SHOWN]!r}, not a JSON list of {field.size} numbers"
        ) from None
