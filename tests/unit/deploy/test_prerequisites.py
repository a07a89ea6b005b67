"""Missing programs are named with the command that installs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PREREQUISITES = Path(__file__).resolve().parents[3] / "deploy" / "prerequisites.py"

JAVA_17 = "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2"


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """A machine that has everything: program -> what it does. A test takes some away."""
    return {"java": JAVA_17, "mvn": "exit 0", "make": "exit 0", "apt-get": "exit 0"}


def check(programs: dict[str, str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Run the check on a machine that has these programs and no others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    # -I -S: as if nothing was installed yet.
    command = [sys.executable, "-I", "-S", str(PREREQUISITES)]
    return subprocess.run(command, env={"PATH": str(folder)}, capture_output=True, text=True)


def test_a_machine_that_has_everything_passes_silently(
    programs: dict[str, str], tmp_path: Path
) -> None:
    result = check(programs, tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("program", "need", "package"),
    [("java", "Java 17", "openjdk-"), ("mvn", "Maven", "maven"), ("make", "make", "make")],
)
def test_a_missing_program_is_named_with_the_command_that_installs_it(
    programs: dict[str, str], tmp_path: Path, program: str, need: str, package: str
) -> None:
    del programs[program]
    result = check(programs, tmp_path)
    error, hint = result.stderr.splitlines()
    assert result.returncode == 1
    assert error.startswith(f"error: {need}")
    assert f"sudo apt-get install -y {package}" in hint


def test_all_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    result = check({"apt-get": "exit 0"}, tmp_path)
    assert result.stderr.count("install it:") == 3


def test_a_java_that_is_too_old_is_reported_as_such(
    programs: dict[str, str], tmp_path: Path
) -> None:
    programs["java"] = JAVA_17.replace("17.0.15", "11.0.2")
    assert "the one on the PATH is Java 11" in check(programs, tmp_path).stderr


def test_a_placeholder_for_java_does_not_count(programs: dict[str, str], tmp_path: Path) -> None:
    programs["java"] = "echo 'Unable to locate a Java Runtime.' >&2; exit 1"
    assert "Unable to locate a Java Runtime." in check(programs, tmp_path).stderr


def test_on_a_mac_the_command_uses_brew(programs: dict[str, str], tmp_path: Path) -> None:
    del programs["apt-get"], programs["mvn"]
    programs["brew"] = "exit 0"
    assert "install it: brew install maven" in check(programs, tmp_path).stderr
