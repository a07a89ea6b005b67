"""The experiment's results as Markdown tables, and the README that they are written to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from livestep.models.examples.cook.experiment_nets import CONTENDERS, LOSS_ENOUGH
from livestep.models.examples.cook.experiment_runs import DEMO_NAME, Plan, Run, Score
from livestep.models.examples.cook.experiment_weeks import (
    GUEST_SHARE,
    UNRULED,
    UNSEEN_COUNT,
    WEEK_COUNT,
    WEEK_DAYS,
)
from livestep.models.model_errors import ModelError

#: Markers around the tables in the README.
TABLES_START, TABLES_END = "<!-- experiment -->", "<!-- /experiment -->"

#: The start of a new README.
TITLE = "# The cook, as an experiment\n\n"

#: Shown where a net can't predict sequences of that length.
IMPOSSIBLE = "can't"


def tables(runs: Sequence[Run], plan: Plan, footer: str) -> str:
    """Write all results as Markdown.

    Args:
        runs: The runs of the plan.
        plan: The plan.
        footer: The last line: how long it took, on which machine.

    Returns:
        text: Five tables, each with a line that explains it.
    """
    counts = [count for count in plan.week_counts if count != WEEK_COUNT]
    parts = [
        f"**Whole unseen weeks right, %**, against the number of training weeks: mean of "
        f"{plan.seed_count} runs (worst-best), {UNSEEN_COUNT} unseen weeks",
        _by_week_count(runs, counts, lambda run: _score(run.unseen).whole),
        "**Single days of unseen weeks right, %**, likewise (a guess is right on 33 %)",
        _by_week_count(runs, counts, lambda run: _score(run.unseen).days),
        f"**Days of unseen weeks right, %, day by day**, after {middle(counts)} training weeks",
        _by_day(runs, middle(counts)),
        f"**Weeks learned by heart, and other lengths**: whole weeks right after learning all "
        f"{WEEK_COUNT}; then nets that learned {plan.most_weeks} weeks of {WEEK_DAYS} days predict "
        f"{plan.flat_count} flats in Seattle's weather: single days right, and flats right from "
        f"the first day to the last, %",
        _lengths(runs, plan),
        f"**All six dishes**: {plan.most_weeks} weeks in which guests cook dish "
        f"{', '.join(UNRULED)} the day before on {GUEST_SHARE:.0%} of days; then other weeks and "
        f"Seattle, with guests, %; mean of {plan.menu_seed_count} runs",
        _menu(runs, plan),
        footer,
    ]
    return "\n\n".join(parts)


def describe_effort(runs: Iterable[Run], plan: Plan) -> str:
    """State how many nets did not reach the loss at which training ends."""
    late = sum(run.updates >= plan.updates_max for run in runs)
    reached = "all nets reached it" if late == 0 else f"{late} nets did not reach it"
    return f"Trained to a loss of {LOSS_ENOUGH} in at most {plan.updates_max:,} updates: {reached}."


def write_readme(readme: Path, text: str) -> None:
    """Write the tables between the markers of a README; create a missing file.

    Args:
        readme: The file.
        text: From `tables`.

    Raises:
        ModelError: If the file has no markers; then it isn't changed.
    """
    if not readme.exists():
        readme.write_text(f"{TITLE}{TABLES_START}\n{TABLES_END}\n", encoding="utf-8")
    pattern = re.compile(f"{re.escape(TABLES_START)}.*?{re.escape(TABLES_END)}", re.DOTALL)
    block = f"{TABLES_START}\n{text}\n{TABLES_END}"
    new_text, found_count = pattern.subn(lambda _: block, readme.read_text(encoding="utf-8"))
    if not found_count:
        raise ModelError(f"no place for the tables; add {TABLES_START} {TABLES_END}", file=readme)
    readme.write_text(new_text, encoding="utf-8")


def middle(counts: Sequence[int]) -> int:
    """Return the number of training weeks that is shown day by day.

    Example:
        >>> middle([6, 12, 24, 48, 96, 192, 288])
        48
    """
    return counts[len(counts) // 2]


def chosen(runs: Iterable[Run], task: str, contender: str, week_count: int) -> list[Run]:
    """Return the runs that differ only in their seed."""
    wanted = (task, contender, week_count)
    return [run for run in runs if (run.job.task, run.job.contender, run.job.week_count) == wanted]


def percent(share: float) -> str:
    """Round to whole percents; only 1 becomes 100, and only 0 becomes 0.

    Example:
        >>> [percent(share) for share in (0, 0.001, 0.5, 0.999, 1)]
        ['0', '<1', '50', '>99', '100']
    """
    if 0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def spread(shares: Sequence[float]) -> str:
    """Format the mean, with the worst and the best if they differ.

    Example:
        >>> spread([0.5, 0.75, 1.0]), spread([1.0, 1.0])
        ('75 (50-100)', '100')
    """
    mean = percent(sum(shares) / len(shares))
    worst, best = percent(min(shares)), percent(max(shares))
    return mean if worst == best else f"{mean} ({worst}-{best})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table.

    Example:
        >>> print(table(["net", "right"], [["GRU", "100"]]))
        | net | right |
        |---|---|
        | GRU | 100 |
    """
    lines = [" | ".join(cells) for cells in (head, *rows)]
    return "\n".join(
        [f"| {lines[0]} |", "|---" * len(head) + "|", *(f"| {x} |" for x in lines[1:])]
    )


