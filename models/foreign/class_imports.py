"""Users' classes, found by name: `package.module:Class`.

Importing a package runs its code, so it happens only if the operator allows the package.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from livestep.models.foreign.foreign_errors import FOREIGN_ERRORS, error_in_words, kind_of
from livestep.models.model_errors import ModelError

#: `package.module:Class`.
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")

#: The setting that allows importing a package or opening a program.
SETTING = "--model-packages or LIVESTEP_MODEL_PACKAGES"


def class_path(module: nn.Module) -> str:
    """Name the class of a module as `package.module:Class`.

    Raises:
        ModelError: If the class can't be imported by that name.
    """
    kind = type(module)
    where = inspect.getmodule(kind)
    if _is_program(kind.__module__):
        raise ModelError(
            f"{kind.__name__} is defined in the running program, where no worker can import it; "
            "move it to its own file and import it from there",
            field="class",
        )
    if getattr(where, kind.__qualname__, None) is not kind:
        problem = f"{kind.__qualname__} is not at the top level of {kind.__module__}; move it there"
        raise ModelError(problem, field="class")
    return f"{kind.__module__}:{kind.__qualname__}"


def import_class(
    path: str, allowed_packages: Collection[str], file: Path | None = None
) -> type[nn.Module]:
    """Import a class by its name, if its package is allowed.

    The package may be in the current folder, which is searched for this import only: what its
    functions import later must be installed or on PYTHONPATH.

    Args:
        path: `package.module:Class`.
        allowed_packages: Names of packages or modules that may be imported, with their contents.
        file: The file that contains the name, for errors.

    Raises:
        ModelError: If the package isn't allowed (then nothing was imported), the import fails, or
            the package has no such `torch.nn.Module`.
    """
    if not _PATH.fullmatch(path):
        raise ModelError(
            "invalid class name",
            file=file,
            field="class",
            expected="package.module:Class",
            found=repr(path),
        )
    module_name, name = path.split(":")
    if _is_program(module_name):
        problem = f"{module_name} would run as a program when imported; move the class to a module"
        raise ModelError(problem, file=file, field="class", found=path)
    if not any(module_name == one or module_name.startswith(f"{one}.") for one in allowed_packages):
        package = module_name.split(".")[0]
        raise ModelError(
            f"importing {module_name} runs its code, and the package isn't allowed; if you trust "
            f"it, add {package} to {SETTING}",
            file=file,
            field="class",
            expected=", ".join(allowed_packages) or "no package",
            found=path,
        )
    try:
        with _current_folder_last():
            module = importlib.import_module(module_name)
    except FOREIGN_ERRORS as error:
        problem = (
            f"importing {module_name} raised {error_in_words(error)}; "
            "run in its folder, or add that to PYTHONPATH"
        )
        raise ModelError(problem, file=file, field="class") from error
    kind = getattr(module, name, None)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        found = "nothing with that name" if kind is None else kind_of(kind)
        problem = f"{module_name} has no torch.nn.Module named {name!r}"
        raise ModelError(problem, file=file, field="class", found=found)
    return kind


def build_module(
    kind: type[nn.Module], sizes: Mapping[str, Any], file: Path | None = None
) -> nn.Module:
    """Create a module from keyword arguments.

    Raises:
        ModelError: If the constructor raises.
    """
    try:
        return kind(**sizes)
    except FOREIGN_ERRORS as error:
        raise ModelError(
            f"{kind.__name__}({_arguments(sizes)}) raised {error_in_words(error)}",
            file=file,
            field="sizes",
            expected=f"the arguments {inspect.signature(kind)}",
        ) from error


def _is_program(module_name: str) -> bool:
    """Whether a module is the running program, or one that `python -m` would run."""
    return "__main__" in module_name.split(".")


@contextmanager
def _current_folder_last() -> Iterator[None]:
    """Find a user's package in the current folder; last, so that it hides no installed package."""
    sys.path.append("")
    try:
        yield
    finally:
        from_end = sys.path[::-1]
        if "" in from_end:  # the package may have changed the path
            from_end.remove("")
            sys.path[:] = from_end[::-1]


def _arguments(sizes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in sizes.items())
