"""Both kinds of loops, as parameters of tests that run on each."""

from __future__ import annotations

import pytest

from livestep.pipeline.native import WHY_NOT, native

_needs_native = pytest.mark.skipif(native is None, reason=f"no native loops: {WHY_NOT}")

#: None for the loops in Python, or the library of the native ones.
LIBRARIES = [
    pytest.param(None, id="Python"),
    pytest.param(native, id="native", marks=_needs_native),
]
