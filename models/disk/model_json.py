"""`model.json`: which class or program, its sizes, its fields, and its rules.

Looks at values only and does not load torch, so that clients can read a model's description.
Each check raises a ModelError that states what was expected and what was found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

import msgspec

from livestep.models.disk.model_files import DESCRIPTION_FILE, read_file
from livestep.models.fields.field_types import (
    CodecName,
    Field,
    OutputField,
    is_index,
    total_width,
)
from livestep.models.model_errors import ModelError
from livestep.models.sequences.rules import Feedback, Generation, SequenceRules, Shape, check_rules

if TYPE_CHECKING:
    from livestep.models.contract import StepModel

#: The layout of `model.json` that this code writes and reads; a change of meaning increments it.
FORMAT_VERSION = 1

Dtype = Literal["float32", "mixed"]

#: Members of `model.json` that accept only a few values.
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "codec": get_args(CodecName),
    "dtype": get_args(Dtype),
    "shape": get_args(Shape),
}

#: More columns than these are a mistake in `model.json`, not a model.
SIZE_MAX = 1_000_000

#: Bytes of the longest `model.json`: enough for `SIZE_MAX` columns with long names.
DESCRIPTION_BYTES_MAX = 128 << 20


class ModelFile(msgspec.Struct, kw_only=True):
    """What `model.json` describes.

    Attributes:
        cell: A key of `own_classes.CELLS`, `package.module:Class` for a user's class, or a kind of
            program, see `programs`.
        sizes: The arguments of that class; the state tensors of a program.
        dtype: Of every tensor in the weights; "mixed" unless all are float32.
        rules: How events form sequences, and what is answered.
        inputs: What the H_in columns mean, side by side.
        outputs: What the H_out columns mean, side by side.
        codec: Format of a record's value: "json", or "float32" for raw little-endian values.
        fingerprint: Of weights and meaning, see `fingerprint_of`.
    """

    cell: str
    sizes: dict[str, Any]
    dtype: Dtype
    rules: SequenceRules
    inputs: tuple[Field, ...]
    outputs: tuple[OutputField, ...]
    codec: CodecName
    fingerprint: str = ""


class _Members(
    msgspec.Struct,
    forbid_unknown_fields=True,
    kw_only=True,
    omit_defaults=True,
    rename={"cell": "class"},
):
    """The members of the file, where those of the rules are next to all others.

    Required, except for the members of the rules that have a default. As in `ModelFile`.
    """

    format_version: int
    cell: str
    sizes: dict[str, Any]
    dtype: Dtype
    shape: Shape
    feedback: tuple[Feedback, ...] = ()
    generation: Generation | None = None
    session_gap_ms: Annotated[int, msgspec.Meta(ge=1)] | None = None
    inputs: tuple[Field, ...]
    outputs: tuple[OutputField, ...]
    codec: CodecName
    fingerprint: str


class _Version(msgspec.Struct):
    """The one member that can be read in every layout."""

    format_version: int


def read_description(directory: str | Path) -> ModelFile:
    """Read `model.json` from a directory and check its fields and rules, but not the weights.

    Args:
        directory: What `save_model` wrote.

    Returns:
        description: Its codec, fields and rules fit each other.

    Raises:
        ModelError: If the directory or file is missing, or a member is invalid.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise ModelError("no such directory", file=folder)
    file = folder / DESCRIPTION_FILE
    description = decode_description(read_file(file, bytes_max=DESCRIPTION_BYTES_MAX), file)
    check_widths(description, file)
    check_fields(description, file)
    return description


