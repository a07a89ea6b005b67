"""The demo: train a model, watch it predict live for many keys, kill a worker, and check it all.

    python -m livestep.deploy.demo

Hides: exit codes, and that everything is stopped and removed, whatever ends it. What is shown is in
`demo_acts.py`.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from livestep.deploy.local.jars import DATA_ROOT

#: What a shell reports for a command that was interrupted: 128 + SIGINT.
EXIT_INTERRUPTED = 130

#: Exit code if a count is not 0, or if the demo could not be run to its end.
EXIT_FAILED = 1


@click.command()
@click.option(
    "--flats",
    type=click.IntRange(10, 10_000),
    default=300,
    show_default=True,
    help="Keys: each has a room-mate of its own.",
)
@click.option(
    "--days",
    type=click.IntRange(30, 1_461),
    default=1_000,
    show_default=True,
    help="Events of each flat.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the training and of the flats."
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=DATA_ROOT,
    show_default=True,
    help="Where the data is kept while it runs.",
)
def main(flats: int, days: int, seed: int, directory: Path) -> None:
    """Train a model, watch it predict live, kill a worker, and check every prediction.

    Everything is on this machine, and nothing stays behind. Exit status 0 if all is right.
    """
    # Before torch is imported, which takes seconds: Ctrl-C should end those without a stack trace.
    try:
        sys.exit(_run(flats, days, seed, directory))
    except KeyboardInterrupt:
        click.echo("interrupted: everything is stopped and removed", err=True)
        sys.exit(EXIT_INTERRUPTED)


def _run(flats: int, days: int, seed: int, directory: Path) -> int:
    from livestep.deploy.demo import demo_acts as acts
    from livestep.deploy.demo.demo_place import data_folder, running_services
    from livestep.deploy.demo.demo_story import Story
    from livestep.deploy.demo.screen import Screen
    from livestep.deploy.local.child_process import ServiceError, orderly_termination
    from livestep.models.model_errors import ModelError
    from livestep.pipeline.errors import EngineError

    screen = Screen()
    try:
        with _interrupts(), orderly_termination(), contextlib.ExitStack() as stack:
            data = stack.enter_context(data_folder(directory))
            model = acts.train(screen, data, seed)
            screen.heading("2. One flat, day by day")
            services = stack.enter_context(running_services(screen, data))
            stage = acts.Stage(screen, services, model, Story.make(flats, days, seed), data)
            stack.callback(stage.kill_workers)
            # Entered last, so done first: who presses Ctrl-C twice should not stop the cleaning up.
            stack.callback(_ignore_interrupts)
            measured = acts.lose_a_worker(stage, acts.predict_live(stage))
            report = acts.report(stage, measured)
    except (ServiceError, EngineError, ModelError) as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_FAILED
    if not report.is_clean:
        faults = ", ".join(f"{name}: {count:,}" for name, count in report.counts.items() if count)
        click.echo(f"error: not every prediction is as it should be: {faults}", err=True)
        return EXIT_FAILED
    acts.say_what_next(screen)
    return 0


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Put Ctrl-C back at the end to what it did before."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _ignore_interrupts() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main()
