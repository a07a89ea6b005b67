"""The experiment's results as a plot, drawn by matplotlib without a screen."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from livestep.models.examples.cook.experiment_nets import CONTENDERS
from livestep.models.examples.cook.experiment_runs import DEMO_NAME, Plan, Run
from livestep.models.examples.cook.experiment_tables import chosen, middle
from livestep.models.examples.cook.experiment_weeks import WEEK_COUNT, WEEK_DAYS
from livestep.models.model_errors import ModelError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

#: One color and one marker per line, safe for color-blind readers.
#: Source: Okabe and Ito 2008, "Color Universal Design".
COLORS = ("#000000", "#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
MARKERS = ("o", "s", "^", "v", "D", "x", "+")

#: Points. Later lines are thinner, so that an equal earlier line remains visible below.
LINE_WIDTHS = (5.0, 4.4, 3.8, 3.2, 2.6, 2.0, 1.4)

NAMES = (*(contender.name for contender in CONTENDERS), DEMO_NAME)

#: Matplotlib's options for the line of each name.
LINES: dict[str, dict[str, Any]] = {
    name: {"color": color, "marker": marker, "linewidth": width, "label": name}
    for name, color, marker, width in zip(NAMES, COLORS, MARKERS, LINE_WIDTHS, strict=True)
}

#: Inches, and dots per inch.
WIDTH, HEIGHT, DPI = 12.0, 8.5, 110


def check_plotting() -> None:
    """Look for matplotlib before minutes of training, not after.

    Raises:
        ModelError: If matplotlib is missing.
    """
    if find_spec("matplotlib") is None:
        raise ModelError("the plot needs matplotlib: pip install 'livestep[experiment]'")


def draw(runs: Sequence[Run], plan: Plan, file: Path) -> None:
    """Draw four plots in one file: weeks, days, the days of a week, the days of a year.

    Args:
        runs: The runs of the plan.
        plan: The plan.
        file: The PNG to write; replaced if it exists.

    Raises:
        ModelError: If matplotlib is missing.
    """
    check_plotting()
    # Imported here: the rest of the experiment works without it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    (weeks, days), (week_days, year_days) = figure.subplots(2, 2)
    _draw_counts(weeks, runs, plan, whole=True)
    _draw_counts(days, runs, plan, whole=False)
    _draw_week_days(week_days, runs, plan)
    _draw_year_days(year_days, runs, plan)
    for axes in (weeks, days, week_days, year_days):
        axes.set_ylabel("right, %")
        axes.set_ylim(-3, 103)
        axes.grid(alpha=0.3)
    handles: dict[str, Artist] = {}
    for axes in (weeks, year_days):
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(str(name), handle)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4)
    # Without the software version, equal results give an equal file.
    figure.savefig(file, format="png", metadata={"Software": None})


def _draw_counts(axes: Axes, runs: Sequence[Run], plan: Plan, *, whole: bool) -> None:
    """Against the number of training weeks: mean, and from the worst run to the best."""
    counts = [count for count in plan.week_counts if count != WEEK_COUNT]
    for contender in CONTENDERS:
        line = LINES[contender.name]
        means, worst, best = [], [], []
        for count in counts:
            found = chosen(runs, "weeks", contender.name, count)
            scores = [run.unseen for run in found if run.unseen]
            shares = [100 * (score.whole if whole else score.days) for score in scores]
            means.append(sum(shares) / len(shares))
            worst.append(min(shares))
            best.append(max(shares))
        axes.plot(counts, means, **line)
        axes.fill_between(counts, worst, best, color=line["color"], alpha=0.12, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.set_xlabel(f"training weeks, of {WEEK_COUNT} that there are")
    what = "Whole unseen weeks" if whole else "Single days of unseen weeks"
    axes.set_title(f"{what} (shaded: worst to best run)")


def _draw_week_days(axes: Axes, runs: Sequence[Run], plan: Plan) -> None:
    """Day by day of an unseen week."""
    week_count = middle([count for count in plan.week_counts if count != WEEK_COUNT])
    for contender in CONTENDERS:
        shares = _means([run.days for run in chosen(runs, "weeks", contender.name, week_count)])
        axes.plot(range(1, WEEK_DAYS + 1), shares, **LINES[contender.name])
    axes.set_xlabel("day of an unseen week")
    axes.set_title(f"Day by day, after {week_count} training weeks")


def _draw_year_days(axes: Axes, runs: Sequence[Run], plan: Plan) -> None:
    """Day by day of the longest sequences."""
    for name, line in LINES.items():
        found = chosen(runs, "weeks", name, plan.most_weeks) or chosen(runs, "demo", name, 0)
        if shares := _means([run.long_days for run in found]):
            axes.plot(range(1, len(shares) + 1), shares, **{**line, "marker": ""})
    axes.axvline(WEEK_DAYS, color="grey", linestyle="--", linewidth=1)
    axes.set_xscale("log")
    ticks = sorted({1, WEEK_DAYS, *plan.lengths})
    axes.set_xticks(ticks, [str(day) for day in ticks])
    axes.minorticks_off()
    axes.set_xlabel(f"day (dashed: the {WEEK_DAYS} days that were trained)")
    axes.set_title(f"Seattle, day by day, after {plan.most_weeks} training weeks")


def _means(runs_days: Sequence[tuple[float, ...]]) -> list[float]:
    """Return the mean over runs of each day, in percent; empty if a run has no days."""
    return [100 * sum(day) / len(runs_days) for day in zip(*runs_days, strict=True)]
