"""Reports in one line that the native loops are missing, why, and what that costs.

    python -m livestep.deploy.native_loops

`make` runs it after the installation.
"""

from __future__ import annotations

import importlib.util
import shutil

#: What Python's loops cost, compared with the native ones; `make bench` measures both.
COST = "a worker takes about twice the CPU for each event"

#: Shows why the build fails, which pip doesn't.
BUILD_COMMAND = "cargo build --release --manifest-path pipeline/native/Cargo.toml"


def missing_text(is_built: bool, has_cargo: bool) -> str | None:
    """Describe what is missing; None if nothing is.

    Example:
        >>> missing_text(is_built=True, has_cargo=False) is None
        True
    """
    if is_built:
        return None
    if not has_cargo:
        why = "cargo is not on the PATH: install Rust (https://rustup.rs) and run make again"
    else:
        why = f"they could not be built: {BUILD_COMMAND}"
    return f"note: no native loops, so {COST}; {why}"


def main() -> None:
    """Print the line, if there is one."""
    is_built = importlib.util.find_spec("livestep.pipeline.native._native") is not None
    if text := missing_text(is_built, shutil.which("cargo") is not None):
        print(text)


if __name__ == "__main__":
    main()
