"""Open the file of an exported program without running code that it contains.

`torch.export.load` unpickles, imports, evaluates and links what a file names, and writes names from
the file into Python code that it runs. So `checked_archive` takes the file apart, checks each text
in it against what a plain program needs (aten operators on tensors), and builds a new archive from
the checked parts for torch: what was checked is what is loaded. A file with anything else is
refused.

This is the second line of defense: the first is that a program is opened only if the operator
allows it.
"""

from __future__ import annotations

import io
import json
import keyword
import re
import zipfile
from typing import Any, Final

import torch
from torch._ops import OpOverload
from torch.fx.operator_schemas import get_signature_for_torch_op

from livestep.models.model_errors import ModelError

#: The members that the file of a plain program may have.
_MEMBERS = re.compile(
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)|"
    r"data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt|"
    r"archive_format|archive_version|version|byteorder|\.data/(version|serialization_id)"
)

#: Python functions on numbers that a graph may call; everything else is an aten operator.
_FUNCTIONS = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)"
)
_OPERATOR = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")

#: Operators without a result may only check; the others print or write.
_CHECKING = ("_assert_", "sym_constrain_")

#: Words in the formula of a size, which torch evaluates; names of sizes are in quotes.
_FORMULA_WORDS = {
    *("Symbol", "Integer", "Rational", "Add", "Mul", "Pow", "Mod", "PythonMod", "FloorDiv"),
    *("CeilDiv", "Max", "Min", "Eq", "Ne", "Lt", "Le", "Gt", "Ge"),
    *("positive", "nonnegative", "integer", "True", "False"),
}
_FORMULA_NAME = re.compile(r"'[a-z]{1,4}\d+'")
_FORMULA = re.compile(r"[\w\s+\-*/(),=<>]*")
_WORD = re.compile(r"[A-Za-z_]\w*")

#: Containers that arguments and results may have.
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")

#: Member names that the file itself chooses: of tensors, sizes, weights.
_PATH = re.compile(r"\w+(\.\w+)*")

#: A size with a range, which torch only looks up: a symbol, or a multiple of one plus a number.
_SIZE = re.compile(r"(\d+\*)?\w+( [+-] \d+)?")

#: Allowed texts, by the name of their member; a text of any other member is refused.
_TEXTS: Final = {
    **dict.fromkeys(("parameter_name", "buffer_name", "tensor_constant_name"), _PATH),
    "fqn": re.compile(r"(\w+(\.\w+)*(@\d+)?)?"),
    "path_name": re.compile(r"(weight|tensor)_\d+"),
    # An argument of an operator: a rounding mode, the formula of an einsum.
    **dict.fromkeys(("as_string", "as_strings"), re.compile(r"[\w ,.>-]{0,200}")),
    **dict.fromkeys(("as_float", "as_floats"), re.compile(r"NaN|-?Infinity")),
    "type": re.compile(r"[a-z]+"),  # of a device
    **dict.fromkeys(("torch_version", "verifiers"), re.compile(r"[\w.+<=]*")),
}
_VARIABLES = ("name", "as_name", "forward_arg_names", "user_input_name")


def checked_archive(content: bytes) -> io.BytesIO:
    """Check the file of an exported program, and build a new one from its checked parts.

    Args:
        content: The bytes of a file from `torch.export.save`.

    Returns:
        archive: An archive that `torch.export.load` may open.

    Raises:
        ModelError: If the file has anything that a plain program doesn't need.
    """
    try:
        members = _read_members(content)
        for name, data in members.items():
            if name.endswith(".json"):
                members[name] = json.dumps(_checked(json.loads(data))).encode()
        torch.load(io.BytesIO(members["data/sample_inputs/model.pt"]), weights_only=True)
    except ModelError:
        raise
    except Exception as error:  # a broken file can make the readers raise anything
        problem = f"invalid exported program: {type(error).__name__}: {error}"
        raise ModelError(problem.splitlines()[0]) from error
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as writer:
        for name, data in members.items():
            writer.writestr(f"program/{name}", data)
    archive.seek(0)
    return archive


