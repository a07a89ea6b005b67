"""The demo: train a model, watch it predict live for many keys, kill a worker, and check it all.

    python -m livestep.deploy.demo

Hides: exit codes, and that everything is stopped and removed, however it ends. The acts are in
`demo_acts.py`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path

import click

from livestep.deploy.local.jars import DATA_ROOT
from livestep.pipeline.exit_codes import ExitCode


@click.command()
@click.option(
    "--flats",
    type=click.IntRange(10, 10_000),
    default=300,
    show_default=True,
    help="Number of keys: each flat has its own room-mate.",
)
@click.option(
    "--days",
    type=click.IntRange(30, 1_461),
    default=1_000,
    show_default=True,
    help="Events of each flat.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the training and the flats."
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=DATA_ROOT,
    show_default=True,
    help="Where data is stored during the demo.",
)
def main(flats: int, days: int, seed: int, directory: Path) -> None:
    """Train a model, watch it predict live, kill a worker, and check every prediction.

    Everything runs on this machine, and nothing remains. Exit status 0 if all is right.
    """
    # Before the import of torch, which takes seconds: Ctrl-C should print no stack trace then.
    try:
        sys.exit(_run(flats, days, seed, directory))
    except KeyboardInterrupt:
        click.echo("interrupted: everything is stopped and removed", err=True)
        sys.exit(ExitCode.INTERRUPT)


def _run(flats: int, days: int, seed: int, directory: Path) -> int:
    from livestep.deploy.demo.demo_acts import Stage, running_services, train
    from livestep.deploy.demo.demo_story import Story
    from livestep.deploy.demo.screen import Screen
    from livestep.deploy.local.child_process import ServiceError, orderly_termination
    from livestep.deploy.local.services import data_folder
    from livestep.models.model_errors import ModelError
    from livestep.pipeline.errors import EngineError

    screen = Screen(highlight=False)
    try:
        with orderly_termination(), contextlib.ExitStack() as stack:
            data = stack.enter_context(data_folder(directory, "demo-"))
            model = train(screen, data, seed)
            services = stack.enter_context(running_services(screen, data))
            stage = Stage(screen, services, model, Story(flats, days, seed), data)
            stack.callback(stage.kill_workers)
            # Pushed last, so called first: a second Ctrl-C must not stop the clean-up.
            stack.callback(_ignore_interrupts)
            stage.predict_live()
            stage.lose_a_worker()
            counts = stage.report()
    except (ServiceError, EngineError, ModelError) as error:
        click.echo(f"error: {error}", err=True)
        return ExitCode.FOUND
    if any(counts.values()):
        faults = ", ".join(f"{name}: {count:,}" for name, count in counts.items() if count)
        click.echo(f"error: not every prediction is right: {faults}", err=True)
        return ExitCode.FOUND
    screen.heading("Every event was predicted once, in order, and correctly, despite the kill.")
    screen.say('Your own model and data: README.md, "Your own model".')
    screen.say("Kafka and Redis to try it on: make services (run until Ctrl-C).")
    return 0


def _ignore_interrupts() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
