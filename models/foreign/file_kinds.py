"""What kind of program a file is, found from its bytes before torch reads any of them.

Nothing is unpickled here: only the names that a pickle would import are listed.
"""

from __future__ import annotations

import io
import json
import pickletools
import zipfile
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple, NoReturn

from livestep.models.model_errors import ModelError

Kind = Literal["torchscript", "exported"]

#: Bytes of a pickle that are searched for names.
_PICKLE_BYTES_MAX = 16 << 20

#: Modules that a pickle of tensors in plain containers imports from.
_TENSOR_MODULES = ("torch", "torch._utils", "torch.serialization", "collections", "_codecs")

_EXPORT = (
    "torch.export.export(net, (inputs, state), dynamic_shapes=({0: N}, {0: N})) and "
    "torch.export.save, then import that file"
)
_FROM_TORCH = f"export the torch net that it was made from: {_EXPORT}"
_REBUILD = (
    "write the net as a torch class with initial_state and step (see livestep model init), copy "
    "the weights into it, and call save_model(net, DIR)"
)
_LOAD_WEIGHTS = (
    "create the net that they belong to, call net.load_state_dict({how}) and save_model(net, DIR); "
    "its class needs initial_state and step (see livestep model init)"
)
_WHOLE_OBJECTS = (
    "opening it would run its code, so livestep never does; if you trust the file, load it where "
    "its class is available and call save_model(net, DIR)"
)


class FileKind(NamedTuple):
    """The kind of a file.

    Attributes:
        words: Its name, with an article.
        advice: What the user can do with it.
    """

    words: str
    advice: str


#: The first bytes of known kinds of files.
_BEGINNINGS: Final = {
    b"\x89HDF\r\n\x1a\n": FileKind(
        "an HDF5 file, such as Keras writes as .h5", f"livestep runs torch only: {_REBUILD}"
    ),
    b"GGUF": FileKind("a GGUF file of llama.cpp", f"livestep runs torch only: {_REBUILD}"),
    b"\x93NUMPY": FileKind("a NumPy array", _REBUILD),
    b"\x1f\x8b": FileKind("a gzip file", "unpack it, then import its contents"),
    b"BZh": FileKind("a bzip2 file", "unpack it, then import its contents"),
    b"\xfd7zXZ\0": FileKind("an xz file", "unpack it, then import its contents"),
    b"\x28\xb5\x2f\xfd": FileKind("a zstd file", "unpack it, then import its contents"),
    b"version https://git-lfs": FileKind(
        "a Git LFS pointer, not the file itself", "run git lfs pull"
    ),
    # The magic number of torch.save before version 1.6, as a pickle writes it.
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": FileKind(
        "a pickle from torch.save before torch 1.6",
        "if it holds weights, "
        + _LOAD_WEIGHTS.format(how="torch.load(FILE, weights_only=True)")
        + f"; if it holds a whole net, {_WHOLE_OBJECTS}",
    ),
}

_ONNX = FileKind("an ONNX model", f"livestep runs torch programs only: {_FROM_TORCH}")
_SAVED_MODEL = FileKind(
    "a protobuf file, perhaps a TensorFlow graph", f"livestep runs torch only: {_REBUILD}"
)
_TFLITE = FileKind("a TensorFlow Lite model", f"livestep runs torch only: {_REBUILD}")
_SAFETENSORS = FileKind(
    "safetensors weights without a net",
    _LOAD_WEIGHTS.format(how="safetensors.torch.load_file(FILE)"),
)
_STATE_DICT = FileKind(
    "weights from torch.save (a state_dict) without a net",
    _LOAD_WEIGHTS.format(how="torch.load(FILE, weights_only=True)"),
)
_COMPILED = FileKind(
    "a package that AOTInductor compiled for one machine", f"export the net itself: {_EXPORT}"
)
_KERAS = FileKind("a Keras model", f"livestep runs torch only: {_REBUILD}")
_TAR = FileKind("a tar archive", "unpack it, then import its contents")
_EMPTY = FileKind("an empty file", "copy or download it again")
_DAMAGED_ZIP = FileKind(
    "a truncated or damaged zip archive", "copy or download it again, or export it again"
)
_ANY_ZIP = FileKind("another kind of zip archive", "unpack it, then import its contents")
_TEXT = FileKind("a text file", "if it is the error page of a download, download the file again")
_UNKNOWN = FileKind("an unknown kind of file", f"to get one that can be imported: {_EXPORT}")


