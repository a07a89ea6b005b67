"""The files of a model directory: their names, and how they are read and replaced.

Knows nothing about their content, and does not load torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from livestep.models.model_errors import ModelError

DESCRIPTION_FILE = "model.json"

WEIGHTS_FILE = "model.safetensors"


def read_file(file: Path, bytes_max: int | None = None) -> bytes:
    """Read a whole file.

    Args:
        file: A regular file.
        bytes_max: The most bytes that it may have; by default, the memory of this machine.

    Raises:
        ModelError: If it can't be read or is too long.
    """
    if bytes_max is None:
        bytes_max = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        if file.exists() and not file.is_file():  # reading a pipe would wait for a writer
            raise ModelError("can't be read: not a regular file", file=file)
        if (size := file.stat().st_size) > bytes_max:
            expected = f"at most {bytes_max} bytes"
            raise ModelError("too long", file=file, expected=expected, found=size)
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"can't be read: {error.strerror}", file=file) from error


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Replace files in a folder: all of them, or none.

    All are written in full under temporary names before the first one is replaced.

    Args:
        folder: Created if it is missing.
        contents: Bytes of each file, by name.

    Raises:
        ModelError: If the folder can't be written; then nothing was replaced.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace_files({folder / name: content for name, content in contents.items()})
    except OSError as error:
        raise ModelError(f"can't be written: {error.strerror}", file=folder) from error


def _replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write all files under temporary names, then rename them one by one."""
    written: list[tuple[Path, Path]] = []
    try:
        for file, content in contents.items():
            temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
            written.append((temporary, file))
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())  # a rename must not reach the disk before the bytes
        for temporary, file in written:
            temporary.replace(file)
    finally:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)
