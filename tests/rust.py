"""Runs the tests of the native loops, with debug assertions.

python -m tests.rust
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

MANIFEST = Path(__file__).parents[1] / "pipeline" / "native" / "Cargo.toml"


def main() -> int:
    """Run `cargo test`; return its exit status."""
    folder, name = sysconfig.get_config_vars("LIBDIR", "LDLIBRARY")
    library = Path(folder, name)
    if not library.exists():
        # A test program links against Python; an extension doesn't.
        print(f"note: cargo test is skipped: it needs {library} (Debian: python3-dev)")
        return 0
    paths = {name: folder for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")}
    command = ["cargo", "test", "--quiet", "--no-default-features", "--manifest-path", MANIFEST]
    environment = {**os.environ, **paths, "PYO3_PYTHON": sys.executable}
    return subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
