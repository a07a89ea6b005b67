"""`livestep completion`: let a shell complete commands, options and their values."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from livestep.pipeline.commands.help_text import closing_help

SHELLS = ("bash", "zsh", "fish")

#: Click reads this variable when the shell asks for completions.
_VARIABLE = "_LIVESTEP_COMPLETE"


@click.command(
    short_help="Print a script that completes commands in your shell.",
    epilog=closing_help(
        'eval "$(livestep completion bash)"      # in ~/.bashrc',
        'eval "$(livestep completion zsh)"       # in ~/.zshrc',
        "livestep completion fish | source       # in ~/.config/fish/config.fish",
        codes=(),
    ),
)
@click.argument("shell", type=click.Choice(SHELLS), metavar="bash|zsh|fish")
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script for your shell: then Tab completes commands, options and values."""
    kind = get_completion_class(shell)
    assert kind is not None
    root = context.find_root()
    script = kind(root.command, {}, "livestep", _VARIABLE).source()
    click.echo(script)
