"""One table of exit codes: the documentation, each command's help and each error use it."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from livestep.pipeline import errors
from livestep.pipeline.cli import cli
from livestep.pipeline.errors import EngineError
from livestep.pipeline.exit_codes import MEANINGS, ExitCode

PAGE = Path(__file__).parents[3] / "docs" / "guarantees.md"

#: A cell with a code, and the cell behind it.
PAGE_CODE = re.compile(r"\| (\d+) \| ([^|]+?) (?=\|)")


def commands(command: click.Command, path: str = "livestep") -> dict[str, click.Command]:
    """Return a command, or all commands of a group, by what a user types."""
    if not isinstance(command, click.Group):
        return {path: command}
    found = {}
    with click.Context(command) as context:
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found |= commands(below, f"{path} {name}")
    return found


COMMANDS = commands(cli)


def codes_in_help(command: click.Command) -> dict[int, str]:
    with click.Context(command, max_content_width=100) as context:
        text = command.get_help(context).partition("Exit codes:\n")[2]
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return {int(code): meaning for code, meaning in lines}


def test_every_exit_code_has_a_meaning() -> None:
    assert list(MEANINGS) == list(ExitCode)


def test_the_documentation_has_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.partition("| exit code |")[2].splitlines() if "|" in line][2:]
    found = dict(PAGE_CODE.findall("\n".join(rows[: len(MEANINGS)])))
    assert found == {f"{code:d}": meaning for code, meaning in MEANINGS.items()}


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_lists_its_exit_codes_in_its_help(path: str) -> None:
    codes = codes_in_help(COMMANDS[path])
    assert {0, 2, 9, 11} <= codes.keys()
    assert codes == {code: MEANINGS[ExitCode(code)] for code in codes}
    # Which command says that it speaks to Kafka is known by its options.
    has_brokers = any(option.name == "bootstrap_servers" for option in COMMANDS[path].params)
    assert (ExitCode.KAFKA in codes) == (has_brokers and path != "livestep check")


def test_every_error_of_ours_has_a_code_of_the_table() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, EngineError)
    ]
    assert len(kinds) > 10
    assert {kind.exit_code for kind in kinds} <= set(MEANINGS)
