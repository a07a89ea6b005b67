"""The help of all commands: short, with examples that work; a first try; completion."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from livestep.pipeline.cli import FIRST_TRY, cli
from livestep.pipeline.commands.completion import SHELLS

#: The folder of `livestep` and `python`.
PROGRAMS = Path(sys.executable).parent

#: Lines that the help of one option may take, in a terminal of 80 columns.
HELP_LINES_MAX = 2


def paths(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """List a command and all commands below it, by what is typed."""
    yield path
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                yield from paths(below, (*path, name))


def shown_help(path: tuple[str, ...]) -> str:
    """Run a command's --help in a terminal of 80 columns."""
    done = CliRunner().invoke(cli, [*path, "--help"], prog_name="livestep", terminal_width=80)
    assert done.exit_code == 0
    return done.output


def option_helps(help_text: str) -> dict[str, list[str]]:
    """Read the lines of help for each option."""
    section = re.search(r"^Options:\n((?: .*\n|\n)*?)(?=\S|\Z|\n  \S)", help_text, re.MULTILINE)
    assert section is not None
    helps: dict[str, list[str]] = {}
    for line in section[1].splitlines():
        if re.match(r"  -", line):
            name, _, text = line.strip().partition("  ")
            helps[name] = [text.strip()] if text else []
        elif line.strip():
            helps[name].append(line.strip())
    return helps


EVERY = [pytest.param(path, id=" ".join(("livestep", *path))) for path in paths(cli)]


@pytest.mark.parametrize("path", EVERY)
def test_the_help_of_every_option_fits_two_lines(path: tuple[str, ...]) -> None:
    helps = option_helps(shown_help(path))
    assert "-h, --help" in helps
    too_long = {name: lines for name, lines in helps.items() if len(lines) > HELP_LINES_MAX}
    assert too_long == {}
    assert [name for name, lines in helps.items() if not lines] == []


def test_a_help_of_three_lines_would_be_found() -> None:
    text = "Options:\n  --a TEXT  one\n            two\n  --long-name\n            one\n"
    assert option_helps(text + "            two\n") == {
        "--a TEXT": ["one", "two"],
        "--long-name": ["one", "two"],
    }


@pytest.mark.parametrize("path", EVERY)
def test_every_help_has_examples_that_the_command_line_accepts(
    path: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given the files that examples name, and commands that do nothing once their words are parsed
    monkeypatch.chdir(tmp_path)
    for name in ("events.jsonl", "events.csv", "program.pt2"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(click.Command, "invoke", lambda command, context: None)

    # When
    examples = shown_help(path).partition("Example")[2].partition("\n\n")[0]
    lines = examples.replace("\\\n", " ").splitlines()[1:]

    # Then
    assert lines
    for line in lines:
        assert "livestep" in line
        assert len(line) <= 80 or "  --" in line  # of two lines
        words = shlex.split(line.partition(" | ")[0], comments=True)
        if words[0] == "livestep":
            done = CliRunner().invoke(cli, words[1:])
            assert done.exit_code == 0, done.output


def test_without_a_command_it_shows_the_three_commands_of_a_first_try() -> None:
    done = CliRunner().invoke(cli, [])
    assert done.exit_code == 0
    assert done.output == FIRST_TRY
    assert len(first_try()) == 3
    assert "livestep --help" in FIRST_TRY
    assert max(map(len, FIRST_TRY.splitlines())) <= 80


def test_the_commands_of_the_first_try_work(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(first_try())],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("It can be stepped live.\n")


def first_try() -> list[str]:
    """Return the commands that `livestep` without a command shows."""
    return [line.strip() for line in FIRST_TRY.splitlines() if line.startswith("  ")]


def complete(*command: str, **variables: str) -> str:
    """Run a command as a shell does that asks for completions."""
    done = subprocess.run(
        command,
        env=os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bash_completes_a_command_with_the_script() -> None:
    script = """
eval "$(livestep completion bash)"
COMP_WORDS=(livestep pub)
COMP_CWORD=1
_livestep_completion livestep
echo "${COMPREPLY[@]}"
"""
    assert complete("bash", "-c", script) == "publish\n"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_asks_livestep(shell: str) -> None:
    script = CliRunner().invoke(cli, ["completion", shell]).output
    assert f"_LIVESTEP_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize(
    ("shell", "words", "word"),
    [
        ("bash", "livestep topics cre", "2"),
        ("zsh", "livestep topics cre", "2"),
        ("fish", "livestep topics", "cre"),
    ],
)
def test_livestep_answers_what_each_shell_asks(shell: str, words: str, word: str) -> None:
    asked = {"_LIVESTEP_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": word}
    assert "create" in complete("livestep", **asked)


def test_a_shell_that_is_not_supported_is_wrong_usage() -> None:
    done = CliRunner().invoke(cli, ["completion", "tcsh"])
    assert done.exit_code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in done.output
