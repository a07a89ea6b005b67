"""Packages that only `livestep[worker]` installs, and the error if one of them is missing."""

from __future__ import annotations

#: Their names as modules.
WORKER_PACKAGES = frozenset(
    {"faust", "mode", "redis", "safetensors", "tenacity", "torch", "xxhash"}
)


class MissingExtraError(ModuleNotFoundError):
    """Raised if a name or a command needs `livestep[worker]`, which is not installed.

    Args:
        subject: What needs it, such as `livestep.GRU` or `livestep worker`.
        package: The package that is missing.
    """

    def __init__(self, subject: str, package: str) -> None:
        super().__init__(
            f"{subject} needs {package}, which is not installed: pip install 'livestep[worker]'",
            name=package,
        )


def missing_extra(subject: str, error: ModuleNotFoundError) -> MissingExtraError | None:
    """Explain a failed import, if `livestep[worker]` would have prevented it.

    Args:
        subject: What needs the module.
        error: As Python raises it.

    Example:
        >>> print(missing_extra("livestep.GRU", ModuleNotFoundError(name="torch")))
        livestep.GRU needs torch, which is not installed: pip install 'livestep[worker]'
        >>> missing_extra("livestep.GRU", ModuleNotFoundError(name="my_package")) is None
        True
    """
    package = (error.name or "").partition(".")[0]
    return MissingExtraError(subject, package) if package in WORKER_PACKAGES else None
