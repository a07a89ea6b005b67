"""The fingerprint of a model: a hash of its weights and of what gives them meaning."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import torch
from torch import Tensor

from livestep.models.disk.model_json import ModelFile
from livestep.models.fields.field_types import Category, Field, Number

#: Hexadecimal characters of the SHA-256 that are kept: 64 bits, short enough for each record.
FINGERPRINT_LENGTH = 16


def fingerprint_of(description: ModelFile, weights: Mapping[str, Tensor]) -> str:
    """Hash the weights and what gives them meaning, but not the codec and no file name.

    The code of a class is not hashed: to change what it computes, give it another name.

    Each tensor's bytes follow a line with its name, dtype and shape, which determine their number.

    Args:
        description: Of the model; its fingerprint is ignored.
        weights: Of the model, as they are stored; of a program, its file's bytes.

    Returns:
        fingerprint: `FINGERPRINT_LENGTH` hexadecimal characters.
    """
    meaning: dict[str, Any] = {
        "class": description.cell,
        "sizes": description.sizes,
        "inputs": [_field_meaning(field) for field in description.inputs],
        "outputs": [_field_meaning(field) for field in description.outputs],
    }
    # A member that older versions did not know is hashed only if it is set: their fingerprints stay
    # valid.
    for member, value in msgspec.structs.asdict(description.rules).items():
        if value or member == "shape":
            meaning[member] = value
    digest = hashlib.sha256(msgspec.json.encode(meaning, order="sorted") + b"\n")
    for name in sorted(weights):
        tensor = weights[name]
        digest.update(msgspec.json.encode([name, str(tensor.dtype), list(tensor.shape)]) + b"\n")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())  # little-endian
    return digest.hexdigest()[:FINGERPRINT_LENGTH]


def _field_meaning(field: Field) -> dict[str, Any]:
    """List a field's members; those that older versions did not know only if they are set."""
    members: dict[str, Any] = msgspec.to_builtins(field)
    if isinstance(field, Number) and not field.optional:
        del members["optional"]
    if isinstance(field, Category) and field.encoding == "one-hot":
        del members["encoding"]
    return members
