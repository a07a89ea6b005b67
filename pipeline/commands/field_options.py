"""Fields on the command line: `wind, x:12, weather=sunny|rainy, dish?=1|2|3`, or JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

if TYPE_CHECKING:
    from livestep.models.fields.field_types import Field

F = TypeVar("F", bound=Callable[..., Any])

#: The name, ? if optional, then :SIZE or =VALUE|VALUE.
_FIELD = re.compile(r"(?P<name>[^?:=]+)(?P<optional>\?)?(:(?P<size>\d+)|=(?P<values>.+))?")

_HELP = "The {}: x,y:12,mood?=good|bad (see below), or JSON."

#: Explains the notation, for the help of commands with these options.
FIELDS_HELP = """\b
FIELDS is a list with commas, or JSON as in model.json:
  NAME        a number
  NAME:SIZE   a list of numbers
  NAME=A|B|C  a category with these values
  NAME?...    optional: may be missing

"""


def fields_options(is_required: bool) -> Callable[[F], F]:
    """Add --inputs and --outputs."""

    def add(function: F) -> F:
        for name in ("outputs", "inputs"):
            function = click.option(
                f"--{name}",
                required=is_required,
                metavar="FIELDS",
                help=_HELP.format(name),
            )(function)
        return function

    return add


def read_fields(text: str, option: str) -> list[Field]:
    """Read fields from the command line.

    Args:
        text: As in the first line of this file, or a JSON list as in `model.json`.
        option: The name of the option, for errors.

    Raises:
        click.BadParameter: If the text is invalid.

    Example:
        >>> read_fields("wind, dish?=1|2", "--inputs")
        [Number(name='wind', size=1, optional=False),
         Category(name='dish', values=('1', '2'), optional=True, encoding='one-hot')]
    """
    from livestep.models.fields.field_types import Category, Field, Number

    try:
        if text.lstrip().startswith("["):
            return msgspec.json.decode(text, type=list[Field])
        fields: list[Field] = []
        for part in text.split(","):
            found = _FIELD.fullmatch(part.strip())
            if found is None:
                raise ValueError(f"{part.strip()!r} is not a field")
            is_optional = found["optional"] is not None
            if found["values"]:
                values = tuple(value.strip() for value in found["values"].split("|"))
                fields.append(Category(found["name"], values, is_optional))
            else:
                fields.append(Number(found["name"], int(found["size"] or 1), is_optional))
        return fields
    except (ValueError, msgspec.MsgspecError) as error:
        raise click.BadParameter(str(error), param_hint=option) from None