def encode_description(description: ModelFile) -> bytes:
    """Encode the content of `model.json`; the inverse of `decode_description`."""
    members = msgspec.structs.asdict(description)
    rules = msgspec.structs.asdict(members.pop("rules"))
    file = _Members(format_version=FORMAT_VERSION, **members, **rules)
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def decode_description(text: bytes, file: Path | None) -> ModelFile:
    """Decode `model.json` strictly: every member and its type, and no others.

    Args:
        text: Content of the file.
        file: For errors; None while saving.

    Raises:
        ModelError: If it isn't JSON, has another format version, or a member is invalid.
    """
    try:
        version = msgspec.json.decode(text, type=_Version).format_version
        if version != FORMAT_VERSION:
            raise ModelError(
                "written by another version of this program",
                file=file,
                field="format_version",
                expected=FORMAT_VERSION,
                found=version,
            )
        members = msgspec.structs.asdict(msgspec.json.decode(text, type=_Members))
    except RecursionError as error:
        raise ModelError("lists or objects are nested too deeply", file=file) from error
    except msgspec.ValidationError as error:  # states what was expected, what was found, and where
        _check_choices(text, file)
        raise ModelError(str(error), file=file) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"not JSON: {error}", file=file) from error
    del members["format_version"]
    rules = {name: members.pop(name) for name in SequenceRules.__struct_fields__}
    return ModelFile(rules=SequenceRules(**rules), **members)


def _check_choices(text: bytes, file: Path | None) -> None:
    """Raise ModelError with all choices if a member has none of them; msgspec doesn't list them."""
    try:
        members = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return  # the first error is the one to report
    for name, choices in _CHOICES.items():
        if name in members and members[name] not in choices:
            raise ModelError(
                f"unknown {name}",
                file=file,
                field=name,
                expected=one_of(choices),
                found=repr(members[name]),
            )


def check_widths(description: ModelFile, file: Path | None) -> None:
    """Raise ModelError if fields have more columns than any model: before anything is built."""
    for member, fields in (("inputs", description.inputs), ("outputs", description.outputs)):
        if total_width(fields) > SIZE_MAX:
            raise ModelError(
                "too many columns",
                file=file,
                field=member,
                expected=f"at most {SIZE_MAX}",
                found=total_width(fields),
            )


def check_description(description: ModelFile, cell: StepModel, file: Path | None) -> None:
    """Raise ModelError unless fields are distinct and fit the cell's sizes, and rules fit them."""
    check_fields(description, file)
    for member, fields, size_name in (
        ("inputs", description.inputs, "input_size"),
        ("outputs", description.outputs, "output_size"),
    ):
        size = getattr(cell, size_name)
        if total_width(fields) != size:
            raise ModelError(
                "the widths of the fields don't add up",
                file=file,
                field=member,
                expected=f"{size} columns ({size_name})",
                found=f"{total_width(fields)} in {len(fields)} field(s)",
            )


def check_fields(description: ModelFile, file: Path | None) -> None:
    """Raise ModelError unless fields are distinct and the rules fit them."""
    for member, fields in (("inputs", description.inputs), ("outputs", description.outputs)):
        duplicates = [
            name for name, count in Counter(field.name for field in fields).items() if count > 1
        ]
        if duplicates:
            problem = f"two fields have the name {min(duplicates)!r}"
            raise ModelError(problem, file=file, field=member)
    _check_index_fields(description, file)
    try:
        check_rules(description.rules, description.inputs, description.outputs, description.codec)
    except ModelError as error:
        raise error.in_file(file) from None


def _check_index_fields(description: ModelFile, file: Path | None) -> None:
    """Raise ModelError if a field has index columns where they have no meaning or no check."""
    for output in description.outputs:
        if is_index(output):
            problem = f"output {output.name!r} needs a logit for each value: one-hot"
            raise ModelError(problem, file=file, field="outputs")
    for field in filter(is_index, description.inputs):
        if field.name in description.rules.fed_inputs:
            problem = f"input {field.name!r} is an index, but feedback is one-hot"
            raise ModelError(problem, file=file, field="feedback.input")
        if description.codec != "json":
            # Raw numbers are not inspected, so that any number would pass for an index.
            problem = f"input {field.name!r} is an index, which raw float32 can't check; use json"
            raise ModelError(problem, file=file, field="codec")


def one_of(names: Iterable[str]) -> str:
    """Join names to a phrase for an error."""
    return " or ".join(names)
