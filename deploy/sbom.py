"""The software bill of materials: every package of the environment, in CycloneDX format.

    .livestep/tools/bin/python -m livestep.deploy.sbom .venv/bin/python .livestep/sbom.json

Works offline. `cyclonedx-py` writes it and checks it against the schema; this program compares it
with `constraints.txt`, so that every package in the environment is pinned.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Packages of the environment that are not pinned: this project, and the installers.
UNPINNED = frozenset({"livestep", "pip", "setuptools", "wheel"})


def pinned(constraints: Path = ROOT / "constraints.txt") -> dict[str, str]:
    """Return the pinned version of each package, by its normalized name."""
    pins = {}
    for line in constraints.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pins[normalized(name)] = version
    return pins


def normalized(name: str) -> str:
    """Normalize a package's name as in PEP 503.

    Example:
        >>> normalized("Jinja2"), normalized("ast_serialize")
        ('jinja2', 'ast-serialize')
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def unlike_pins(found: Iterable[tuple[str, str]], pins: dict[str, str]) -> list[str]:
    """List the packages that are not pinned to the version that was found.

    Example:
        >>> unlike_pins([("numpy", "2.0"), ("six", "1.0"), ("pip", "9")], {"numpy": "2.1"})
        ['numpy 2.0 (pinned: 2.1)', 'six 1.0 (pinned: no version)']
    """
    return [
        f"{name} {version} (pinned: {pins.get(normalized(name), 'no version')})"
        for name, version in sorted(found)
        if normalized(name) not in UNPINNED
        # Some packages, such as torch, add the kind of build: 2.15.0+cu132.
        and version.partition("+")[0] != pins.get(normalized(name))
    ]


def main(python: str, output: Path) -> None:
    """Write the bill of materials of an environment.

    Args:
        python: Its interpreter.
        output: JSON file to write.
    """
    tool = Path(sys.executable).with_name("cyclonedx-py")
    options = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible"]
    command = [str(tool), "environment", *options, "--of", "JSON", "-o", str(output), python]
    if status := subprocess.run(command).returncode:
        sys.exit(f"error: cyclonedx-py ended with exit status {status}")
    bill = json.loads(output.read_text(encoding="utf-8"))
    found = [(one["name"], one["version"]) for one in bill["components"]]
    if wrong := unlike_pins(found, pinned()):
        sys.exit(f"error: differs from constraints.txt: {', '.join(wrong)}")
    print(f"{output}: {len(found)} packages, CycloneDX {bill['specVersion']}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
