"""Opening the file of an exported program without running anything that stands in it.

`torch.export.load` unpickles, imports, evaluates and links what a file names. So a file is taken
apart here, each part is checked against what a plain program needs (operators of aten on tensors),
and a new archive of the checked parts is what torch gets to see: what was checked is what is
loaded. A file with anything else is refused.
"""

from __future__ import annotations

import io
import json
import keyword
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import torch

from models.errors import ModelError

#: The members of an archive that are read; there is no other kind in the file of a plain program.
_MEMBERS = re.compile(
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)|"
    r"data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt|"
    r"archive_format|archive_version|version|byteorder|\.data/(version|serialization_id)"
)

#: Functions that a graph may call: aten's, and Python's on numbers. None of these reads a file.
_TARGETS = re.compile(
    r"torch\.ops\.aten\.(?!from_file\b)[a-zA-Z]\w*\.[a-zA-Z]\w*|torch\.ops\.aten\._[a-z]\w*\.\w+|"
    r"_operator\.(getitem|add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)

#: Words of a size's formula, which is evaluated; names of sizes stand in quotes.
_FORMULA_WORDS = {
    *("Symbol", "Integer", "Rational", "Add", "Mul", "Pow", "Mod", "PythonMod", "FloorDiv"),
    *("CeilDiv", "Max", "Min", "Eq", "Ne", "Lt", "Le", "Gt", "Ge"),
    *("positive", "nonnegative", "integer", "True", "False"),
}
_FORMULA_NAME = re.compile(r"'[a-z]{1,4}\d+'")
_FORMULA = re.compile(r"[\w\s+\-*/(),=<>]*")
_WORD = re.compile(r"[A-Za-z_]\w*")

#: Structures that arguments and results may have.
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def checked_archive(content: bytes) -> io.BytesIO:
    """Check the file of an exported program, and write it anew from its checked parts.

    Args:
        content: Of a file that `torch.export.save` has written.

    Returns:
        archive: What `torch.export.load` may open.

    Raises:
        ModelError: If there is anything in it that a plain program has not.
    """
    try:
        members = _read_members(content)
        for name, data in members.items():
            if name.endswith(".json"):
                for key, value in _walk(json.loads(data)):
                    _check_entry(key, value)
        torch.load(io.BytesIO(members["data/sample_inputs/model.pt"]), weights_only=True)
    except ModelError:
        raise
    except Exception as error:  # whatever a broken file makes the readers raise
        problem = f"no exported program: {type(error).__name__}: {error}"
        raise ModelError(problem.splitlines()[0]) from error
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as writer:
        for name, data in members.items():
            writer.writestr(f"program/{name}", data)
    archive.seek(0)
    return archive


def _read_members(content: bytes) -> dict[str, bytes]:
    members = {}
    with zipfile.ZipFile(io.BytesIO(content)) as reader:
        for name in reader.namelist():
            inner = name.partition("/")[2]
            if not _MEMBERS.fullmatch(inner):
                raise _refused(f"a member {name!r}")
            members[inner] = reader.read(name)
    return members


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Give all members of a JSON value, however deep, by name."""
    yield key, value
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, key)


def _check_entry(key: str, value: Any) -> None:
    """Refuse what torch would run, import or unpickle."""
    if key in ("target", "as_operator") and not _TARGETS.fullmatch(str(value)):
        raise _refused(f"a call of {value!r}")
    if key == "expr_str":
        _check_formula(str(value))
    if key in ("in_spec", "out_spec") and value:
        for inner_key, inner in _walk(json.loads(value)):
            if inner_key == "type" and inner not in _CONTAINERS:
                raise _refused(f"a structure {inner!r}")
    if key == "name" and value and isinstance(value, str):
        if not value.isidentifier() or keyword.iskeyword(value):
            raise _refused(f"a name {value!r}")
    if (key == "use_pickle" and value is not False) or (
        key in ("as_custom_obj", "custom_obj_values", "treespec_namedtuple_fields") and value
    ):
        raise _refused(f"{key} {str(value)[:60]}: an object that is no tensor")


def _check_formula(text: str) -> None:
    bare = _FORMULA_NAME.sub("", text)
    words = set(_WORD.findall(bare))
    if not _FORMULA.fullmatch(bare) or not words <= _FORMULA_WORDS:
        raise _refused(f"a size {text[:80]!r}")


def _refused(what: str) -> ModelError:
    return ModelError(
        f"not opened: the file has {what}; only operators of aten on tensors are taken. "
        "Write the model as a class instead, see `livestep model init`"
    )
