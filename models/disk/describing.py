"""What `save_model` and `save_program` are told of a model's columns, as `model.json` says it."""

from __future__ import annotations

from collections.abc import Sequence
from types import UnionType
from typing import Any, get_args

from torch import nn

from livestep.models.disk.description import FORMAT_VERSION, ModelFile, one_of
from livestep.models.fields.field_types import CodecName, Field, Number, OutputField
from livestep.models.foreign.foreign_errors import kind_of
from livestep.models.model_errors import ModelError
from livestep.models.sequences.rules import SequenceRules


def describe(
    name: str,
    inputs: Sequence[Field],
    outputs: Sequence[OutputField],
    codec: CodecName,
    rules: SequenceRules,
) -> ModelFile:
    """Describe a model, but for its sizes and its fingerprint.

    Raises:
        ModelError: If inputs or outputs are not fields in a list.
    """
    _check_kinds("inputs", inputs, Field)
    _check_kinds("outputs", outputs, OutputField)
    return ModelFile(
        format_version=FORMAT_VERSION,
        cell=name,
        sizes={},
        dtype="float32",
        shape=rules.shape,
        feedback=rules.feedback,
        generation=rules.generation,
        session_gap_ms=rules.session_gap_ms,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        codec=codec,
        fingerprint="",
    )


def default_field(name: str, model: nn.Module, size_name: str) -> Number:
    """Name all columns of a model with one field, if the model says how many there are.

    Raises:
        ModelError: If it doesn't.
    """
    size = getattr(model, size_name, None)
    if not isinstance(size, int):
        member = size_name.replace("_size", "s")
        problem = f"{type(model).__name__} has no {size_name}: say what its columns mean"
        raise ModelError(problem, field=member, expected=f"{member}=[Number(...), ...]")
    return Number(name, size)


def _check_kinds(member: str, fields: Any, kinds: UnionType) -> None:
    """Raise ModelError unless fields are some fields in a list."""
    wrong = fields
    if isinstance(fields, Sequence) and not isinstance(fields, str):
        wrong = next((field for field in fields if not isinstance(field, kinds)), None)
        if wrong is None:
            return
    names = one_of(kind.__name__ for kind in get_args(kinds))
    raise ModelError(
        "what the columns mean, as fields in a list",
        field=member,
        expected=f"{member}=[...], each a {names}",
        found=kind_of(wrong),
    )
