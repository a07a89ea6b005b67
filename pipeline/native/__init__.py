"""The optional native loops (Rust), if they are built and not switched off.

`livestep.pipeline.columns` uses them, and has their twins in Python.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from livestep.pipeline.errors import ConfigError

#: Set to `off` to use Python even where the native loops are built.
NATIVE_VARIABLE = "LIVESTEP_NATIVE"

_OFF, _ON = "off", "on"


def _load() -> tuple[ModuleType | None, str]:
    """Import the library; return it, and how to get it if there is none."""
    wanted = os.environ.get(NATIVE_VARIABLE, _ON)
    if wanted not in (_ON, _OFF):
        raise ConfigError(f"{NATIVE_VARIABLE} must be {_ON} or {_OFF}, not {wanted!r}")
    if wanted == _OFF:
        return None, f"{NATIVE_VARIABLE}={_OFF}"
    try:
        return importlib.import_module("livestep.pipeline.native._native"), ""
    except ModuleNotFoundError:
        return None, "not built: install cargo, and install livestep again"


#: The library, or None; and why it is None.
native, WHY_NOT = _load()


def loops_text() -> str:
    """Describe which loops run, for people.

    Example:
        >>> loops_text().split()[0] in ("native", "Python")
        True
    """
    return f"Python ({WHY_NOT})" if native is None else "native"
