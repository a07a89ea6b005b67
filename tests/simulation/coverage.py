"""How often each fault has struck at each verb."""

from __future__ import annotations

from collections import Counter

from rich.table import Table

from tests.simulation.simulated_faults import GAPS, KINDS, STORIES, VERBS

Hits = Counter[tuple[str, str, str]]


def missing(hits: Hits) -> list[tuple[str, str, str]]:
    """Return the moments at which a fault can strike and never has."""
    moments = [(name, *moment) for name, kind in KINDS.items() for moment in kind.moments]
    moments += [(GAPS, "poll", "within"), *((story, "", "") for story in STORIES)]
    return [moment for moment in moments if not hits[moment]]


def rows(hits: Hits) -> list[list[str]]:
    """Write a row for each kind: its name, then for each verb before/within/after.

    A dash stands where it can't strike.
    """
    found = []
    for name, kind in KINDS.items():
        cells = []
        for verb in VERBS:
            numbers = [
                str(hits[name, verb, phase]) if (verb, phase) in kind.moments else "-"
                for phase in ("before", "within", "after")
            ]
            cells.append("-" if set(numbers) == {"-"} else "/".join(numbers))
        found.append([name, *cells])
    gaps = str(hits[GAPS, "poll", "within"])
    found.append([GAPS, f"-/{gaps}/-", *["-"] * (len(VERBS) - 1)])
    return found


def story_rows(hits: Hits) -> list[list[str]]:
    """Write a row for each story: its name, its text, in how many runs it was told."""
    return [[name, text, str(hits[name, "", ""])] for name, text in STORIES.items()]


def table(hits: Hits, seeds: int) -> Table:
    """Make a table for the terminal."""
    made = Table(title=f"Faults that have struck in {seeds} seeds: before/within/after each verb")
    made.add_column("fault")
    for verb in VERBS:
        made.add_column(verb, justify="right")
    for row in rows(hits):
        made.add_row(*row)
    made.caption = ", ".join(f"{name} {count}" for name, _, count in story_rows(hits))
    return made


def markdown(hits: Hits) -> str:
    """Make the tables of the README."""
    faults = [["fault", *VERBS], ["---"] * (1 + len(VERBS)), *rows(hits)]
    stories = [["story", "what it is", "runs"], ["---"] * 3, *story_rows(hits)]
    return "\n\n".join(
        "\n".join(f"| {' | '.join(line)} |" for line in lines) for lines in (faults, stories)
    )
