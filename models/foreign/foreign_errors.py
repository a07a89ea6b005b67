"""What foreign code raises and returns, in the words of a ModelError."""

from __future__ import annotations

from typing import Any

from livestep.models.model_errors import ModelError

#: What users' code may raise. A `sys.exit` in it must not end the worker, least of all with 0.
FOREIGN_ERRORS = (Exception, SystemExit)


class AsModelError:
    """Turn whatever foreign code raises into a ModelError that names the method."""

    def __init__(self, method: str) -> None:
        self._method = method

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, FOREIGN_ERRORS) and not isinstance(error, ModelError):
            raise ModelError(f"{self._method} raised {error_in_words(error)}") from error


def error_in_words(error: BaseException) -> str:
    """Describe an error in one line; for TorchScript, the last line, after the source code."""
    text = str(error)
    if text.startswith("The following operation failed in the TorchScript interpreter"):
        text = text.strip().splitlines()[-1].removeprefix("RuntimeError: ")
    return f"{type(error).__name__}: {' '.join(text.split())}"


def kind_of(value: Any) -> str:
    """Name the type of a value, for error messages."""
    if isinstance(value, tuple):
        return f"a tuple of {', '.join(type(one).__name__ for one in value) or 'nothing'}"
    return f"a {type(value).__name__}"