def _by_week_count(
    runs: Sequence[Run], counts: Sequence[int], share: Callable[[Run], float]
) -> str:
    """A row for each contender, a column for each number of training weeks."""
    rows = []
    for contender in CONTENDERS:
        cells = [
            spread([share(run) for run in chosen(runs, "weeks", contender.name, count)])
            for count in counts
        ]
        rows.append([contender.name, *cells])
    return table(["net", *map(str, counts)], rows)


def _by_day(runs: Sequence[Run], week_count: int) -> str:
    """A row for each contender, a column for each day of the week."""
    rows = []
    for contender in CONTENDERS:
        found = chosen(runs, "weeks", contender.name, week_count)
        days = zip(*(run.days for run in found), strict=True)
        rows.append([contender.name, *(percent(sum(day) / len(found)) for day in days)])
    return table(["net", *(f"day {day + 1}" for day in range(WEEK_DAYS))], rows)


def _lengths(runs: Sequence[Run], plan: Plan) -> str:
    """A row for each contender and one for the demo's training; a pair of columns a length."""
    head = ["net", "weights", "updates", f"all {WEEK_COUNT} weeks"]
    for length in plan.lengths:
        head += [f"{length} days", "whole"]
    rows = []
    for contender in CONTENDERS:
        learned_all = chosen(runs, "weeks", contender.name, WEEK_COUNT)
        found = chosen(runs, "weeks", contender.name, plan.most_weeks)
        updates = sum(run.updates for run in found) / len(found)
        by_heart = spread([_score(run.seen).whole for run in learned_all]) if learned_all else "-"
        row = [contender.name, f"{found[0].weights:,}", f"{updates:.0f}", by_heart]
        rows.append(row + _long_cells(found, plan))
    if found := chosen(runs, "demo", DEMO_NAME, 0):
        rows.append([DEMO_NAME, f"{found[0].weights:,}", "-", "-", *_long_cells(found, plan)])
    return table(head, rows)


def _menu(runs: Sequence[Run], plan: Plan) -> str:
    """A row for each recurrent contender."""
    head = ["net", "unseen days", "whole weeks"]
    for length in plan.lengths:
        head += [f"{length} days", "whole"]
    rows = []
    for contender in CONTENDERS:
        if found := chosen(runs, "menu", contender.name, plan.most_weeks):
            weeks = [_score(run.unseen) for run in found]
            cells = [spread([one.days for one in weeks]), spread([one.whole for one in weeks])]
            named = f"{sum(run.unruled for run in found):,}"
            rows.append([contender.name, *cells, *_long_cells(found, plan), named])
    return table([*head, f"{', '.join(UNRULED)} predicted"], rows)


def _long_cells(runs: Sequence[Run], plan: Plan) -> list[str]:
    """Two cells for each length; the fully connected net has no results there."""
    cells = []
    for length in plan.lengths:
        scores = [run.long[length] for run in runs if run.long]
        days, whole = [one.days for one in scores], [one.whole for one in scores]
        cells += [spread(days), spread(whole)] if scores else [IMPOSSIBLE, IMPOSSIBLE]
    return cells


def _score(score: Score | None) -> Score:
    assert score is not None, "a run lacks a result that its table shows"
    return score
