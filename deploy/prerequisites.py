"""Checks that this machine has what `make` needs, and names the commands that install the rest.

    python3 deploy/prerequisites.py

Runs before anything is installed: it needs only the standard library and the syntax of Python 3.7,
so that an old Python can report that it is too old.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

#: The oldest supported Python.
PYTHON_VERSION_MIN = (3, 11)

#: The oldest Java that Kafka 4 supports.
JAVA_VERSION_MIN = 17

#: `java -version` takes a tenth of a second; a placeholder for a missing Java may open a window.
JAVA_TIMEOUT_S = 20

#: From this release on, Debian has Java 21 instead of 17.
DEBIAN_WITH_JAVA_21 = 13


class Missing(NamedTuple):
    """A missing program: what, why, and its packages for apt-get and brew."""

    what: str
    apt: str
    brew: str


def main() -> int:
    """Print what is missing, with the commands that install it; return the exit status."""
    missing = [found for found in (python(), java(), maven(), make()) if found is not None]
    for found in missing:
        print(f"error: {found.what}", file=sys.stderr)
        print(f"  install it: {install_command(found)}", file=sys.stderr)
    return 1 if missing else 0


def python() -> Missing | None:
    """Check that this Python is new enough, and can create a virtual environment."""
    needed = ".".join(map(str, PYTHON_VERSION_MIN))
    found = ".".join(map(str, sys.version_info[:2]))
    if sys.version_info[:2] < PYTHON_VERSION_MIN:
        return Missing(
            f"Python {needed} or newer is needed, and {sys.executable} is {found} "
            f"(a newer one under another name: make PYTHON=python{needed})",
            apt=f"python{needed} python{needed}-venv",
            brew=f"python@{needed}",
        )
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        return Missing(
            f"{sys.executable} can't create a virtual environment: venv or ensurepip is missing",
            apt=f"python{found}-venv",
            brew=f"python@{found}",
        )
    return None


def java() -> Missing | None:
    """Run the `java` on the PATH, since that file may be a placeholder, and read its version."""
    if shutil.which("java") is None:
        return _no_java("java is not on the PATH")
    try:
        answer = subprocess.run(
            ["java", "-version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=JAVA_TIMEOUT_S,
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        return _no_java(f"the one on the PATH does not answer: {error}")
    version = java_version(answer)
    if version is None:
        return _no_java(f"java -version prints: {' '.join(answer.split())}")
    if version < JAVA_VERSION_MIN:
        return _no_java(f"the one on the PATH is Java {version}")
    return None


def _no_java(why: str) -> Missing:
    return Missing(
        f"Java {JAVA_VERSION_MIN} or newer is needed to run Kafka, and {why}",
        apt=f"openjdk-{_java_packaged()}-jdk-headless",
        brew=f"openjdk@{JAVA_VERSION_MIN}",
    )


def java_version(answer: str) -> int | None:
    """Return the major version in the answer of `java -version`; None if it names none.

    Example:
        >>> java_version('openjdk version "17.0.15" 2025-04-15')
        17
        >>> java_version('java version "1.8.0_392"')
        8
    """
    found = re.search(r'version "(?:1\.)?(\d+)', answer)
    return int(found.group(1)) if found else None


def _java_packaged() -> int:
    """Return the version of Java that this system packages."""
    if not os.path.exists("/etc/os-release"):
        return JAVA_VERSION_MIN
    with open("/etc/os-release", encoding="utf-8") as release:
        facts = release.read()
    debian = re.search(r'^VERSION_ID="?(\d+)', facts, re.MULTILINE)
    is_debian = re.search(r"^ID=debian$", facts, re.MULTILINE)
    if is_debian and debian and int(debian.group(1)) >= DEBIAN_WITH_JAVA_21:
        return 21
    return JAVA_VERSION_MIN


def maven() -> Missing | None:
    """Check for `mvn`."""
    if shutil.which("mvn") is None:
        what = "Maven is needed to fetch Kafka, and mvn is not on the PATH"
        return Missing(what, apt="maven", brew="maven")
    return None


def make() -> Missing | None:
    """Check for `make`, since this program may be run by hand."""
    if shutil.which("make") is None:
        return Missing("make is needed, and is not on the PATH", apt="make", brew="make")
    return None


def install_command(missing: Missing) -> str:
    """Return the install command for this system, or both if it has neither apt-get nor brew."""
    apt = f"sudo apt-get install -y {missing.apt}"
    brew = f"brew install {missing.brew}"
    if shutil.which("apt-get") is not None:
        return apt
    if shutil.which("brew") is not None or sys.platform == "darwin":
        return brew
    return f"{apt} (Debian, Ubuntu), {brew} (macOS)"


if __name__ == "__main__":
    sys.exit(main())
