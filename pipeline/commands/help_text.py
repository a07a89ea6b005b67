"""The end of a command's help: examples to copy, then the exit codes."""

from __future__ import annotations

from livestep.pipeline.exit_codes import ExitCode, exit_codes_help


def examples_help(*examples: str) -> str:
    """Return a paragraph of examples, one per line.

    Example:
        >>> examples_help("livestep topics list").splitlines()[1:]
        ['Examples:', '  livestep topics list']
    """
    # Click rewraps a paragraph unless it starts with a backspace.
    return "\b\n" + "\n  ".join(["Examples:", *examples])


def closing_help(*examples: str, codes: tuple[ExitCode, ...]) -> str:
    """Return the end of a command's help.

    Args:
        examples: Command lines, at most 76 columns wide.
        codes: Exit codes in addition to those of every command.
    """
    return f"{examples_help(*examples)}\n\n{exit_codes_help(*codes)}"