def program_kind(content: bytes) -> Kind:
    """Return which kind of program a file is, from the members of its archive; opens none.

    Args:
        content: The bytes of the file.

    Raises:
        ModelError: If it is not a program; states what it is, and what to do.

    Example:
        >>> program_kind(b"GGUF")
        Traceback (most recent call last):
        livestep.models.model_errors.ModelError: the file is neither TorchScript nor ...
    """
    if content.startswith(b"PK"):
        return _kind_of_archive(content)
    _refuse(_kind_of_bytes(content))


def _kind_of_archive(content: bytes) -> Kind:
    """Look at the member names of a zip archive; all start with the archive's own folder."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            inner = {name.partition("/")[2] for name in names}
            if any(name.startswith("data/aotinductor/") for name in inner):
                _refuse(_COMPILED)
            if "models/model.json" in inner and "archive_format" in inner:
                return "exported"
            if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
                return "torchscript"
            if pickles := [name for name in names if name.partition("/")[2] == "data.pkl"]:
                with archive.open(pickles[0]) as stream:
                    _refuse(_saved_by_torch(stream.read(_PICKLE_BYTES_MAX)))
    except ModelError:
        raise
    except Exception:  # a broken archive can make the reader raise anything
        _refuse(_DAMAGED_ZIP)
    if "model.weights.h5" in names:
        _refuse(_KERAS)
    _refuse(_ANY_ZIP)


def _saved_by_torch(pickle: bytes) -> FileKind:
    """Distinguish weights from whole objects by the names that a pickle would import."""
    found = {name for module, name in _imports(pickle) if module not in _TENSOR_MODULES}
    foreign = sorted(found)
    if not foreign:
        return _STATE_DICT
    shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
    return FileKind(f"a pickle of whole objects ({shown}) from torch.save", _WHOLE_OBJECTS)


def _imports(pickle: bytes) -> Iterator[tuple[str, str]]:
    """List module and full name of each import of a pickle, without importing any."""
    texts: list[str] = []
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            yield module, f"{module}.{name}"
        elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
            yield texts[-2], f"{texts[-2]}.{texts[-1]}"
        elif isinstance(argument, str):
            texts.append(argument)


def _kind_of_bytes(content: bytes) -> FileKind:
    """Return the kind of a file that is not a zip archive."""
    if not content:
        return _EMPTY
    for beginning, kind in _BEGINNINGS.items():
        if content.startswith(beginning):
            return kind
    if content[4:8] == b"TFL3":
        return _TFLITE
    if content[257:262] == b"ustar":
        return _TAR
    if _is_safetensors(content):
        return _SAFETENSORS
    if content[0] == 0x80 and len(content) > 1 and content[1] in range(2, 6):
        return FileKind("a Python pickle", _WHOLE_OBJECTS)
    if (fields := _protobuf_fields(content)) is not None:
        # A ModelProto starts with its version and has its graph in field 7.
        return _ONNX if 7 in fields else _SAVED_MODEL
    return _TEXT if _is_text(content) else _UNKNOWN


def _is_safetensors(content: bytes) -> bool:
    """Whether the file has a JSON object of the length that its first eight bytes state."""
    length = int.from_bytes(content[:8], "little")
    if content[8:9] != b"{" or not 2 <= length <= len(content) - 8:
        return False
    try:
        return isinstance(json.loads(content[8 : 8 + length]), dict)
    except (ValueError, RecursionError):
        return False


def _protobuf_fields(content: bytes) -> set[int] | None:
    """List the fields of a protobuf message whose first is a small number; None if invalid."""
    if content[0] != 0x08 or len(content) < 4 or content[1] >= 0x80:
        return None
    fields: set[int] = set()
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        field, wire = tag >> 3, tag & 7
        if not 1 <= field < 100:
            return None
        if wire == 0:
            _, at = _varint(content, at)
        elif wire == 2:
            length, at = _varint(content, at)
            at += length
        else:
            return None
        fields.add(field)
    return fields if at == len(content) and len(fields) > 1 else None


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Read a varint (seven bits per byte) and the next position; 0 past the end."""
    number = shift = 0
    while at < len(content) and shift < 70:
        byte = content[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
    return 0, at + 1


def _is_text(content: bytes) -> bool:
    """Whether a file starts with UTF-8 text."""
    beginning = content[:1000]
    text = beginning.decode("utf-8", errors="ignore")
    is_whole = len(text.encode()) >= len(beginning) - 3  # the cut may split a character
    return is_whole and all(one.isprintable() or one in "\t\r\n" for one in text)


def _refuse(kind: FileKind) -> NoReturn:
    raise ModelError(
        f"the file is neither TorchScript nor an exported program but {kind.words}; {kind.advice}"
    )
