"""Data files of installed packages, which are located but not imported, as that takes seconds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from livestep.models.model_errors import ModelError


def package_folder(package: str, missing: str) -> Path:
    """Find the folder of an installed package.

    Args:
        package: Its name as a module.
        missing: Text of the error if it is not installed.

    Raises:
        ModelError: If it is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(missing)
    return Path(spec.submodule_search_locations[0])
