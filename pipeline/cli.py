"""The command `livestep`; its exit codes are in `exit_codes.py`."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import sys
from collections.abc import Callable
from typing import Any

import click

from livestep.models.model_errors import ModelError
from livestep.models.worker_extra import MissingExtraError, missing_extra
from livestep.pipeline.errors import EngineError, ReaderGoneError
from livestep.pipeline.exit_codes import ExitCode, exit_codes_help
from livestep.pipeline.process.defects import reported_defect
from livestep.pipeline.process.standard_streams import guarded_streams
from livestep.pipeline.settings import Settings

#: Where each command is, but for the worker's: the module within `pipeline.commands`, and its name.
_COMMANDS = {
    "audit": ("audit", "audit"),
    "check": ("check", "check"),
    "dead-letters": ("predictions", "dead_letters"),
    "example": ("example", "example"),
    "model": ("model", "model"),
    "predictions": ("predictions", "predictions"),
    "publish": ("publish", "publish"),
    "topics": ("topics", "topics"),
}


class _LazyGroup(click.Group):
    """A group that imports a command when it is asked for: `--version` needs none."""

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
        """Run a command, and translate two errors that only the place where it is run can explain.

        Raises:
            MissingExtraError: If the command needs `livestep[worker]`, which is not installed.
            DefectError: If a connection broke. Click would take it for a closed standard output.
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


@click.group(
    cls=_LazyGroup,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="livestep")
def cli() -> None:
    """Live predictions from recurrent models, for every key of a Kafka topic."""


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one flag for each of `Settings`, but for secrets."""
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
    epilog=exit_codes_help(
        ExitCode.SETTING,
        ExitCode.KAFKA,
        ExitCode.REDIS,
        ExitCode.MODEL,
        ExitCode.STATES,
        ExitCode.FENCED,
        ExitCode.UNSAVED,
    ),
)
@settings_options
@click.option("--verbose", is_flag=True, help="Say what each part does.")
def worker(verbose: bool, **flags: Any) -> None:
    """Predict until SIGTERM or Ctrl-C: step each event's key through the model, publish the output.

    Each flag can be given as LIVESTEP_... in the environment, too (LIVESTEP_INPUT_TOPIC); a
    librdkafka option as LIVESTEP_KAFKA_... (LIVESTEP_KAFKA_COMPRESSION_TYPE=lz4). With _FILE behind
    its name a variable names a file whose content is the value (LIVESTEP_REDIS_PASSWORD_FILE).
    """
    from livestep.pipeline.app import (
        run_worker,  # torch and Faust take seconds that --help need not wait
    )

    set_up_logging(verbose)
    run_worker(Settings.from_environment(**flags))


def set_up_logging(verbose: bool) -> None:
    """Log to stderr: the worker's own lines, and warnings of the libraries."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
    )
    logging.getLogger("livestep").setLevel(logging.DEBUG if verbose else logging.INFO)


def main() -> None:
    """Run the command line; an error is one line and an exit code, never a stack trace."""
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
    """Run the command that is asked for, and give its exit code."""
    with guarded_streams():
        try:
            # Else click would exit with 1 for Ctrl-C, which says that a check has found something.
            result = cli(standalone_mode=False)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except click.Abort:
            return ExitCode.INTERRUPT
    return result if isinstance(result, int) else ExitCode.DONE


if __name__ == "__main__":
    main()
