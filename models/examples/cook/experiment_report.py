"""The experiment's results as tables, and where they are written: the README beside this file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from livestep.models.examples.cook.experiment_menu import GUEST_SHARE, UNRULED
from livestep.models.examples.cook.experiment_nets import (
    CONTENDERS,
    UNSEEN_COUNT,
    WEEK_COUNT,
    WEEK_DAYS,
)
from livestep.models.examples.cook.experiment_runs import DEMO_NAME, Plan, Run, Score
from livestep.models.examples.cook.experiment_training import LOSS_ENOUGH
from livestep.models.model_errors import ModelError

#: README's tables stand between these.
TABLES_START, TABLES_END = "<!-- experiment -->", "<!-- /experiment -->"

#: What a README begins with where there is none yet.
TITLE = "# The cook, as an experiment\n\n"

#: In place of what a net can't be asked.
IMPOSSIBLE = "can't"


def tables(runs: Sequence[Run], plan: Plan, footer: str) -> str:
    """Tell all results.

    Args:
        runs: Of the plan.
        plan: What was run.
        footer: The last line: how long it took, on what.

    Returns:
        text: Markdown: five tables, each with a line that says what it shows.
    """
    counts = [count for count in plan.week_counts if count != WEEK_COUNT]
    parts = [
        f"**Whole unseen weeks right, %**, against the number of training weeks: mean of "
        f"{plan.seed_count} runs (worst-best), {UNSEEN_COUNT} weeks kept apart",
        _by_week_count(runs, counts, lambda run: _score(run.unseen).whole),
        "**Single days of unseen weeks right, %**, likewise (a guess is right on 33 %)",
        _by_week_count(runs, counts, lambda run: _score(run.unseen).days),
        f"**Days of unseen weeks right, %, day by day**, after {middle(counts)} training weeks",
        _by_day(runs, middle(counts)),
        f"**Weeks learnt by heart, and other lengths**: whole weeks right when all {WEEK_COUNT} "
        f"were learnt; then nets that learnt {plan.most_weeks} weeks of {WEEK_DAYS} days, asked "
        f"for {plan.flat_count} flats in Seattle's weather: single days right, and flats right "
        f"from the first day to the last, %",
        _lengths(runs, plan),
        f"**All six dishes**: {plan.most_weeks} weeks in which guests cook dish "
        f"{', '.join(UNRULED)} the day before on {GUEST_SHARE:.0%} of days; then other weeks and "
        f"Seattle, with guests, %; mean of {plan.menu_seed_count} runs",
        _menu(runs, plan),
        footer,
    ]
    return "\n\n".join(parts)


def describe_effort(runs: Iterable[Run], plan: Plan) -> str:
    """Say how many nets did not reach the loss at which training ends."""
    late = sum(run.updates >= plan.updates_max for run in runs)
    reached = "all nets reached it" if late == 0 else f"{late} nets did not reach it"
    return f"Trained to a loss of {LOSS_ENOUGH} in at most {plan.updates_max:,} updates: {reached}."


def write_readme(readme: Path, text: str) -> None:
    """Put the tables between README's markers; make the file if there is none.

    Args:
        readme: The file.
        text: As from `tables`.

    Raises:
        ModelError: If the file has no markers; it isn't changed then.
    """
    if not readme.exists():
        readme.write_text(f"{TITLE}{TABLES_START}\n{TABLES_END}\n", encoding="utf-8")
    pattern = re.compile(f"{re.escape(TABLES_START)}.*?{re.escape(TABLES_END)}", re.DOTALL)
    block = f"{TABLES_START}\n{text}\n{TABLES_END}"
    new_text, found_count = pattern.subn(lambda _: block, readme.read_text(encoding="utf-8"))
    if not found_count:
        raise ModelError(f"has no place for the tables: {TABLES_START} {TABLES_END}", file=readme)
    readme.write_text(new_text, encoding="utf-8")


def middle(counts: Sequence[int]) -> int:
    """Choose the number of training weeks that is shown day by day.

    Example:
        >>> middle([6, 12, 24, 48, 96, 192, 288])
        48
    """
    return counts[len(counts) // 2]


def chosen(runs: Iterable[Run], task: str, contender: str, week_count: int) -> list[Run]:
    """Choose the runs that differ by their seed only."""
    wanted = (task, contender, week_count)
    return [run for run in runs if (run.job.task, run.job.contender, run.job.week_count) == wanted]


def percent(share: float) -> str:
    """Round to whole percents, but say 100 only of all, and 0 only of nothing.

    Example:
        >>> [percent(share) for share in (0, 0.001, 0.5, 0.999, 1)]
        ['0', '<1', '50', '>99', '100']
    """
    if 0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"


def spread(shares: Sequence[float]) -> str:
    """Tell the mean, and the worst and the best if they differ.

    Example:
        >>> spread([0.5, 0.75, 1.0]), spread([1.0, 1.0])
        ('75 (50-100)', '100')
    """
    mean = percent(sum(shares) / len(shares))
    worst, best = percent(min(shares)), percent(max(shares))
    return mean if worst == best else f"{mean} ({worst}-{best})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a Markdown table.

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
        learnt_all = chosen(runs, "weeks", contender.name, WEEK_COUNT)
        found = chosen(runs, "weeks", contender.name, plan.most_weeks)
        updates = sum(run.updates for run in found) / len(found)
        by_heart = spread([_score(run.seen).whole for run in learnt_all]) if learnt_all else "-"
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
    """Two cells for each length; the fully connected net has none of them."""
    cells = []
    for length in plan.lengths:
        scores = [run.long[length] for run in runs if run.long]
        days, whole = [one.days for one in scores], [one.whole for one in scores]
        cells += [spread(days), spread(whole)] if scores else [IMPOSSIBLE, IMPOSSIBLE]
    return cells


def _score(score: Score | None) -> Score:
    assert score is not None, "a table asks for what its runs were not asked"
    return score