def _read_members(content: bytes) -> dict[str, bytes]:
    """Read an archive; it can't expand, since torch compresses nothing."""
    members = {}
    with zipfile.ZipFile(io.BytesIO(content)) as reader:
        if sum(entry.file_size for entry in reader.infolist()) > len(content):
            raise _refused("members larger than the file")
        for entry in reader.infolist():
            inner = entry.filename.partition("/")[2]
            if not _MEMBERS.fullmatch(inner):
                raise _refused(f"the member {entry.filename!r}")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise _refused(f"the compressed member {entry.filename!r}")
            members[inner] = reader.read(entry)
    return members


def _checked(value: Any, key: str = "") -> Any:
    """Copy a JSON value without its remarks; ModelError if it has more than a program needs."""
    if isinstance(value, dict):
        allowed = _SIZE if key == "range_constraints" else _PATH
        for name in value:
            if not allowed.fullmatch(name):
                raise _refused(f"the name {name!r}")
        return {
            name: type(inner)() if _is_remark(name, inner) else _checked(inner, name)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_checked(inner, key) for inner in value]
    _check_entry(key, value)
    return value


def _is_remark(name: str, value: Any) -> bool:
    """Whether a member is left out: texts for people, and guards, which are Python code."""
    if name == "metadata" and isinstance(value, dict):
        return all(isinstance(text, str) for text in value.values())
    return name == "guards_code" and isinstance(value, list)


def _check_entry(key: str, value: Any) -> None:
    """Refuse a value without members that torch would run, import or unpickle."""
    if key == "use_pickle" and value is not False:
        raise _refused(f"use_pickle {value}, an object that is not a tensor")
    if not isinstance(value, str):
        return
    if key in ("target", "as_operator"):
        _check_call(value)
    elif key == "expr_str":
        _check_formula(value)
    elif key in ("in_spec", "out_spec"):
        _check_structure(json.loads(value) if value else None)
    elif key in _VARIABLES:
        if not value.isidentifier() or keyword.iskeyword(value):
            raise _refused(f"the name {value!r}")
    elif key not in _TEXTS or not _TEXTS[key].fullmatch(value):
        raise _refused(f"the {key} {value[:80]!r}")


def _check_call(target: str) -> None:
    """Refuse all but aten operators that compute: none may access files or the terminal."""
    if _FUNCTIONS.fullmatch(target):
        return
    if (names := _OPERATOR.fullmatch(target)) is None:
        raise _refused(f"a call to {target!r}")
    operator = getattr(getattr(torch.ops.aten, names[1], None), names[2], None)
    if not isinstance(operator, OpOverload):
        raise _refused(f"a call to {target!r}, which this version of torch lacks")
    signatures = get_signature_for_torch_op(operator) or []
    for signature in signatures:
        is_computing = signature.return_annotation is not None or names[1].startswith(_CHECKING)
        if not is_computing or "filename" in signature.parameters:
            raise _refused(f"a call to {target!r}")


def _check_structure(value: Any) -> None:
    """Refuse structures other than tuples, lists, and dicts whose keys are names."""
    if isinstance(value, list):
        for inner in value:
            _check_structure(inner)
    elif isinstance(value, dict):
        if value.get("type") not in _CONTAINERS:
            raise _refused(f"the structure {value['type']!r}")
        context = value.get("context")
        names = json.loads(context) if isinstance(context, str) else context
        for name in [] if names is None else names:
            if not isinstance(name, int) and not _PATH.fullmatch(name):
                raise _refused(f"the name {name!r}")
        if not value.keys() <= {"type", "context", "children_spec"}:
            raise _refused(f"a structure with {', '.join(value)}")
        _check_structure(value.get("children_spec", []))
    elif value is not None and not isinstance(value, int):
        raise _refused(f"the structure {value!r}")


def _check_formula(text: str) -> None:
    bare = _FORMULA_NAME.sub("", text)
    words = set(_WORD.findall(bare))
    if not _FORMULA.fullmatch(bare) or not words <= _FORMULA_WORDS:
        raise _refused(f"the size {text[:80]!r}")


def _refused(what: str) -> ModelError:
    return ModelError(
        f"not opened: the file has {what}; livestep accepts aten operators on tensors only. "
        "Write the model as a class instead (see livestep model init)"
    )
