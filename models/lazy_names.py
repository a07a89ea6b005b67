"""Import the names of a package when they are first used (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from livestep.models.worker_extra import missing_extra


def lazy_names(
    package: str, names_by_module: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make `__getattr__` and `__dir__` for a package that imports its modules on first use.

    Args:
        package: Its `__name__`.
        names_by_module: For each module, the names that the package exports from it.

    Returns:
        getattr: Imports a name's module and stores the name in the package. Raises
            MissingExtraError if the module needs `livestep[worker]` and that is not installed.
        dir: Lists the package's names, imported or not.
    """
    homes = {name: module for module, names in names_by_module.items() for name in names}

    def get(name: str) -> Any:
        module = homes.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if (explained := missing_extra(f"{package}.{name}", error)) is None:
                raise
            raise explained from None
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
