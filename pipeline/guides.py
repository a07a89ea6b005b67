"""Where the installed package keeps the documents that error messages point to."""

from __future__ import annotations

from pathlib import Path

#: The folder of the package `livestep`, found without importing it.
_PACKAGE = Path(__file__).parent.parent


def guide(name: str) -> Path:
    """Return the absolute path of a document that is installed with the package.

    Args:
        name: Path within the package, such as `deploy/security/README.md`.

    Example:
        >>> guide("deploy/security/README.md").is_file()
        True
    """
    return _PACKAGE.absolute() / name
