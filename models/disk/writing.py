"""Writing the files of a model directory: all of them whole, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from livestep.models.model_errors import ModelError


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files to a folder, which is made if it is not there, in place of older ones.

    All are written in full beside the old ones before any takes its place.

    Raises:
        ModelError: If the folder can't be written; nothing was replaced then.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace_files({folder / name: content for name, content in contents.items()})
    except OSError as error:
        raise ModelError(f"can't be written: {error.strerror}", file=folder) from error


def _replace_files(contents: Mapping[Path, bytes]) -> None:
    """Write all files beside their places, then rename them one after the other."""
    written: list[tuple[Path, Path]] = []
    try:
        for file, content in contents.items():
            beside = file.with_name(f".{file.name}.{os.getpid()}.part")
            written.append((beside, file))
            with beside.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())  # a rename must not reach the disk before the bytes
        for beside, file in written:
            beside.replace(file)
    finally:
        for beside, _ in written:
            beside.unlink(missing_ok=True)
