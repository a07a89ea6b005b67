"""What `model.json` says: which class, how large, and what its columns mean.

Everything here looks at values only, and nothing here needs torch: a client reads `model.json` with
it. Each check says in a ModelError what was expected and what was found. Files are read in
`reading.py`; what concerns the weights is in `weights.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

import msgspec

from livestep.models.fields.field_types import CodecName, Field, OutputField, is_index, total_width
from livestep.models.model_errors import ModelError
from livestep.models.sequences.rules import Feedback, Generation, SequenceRules, Shape, check_rules

if TYPE_CHECKING:
    from livestep.models.contract import StepModel

#: The layout of `model.json` that this code writes and reads; a change of meaning counts it up.
FORMAT_VERSION = 1

Dtype = Literal["float32", "mixed"]

#: Members of `model.json` with a few values only.
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "codec": get_args(CodecName),
    "dtype": get_args(Dtype),
    "shape": get_args(Shape),
}

#: More columns than these are a mistake in `model.json`, not a model.
SIZE_MAX = 1_000_000


class ModelFile(
    msgspec.Struct,
    forbid_unknown_fields=True,
    kw_only=True,
    omit_defaults=True,
    rename={"cell": "class"},
):
    """The members of `model.json`: required, but for those of the rules that have a default.

    Attributes:
        format_version: `FORMAT_VERSION`.
        cell: Written as `class`: a key of `weights.CELLS`, `package.module:Class` for a class of a
            user's, or a kind of program, see `programs`.
        sizes: The arguments of that class; the state tensors of a program.
        dtype: Of every tensor in the weights; "mixed" if it isn't float32.
        shape: Shape of sequence, see `rules.SequenceRules`.
        feedback: As in `rules.SequenceRules`, like the two that follow.
        generation: Of the shapes that generate.
        session_gap_ms: Event time after which a key begins anew.
        inputs: What the H_in columns mean, side by side.
        outputs: What the H_out columns mean, side by side.
        codec: What a record's value is: "json", or "float32" for raw little-endian values.
        fingerprint: Of weights and meaning, see `fingerprint_of`.
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

    @property
    def rules(self) -> SequenceRules:
        """The rules that the members state."""
        return SequenceRules(
            shape=self.shape,
            feedback=self.feedback,
            generation=self.generation,
            session_gap_ms=self.session_gap_ms,
        )


class _Version(msgspec.Struct):
    """The one member that can be read whatever the layout."""

    format_version: int


def decode_description(text: bytes, file: Path | None) -> ModelFile:
    """Decode `model.json` strictly: every member, its type, no other member."""
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
        return msgspec.json.decode(text, type=ModelFile)
    except RecursionError as error:
        raise ModelError("lists or objects that are too deep", file=file) from error
    except msgspec.ValidationError as error:  # says what was expected, what was found, and where
        _check_choices(text, file)
        raise ModelError(str(error), file=file) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"not JSON: {error}", file=file) from error


def _check_choices(text: bytes, file: Path | None) -> None:
    """Raise ModelError with all choices if a member is none of them, which msgspec doesn't list."""
    try:
        members = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return  # what was found first is the error
    for name, choices in _CHOICES.items():
        if name in members and members[name] not in choices:
            raise ModelError(
                f"no such {name}",
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
                expected=f"{SIZE_MAX} at most",
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
    """Raise ModelError if an index stands where it has no meaning, or can't be checked."""
    for output in description.outputs:
        if is_index(output):
            problem = f"output {output.name!r} needs a logit for each value: one-hot"
            raise ModelError(problem, file=file, field="outputs")
    fed = {link.input for link in description.feedback}
    for field in description.inputs:
        if is_index(field) and field.name in fed:
            problem = f"input {field.name!r} is an index; what is fed back comes one-hot"
            raise ModelError(problem, file=file, field="feedback.input")
        if is_index(field) and description.codec != "json":
            # Raw numbers are not looked at: any number would be taken for an index.
            problem = f"input {field.name!r} is an index, which raw float32 can't check; use json"
            raise ModelError(problem, file=file, field="codec")


def one_of(names: Iterable[str]) -> str:
    """Join names to a phrase for an error."""
    return " or ".join(names)
