"""Unexpected exceptions: every command ends with one line and its own exit code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

#: A command line with one more command, which raises.
PROGRAM = """
import logging
import sys
import click
from livestep.pipeline.cli import cli, main, set_up_logging
@cli.command()
@click.option("--with-log", is_flag=True)
def broken(with_log):
    if with_log:
        set_up_logging(verbose=False)
    raise {exception}
main()
"""


def run(exception: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command that raises an exception; it may write to a folder."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(exception=exception), "broken", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(folder)},
    )


@pytest.mark.parametrize(
    ("exception", "shown"),
    [
        ("KeyError('a partition')", "KeyError: 'a partition' "),
        ("BrokenPipeError(32, 'Broken pipe')", "BrokenPipeError: [Errno 32] Broken pipe "),
        ("RuntimeError('one\\n  two\\n')", "RuntimeError: one two "),
        ("RuntimeError", "RuntimeError "),
        ("RuntimeError('x' * 10_000)", "RuntimeError: xxx"),
        ("NotImplementedError()", "NotImplementedError "),
    ],
)
def test_a_defect_is_one_line_exit_code_9_and_a_file_with_the_traceback(
    exception: str, shown: str, tmp_path: Path
) -> None:
    result = run(exception, folder=tmp_path)
    assert result.returncode == 9
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: a defect of Livestep: {shown}")
    assert len(line) < 600
    (file,) = tmp_path.iterdir()
    assert f"(the traceback is in {file})" in line
    assert re.search(r"Traceback .*in broken\n", file.read_text(), re.DOTALL)


def test_where_a_log_is_set_up_it_has_the_traceback(tmp_path: Path) -> None:
    result = run("KeyError('a partition')", "--with-log", folder=tmp_path)
    assert result.returncode == 9
    assert result.stderr.count("Traceback (most recent call last)") == 1
    assert result.stderr.splitlines()[-1] == (
        "error: a defect of Livestep: KeyError: 'a partition' (the log has the traceback)"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("exception", "code", "text"),
    [
        ("KeyboardInterrupt", 130, ""),
        ("click.Abort", 130, ""),
        ("click.UsageError('which topic?')", 2, "Error: which topic?"),
        ("click.exceptions.Exit(7)", 7, ""),
        ("SystemExit(143)", 143, ""),
    ],
)
def test_an_intended_exit_of_a_command_is_not_a_defect(
    exception: str, code: int, text: str, tmp_path: Path
) -> None:
    result = run(exception, folder=tmp_path)
    assert result.returncode == code
    assert text in result.stderr
    assert "defect" not in result.stderr
    assert not list(tmp_path.iterdir())
