"""Output that can't be written ends a command with one line and its own exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIVESTEP = "from livestep.pipeline.cli import main; main()"

#: Commands that print without any service: by `click.echo`, by the help, by `rich`.
PRINTING = {
    "version": "--version",
    "help": "publish --help",
    "a file is written": "model init {directory}",
    "a table": "model check livestep:GRU --sizes {sizes}",
}
SIZES = '{"input_size":2,"hidden_size":3,"output_size":1}'


def arguments(name: str, directory: Path) -> list[str]:
    return [
        word.format(directory=directory / "new", sizes=SIZES) for word in PRINTING[name].split()
    ]


def shell(redirection: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `livestep` in a shell with its output redirected; the exit code is the command's."""
    command = f'"$0" -c "$1" "${{@:2}}" {redirection}\nexit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, LIVESTEP, *words],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a file that is always full")
@pytest.mark.parametrize("name", PRINTING)
def test_a_full_disk_is_one_line_and_exit_code_11(name: str, tmp_path: Path) -> None:
    done = shell(">/dev/full", arguments(name, tmp_path))
    assert done.returncode == 11, done.stderr
    assert done.stderr == "error: standard output can't be written: No space left on device\n"


@pytest.mark.parametrize("name", PRINTING)
def test_a_closed_standard_output_is_one_line_and_exit_code_11(name: str, tmp_path: Path) -> None:
    done = shell(">&-", arguments(name, tmp_path))
    assert done.returncode == 11, done.stderr
    assert done.stderr == "error: standard output can't be written: it is closed\n"


@pytest.mark.parametrize("name", PRINTING)
def test_a_closed_pipe_ends_a_command_quietly(name: str, tmp_path: Path) -> None:
    # The reader of the pipe exits before anything is written.
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", LIVESTEP, *arguments(name, tmp_path)],
        cwd=Path(__file__).parents[3],
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-", "<&- >/dev/null 2>&-"])
def test_other_closed_streams_change_nothing(redirection: str) -> None:
    assert shell(redirection, ["--version"]).returncode == 0
    assert shell(redirection, ["nothing"]).returncode == 2


def test_a_command_that_prints_nothing_needs_no_standard_output() -> None:
    done = shell(">&-", ["predictions"])
    assert done.returncode == 2
    assert "Missing option '--topic'" in done.stderr


def test_closed_descriptors_are_never_reused_by_a_file_that_is_opened_later() -> None:
    code = """
import os, sys
from livestep.pipeline.process.standard_streams import guarded_streams
with guarded_streams():
    opened = os.open("/dev/zero", os.O_RDONLY)
    assert opened > 2, opened
"""
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code],
        cwd=Path(__file__).parents[3],
        timeout=120,
    )
    assert done.returncode == 0
