"""Reading the files of a model directory, and its `model.json` without anything else.

Knows no torch: `read_description` is what a client needs to know of a model.
"""

from __future__ import annotations

import os
from pathlib import Path

from livestep.models.disk.description import (
    ModelFile,
    check_fields,
    check_widths,
    decode_description,
)
from livestep.models.model_errors import ModelError

DESCRIPTION_FILE = "model.json"

#: Bytes of the longest `model.json`: `description.SIZE_MAX` columns with long names have room.
DESCRIPTION_BYTES_MAX = 128 << 20


def read_description(directory: str | Path) -> ModelFile:
    """Read `model.json` from a directory and check its fields and rules; the weights are not read.

    Args:
        directory: What `save_model` wrote.

    Returns:
        description: Its codec, fields and rules fit each other.

    Raises:
        ModelError: If there is no such directory or file, or a member is invalid.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise ModelError("there is no such directory", file=folder)
    file = folder / DESCRIPTION_FILE
    description = decode_description(read_file(file, bytes_max=DESCRIPTION_BYTES_MAX), file)
    check_widths(description, file)
    check_fields(description, file)
    return description


def read_file(file: Path, bytes_max: int | None = None) -> bytes:
    """Read a file of at most so many bytes; None for as many as this machine has of memory.

    Raises:
        ModelError: If it can't be read or is too long.
    """
    if bytes_max is None:
        bytes_max = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        if file.exists() and not file.is_file():  # reading a pipe would wait for a writer
            raise ModelError("can't be read: it is no file", file=file)
        if (size := file.stat().st_size) > bytes_max:
            expected = f"{bytes_max} bytes at most"
            raise ModelError("too long", file=file, expected=expected, found=size)
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"can't be read: {error.strerror}", file=file) from error
