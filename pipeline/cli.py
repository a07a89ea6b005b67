"""The command `livestep`. Its exit codes are defined in `exit_codes.py`."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import click

from livestep.models.model_errors import ModelError
from livestep.models.worker_extra import MissingExtraError, missing_extra
from livestep.pipeline.commands.help_text import closing_help, examples_help
from livestep.pipeline.errors import EngineError, ReaderGoneError
from livestep.pipeline.exit_codes import ExitCode
from livestep.pipeline.process.defects import reported_defect
from livestep.pipeline.process.standard_streams import guarded_streams
from livestep.pipeline.settings import Settings

#: The module in `pipeline.commands` and the name of each command but the worker's.
_COMMANDS = {
    "audit": ("audit", "audit"),
    "check": ("check", "check"),
    "completion": ("completion", "completion"),
    "dead-letters": ("predictions", "dead_letters"),
    "example": ("example", "example"),
    "model": ("model", "model"),
    "predictions": ("predictions", "predictions"),
    "publish": ("publish", "publish"),
    "topics": ("topics", "topics"),
}


class _LazyGroup(click.Group):
    """A group that imports a command when it is used: `--version` needs none of them."""

    def list_commands(self, context: click.Context) -> list[str]:
        """List all commands without importing them."""
        return sorted([*super().list_commands(context), *_COMMANDS])

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import the module of a command."""
        if name not in _COMMANDS:
            return super().get_command(context, name)
        module, attribute = _COMMANDS[name]
        command: click.Command = getattr(
            importlib.import_module(f"livestep.pipeline.commands.{module}"), attribute
        )
        return command

    def invoke(self, context: click.Context) -> Any:
        """Run a command, and translate two errors that click and Python don't explain.

        Raises:
            MissingExtraError: If the command needs `livestep[worker]`, which is not installed.
            DefectError: If a connection broke. Click would treat it as a closed standard output.
        """
        try:
            return super().invoke(context)
        except BrokenPipeError as error:
            raise reported_defect(error) from error
        except ModuleNotFoundError as error:
            explained = missing_extra(f"livestep {context.invoked_subcommand}", error)
            if explained is None:
                raise
            raise explained from error


#: What `livestep` prints without a command.
FIRST_TRY = """\
Live predictions from recurrent models, for every key of a Kafka topic.

A first try, without Kafka or Redis:

  livestep model init sensors                           # write a small model
  cd sensors && python train.py                         # train it, in seconds
  livestep model check model --model-packages my_model  # can it run live?

The README.md in that folder makes it live. All commands: livestep --help
"""


def _print_version(context: click.Context, option: click.Parameter, is_wanted: bool) -> None:
    """Print the version, and whether the loops of this installation are native."""
    if not is_wanted or context.resilient_parsing:
        return
    from livestep.pipeline.native import loops_text

    click.echo(f"livestep, version {version('livestep')}, loops: {loops_text()}")
    context.exit()


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
    epilog=examples_help(
        "livestep topics create events --with-dead-letter",
        "livestep topics create predictions",
        "livestep worker --model DIR --input-topic events --output-topic predictions",
        "livestep publish events.jsonl --topic events --key sensor",
        "livestep predictions --topic predictions --from-beginning",
    ),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and which loops run, and exit.",
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Live predictions from recurrent models, for every key of a Kafka topic.

    TLS and passwords for Kafka are environment variables, for all commands:
    LIVESTEP_KAFKA_SECURITY_PROTOCOL, LIVESTEP_KAFKA_SASL_PASSWORD_FILE and so on.
    """
    if context.invoked_subcommand is None:
        click.echo(FIRST_TRY, nl=False)


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add a flag for each of the `Settings`, except for secrets."""
    for item in reversed(dataclasses.fields(Settings)):
        if not item.metadata.get("has_flag"):
            continue
        flag = "--" + item.name.replace("_", "-")
        shown = f" [default: {item.default}]" if item.default not in ("", False) else ""
        choices = item.metadata["choices"]
        kind: Any = click.Choice(choices) if choices else type(item.default)
        command = click.option(
            flag,
            type=None if kind is bool else kind,
            is_flag=kind is bool,
            default=None,
            help=f"{item.metadata['help']}{shown}",
        )(command)
    return command


@cli.command(
    short_help="Predict: events in, predictions out.",
    epilog=closing_help(
        "livestep worker --model DIR --input-topic events --output-topic predictions",
        "LIVESTEP_REDIS_PASSWORD_FILE=/run/secrets/redis livestep worker ...",
        codes=(
            ExitCode.SETTING,
            ExitCode.KAFKA,
            ExitCode.REDIS,
            ExitCode.MODEL,
            ExitCode.STATES,
            ExitCode.FENCED,
            ExitCode.UNSAVED,
        ),
    ),
)
@settings_options
@click.option("--verbose", is_flag=True, help="Also log details, for debugging.")
def worker(verbose: bool, **flags: Any) -> None:
    """Run every key with new events through the model and publish the outputs, until SIGTERM.

    Every flag is also an environment variable (LIVESTEP_INPUT_TOPIC). librdkafka options are
    variables, too (LIVESTEP_KAFKA_COMPRESSION_TYPE=lz4). A variable that ends in _FILE names a file
    that holds the value (LIVESTEP_REDIS_PASSWORD_FILE).
    """
    # Torch and Faust take seconds to import; --help should not wait for them.
    from livestep.pipeline.app import run_worker

    set_up_logging(verbose)
    run_worker(Settings.from_environment(**flags))


def set_up_logging(verbose: bool) -> None:
    """Log to stderr: the worker's own lines, and warnings from libraries."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    logging.getLogger("livestep").setLevel(logging.DEBUG if verbose else logging.INFO)


def main() -> None:
    """Run the command line; an error is one line and an exit code, never a traceback."""
    try:
        sys.exit(_run())
    except ModelError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(ExitCode.MODEL)
    except MissingExtraError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(ExitCode.USAGE)
    except ReaderGoneError as error:
        sys.exit(error.exit_code)
    except EngineError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:
        click.echo(f"error: {reported_defect(error)}", err=True)
        sys.exit(ExitCode.DEFECT)


def _run() -> int:
    """Run the requested command and return its exit code."""
    with guarded_streams():
        try:
            # In standalone mode click would exit with 1 on Ctrl-C, the code of a failed check.
            result = cli(standalone_mode=False)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except click.Abort:
            return ExitCode.INTERRUPT
    return result if isinstance(result, int) else ExitCode.DONE


if __name__ == "__main__":
    main()
