"""The columns of a model's inputs and outputs, as `model.json` describes them.

A model maps (N, H_in) to (N, H_out). A field describes adjacent columns: a `Number`, a `Category`
(one column per value, or one with an index), or a `Text` (one column per character). Fields are
side by side, in the order of the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from livestep.models.model_errors import ModelError

#: Index of an absent category, and of the columns after the end of a text.
NO_INDEX = -1


class Number(msgspec.Struct, frozen=True, tag="number", forbid_unknown_fields=True):
    """One number, or a list of `size` numbers.

    In an event, this is a JSON number if `size` is 1, else a list of exactly `size` numbers. If
    optional, it may be absent or null, which is encoded as zeros.

    Attributes:
        name: The member's name in an event.
        size: How many numbers, and columns.
        optional: Whether an event may omit it; ignored for an output.

    Raises:
        ModelError: If the name is invalid, or the size is less than 1.

    Example:
        >>> Number("x", size=12).width
        12
    """

    name: str
    size: int = 1
    optional: bool = False

    def __post_init__(self) -> None:
        """Check what the types don't express."""
        _check_name(self.name)
        _check_count(self.size, f"the size of number {self.name!r}")

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.size


class Category(msgspec.Struct, frozen=True, tag="category", forbid_unknown_fields=True):
    """One of a fixed list of values: one column per value, or one column with the index.

    In an event, this is a string, or an integer, which stands for its decimal text. If optional,
    it may be absent or null, which is encoded as zeros. In an output, the columns are logits.

    Attributes:
        name: The member's name in an event.
        values: The values, in the order of their columns; a list is converted to a tuple.
        optional: Whether an event may omit it; ignored for an output.
        encoding: "one-hot", or "index" for one column with the position in `values`, for an
            embedding (`NO_INDEX` if absent). An index is for inputs only.

    Raises:
        ModelError: If the name is invalid, or the values are empty or not distinct.

    Example:
        >>> Category("weather", ("sunny", "rainy")).width
        2
        >>> Category("weather", ("sunny", "rainy"), encoding="index").width
        1
    """

    name: str
    values: tuple[str, ...]
    optional: bool = False
    encoding: Literal["one-hot", "index"] = "one-hot"

    def __post_init__(self) -> None:
        """Check what the types don't express."""
        _check_name(self.name)
        if isinstance(self.values, list):
            msgspec.structs.force_setattr(self, "values", tuple(self.values))
        if not isinstance(self.values, tuple) or not all(isinstance(v, str) for v in self.values):
            raise ModelError(f"the values of category {self.name!r} must be a tuple of strings")
        if not self.values:
            raise ModelError(f"category {self.name!r} has no values")
        if len(set(self.values)) != len(self.values):
            raise ModelError(f"category {self.name!r} lists a value twice")

    @property
    def width(self) -> int:
        """Number of columns."""
        return 1 if self.encoding == "index" else len(self.values)


class Text(msgspec.Struct, frozen=True, tag="text", forbid_unknown_fields=True):
    """A string, one column per character: for inputs only.

    A column holds the position of the character in the alphabet, or `NO_INDEX` after the end of
    the text. If optional, it may be absent or null, which is the same as an empty text.

    Attributes:
        name: The member's name in an event.
        alphabet: The characters that a text may contain, each once.
        length: The most characters of a text, and the number of columns.
        optional: Whether an event may omit it.

    Raises:
        ModelError: If the name is invalid, the alphabet is empty or has a character twice, or
            the length is less than 1.

    Example:
        >>> Text("word", "abcdefghijklmnopqrstuvwxyz", length=12).width
        12
    """

    name: str
    alphabet: str
    length: int
    optional: bool = False

    def __post_init__(self) -> None:
        """Check what the types don't express."""
        _check_name(self.name)
        if not self.alphabet:
            raise ModelError(f"the alphabet of text {self.name!r} has no characters")
        if len(set(self.alphabet)) != len(self.alphabet):
            raise ModelError(f"the alphabet of text {self.name!r} has a character twice")
        _check_count(self.length, f"the length of text {self.name!r}")

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.length


Field = Number | Category | Text

#: The fields that can be outputs.
OutputField = Number | Category

#: Format of a record's value: an object, or the columns as raw little-endian float32 numbers.
CodecName = Literal["json", "float32"]


def is_index(field: Field) -> bool:
    """Whether a field's columns hold indices: integers from `NO_INDEX` on."""
    return isinstance(field, Text) or (isinstance(field, Category) and field.encoding == "index")


def is_int_text(text: str) -> bool:
    """Whether a text of a category is the decimal text of an integer within int64.

    Example:
        >>> [is_int_text(text) for text in ("7", "-7", "07", "7.0", "9" * 19)]
        [True, True, False, False, False]
    """
    # 18 digits fit int64, the range that a JSON reader accepts in a list of choices.
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) <= 18 and str(int(text)) == text


def total_width(fields: Sequence[Field]) -> int:
    """Count the columns of some fields.

    Example:
        >>> total_width([Number("x", 3), Category("weather", ("sunny", "rainy"))])
        5
    """
    return sum(field.width for field in fields)


def absent_row(fields: Sequence[Field]) -> npt.NDArray[np.float32]:
    """Make the row of an event without any value, as if all fields were optional.

    Returns:
        row: (H_in,) float32. Zeros; `NO_INDEX` where a column holds an index.

    Example:
        >>> absent_row([Number("x", 2), Category("c", ("a", "b"), encoding="index")])
        array([ 0.,  0., -1.], dtype=float32)
    """
    row = np.zeros(total_width(fields), np.float32)
    for field, block in zip(fields, field_blocks(fields), strict=True):
        if is_index(field):
            row[block] = NO_INDEX
    return row


def field_blocks(fields: Sequence[Field]) -> Iterator[slice]:
    """Yield the columns of each field.

    Example:
        >>> list(field_blocks([Number("x", 3), Category("weather", ("sunny", "rainy"))]))
        [slice(0, 3, None), slice(3, 5, None)]
    """
    start = 0
    for field in fields:
        yield slice(start, start + field.width)
        start += field.width


def columns_of(fields: Sequence[Field], name: str) -> slice:
    """Return the columns of a field.

    Raises:
        ValueError: If no field has the name.

    Example:
        >>> columns_of([Number("x", 3), Number("y", 2)], "y")
        slice(3, 5, None)
    """
    for field, block in zip(fields, field_blocks(fields), strict=True):
        if field.name == name:
            return block
    raise ValueError(f"unknown field {name!r}")


def _check_count(count: int, what: str) -> None:
    if type(count) is not int or count < 1:
        raise ModelError(f"{what} must be an integer of at least 1")


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise ModelError(f"the name of a field must be a string, not {name!r}")
    if not name:
        raise ModelError("a field must have a name")
    if any(character in '"\\' or ord(character) < 0x20 for character in name):
        raise ModelError(f"the name {name!r} contains a quote, a backslash, or a control character")
