"""How a program that measures begins and ends: its folder, its exit code."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from livestep.deploy.local.child_process import orderly_termination
from livestep.deploy.local.jars import DATA_ROOT
from livestep.pipeline.exit_codes import ExitCode


@dataclass
class RunFolder:
    """A folder for the models, data and logs of one run.

    Attributes:
        path: Absolute.
        is_kept: Whether it remains after the run; set this if its logs explain a failure.
    """

    path: Path
    is_kept: bool = False


@contextlib.contextmanager
def run_folder(name: str, root: Path = DATA_ROOT) -> Iterator[RunFolder]:
    """Create a new folder `<root>/<name>-...`, and remove it at the end."""
    root.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root)).resolve())
    try:
        yield folder
    finally:
        if not folder.is_kept:
            shutil.rmtree(folder.path, ignore_errors=True)


@contextlib.contextmanager
def exits(*errors: type[Exception]) -> Iterator[None]:
    """End the program with one line for these errors, and with 130 after Ctrl-C or SIGTERM."""
    try:
        with orderly_termination():
            yield
    except errors as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPT)
