"""The experiment's runs: each trains one net and asks it everything.

All contenders learn from weeks only, also those that predict a whole year afterwards. The demo's
training, which is longer and harder, runs for comparison.

A run depends on its job alone, so the same jobs give the same results on the same machine, in any
order and with any number of processes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from livestep.models.examples.cook.cook_story import DISHES, WEATHERS, cook_fields
from livestep.models.examples.cook.cook_training import (
    Lessons,
    random_lessons,
    seattle_lessons,
    train_cook,
)
from livestep.models.examples.cook.experiment_nets import (
    CONTENDERS,
    UPDATES_MAX,
    Contender,
    predict,
    right_days,
    train,
    weight_count,
)
from livestep.models.examples.cook.experiment_weeks import (
    WEEK_COUNT,
    WEEK_DAYS,
    choose_weeks,
    menu_fields,
    menu_lessons,
)
from livestep.models.seeding import one_thread

#: Seed of the long sequences in Seattle, which no net learns from; the same for all.
LONG_SEED = 365

#: Names of the two jobs that are not a contender with three dishes.
DEMO_NAME, MENU_NAME = "RNN, the demo's training", "all six dishes"


class Score(NamedTuple):
    """The share of right predictions.

    Attributes:
        days: Share of right days, from 0 to 1.
        whole: Share of sequences that are right from the first day to the last.
    """

    days: float
    whole: float


class Job(NamedTuple):
    """What one run does.

    Attributes:
        task: Three dishes, six dishes, or the demo's training.
        contender: Name of a contender, or `DEMO_NAME`.
        week_count: Number of weeks to learn from.
        seed: Seed of weights and choice of weeks.
    """

    task: Literal["weeks", "menu", "demo"]
    contender: str
    week_count: int
    seed: int

    @property
    def title(self) -> str:
        """Name of its progress bar."""
        return MENU_NAME if self.task == "menu" else self.contender


@dataclass(frozen=True)
class Run:
    """The result of one job.

    Attributes:
        job: The job.
        weights: Number of weights of the net.
        updates: Optimizer steps until the weeks were learned, or the maximum; 0 for the demo's
            training.
        seen: On the weeks that it learned from; None for the demo's training, which sees no week
            twice.
        unseen: On weeks that it never saw; None if it learned all weeks.
        days: Share of right predictions on each day of the unseen weeks, Monday first.
        long: By length in days, in Seattle's weather; empty if the net can't take other lengths.
        long_days: Share of right predictions on each day of the longest sequences.
        unruled: Number of predictions in the longest sequences that name a dish without a rule.
    """

    job: Job
    weights: int
    updates: int
    seen: Score | None = None
    unseen: Score | None = None
    days: tuple[float, ...] = ()
    long: dict[int, Score] = field(default_factory=dict)
    long_days: tuple[float, ...] = ()
    unruled: int = 0


@dataclass(frozen=True)
class Plan:
    """All runs of an experiment.

    Attributes:
        week_counts: Numbers of training weeks, rising. The nets of the largest number that leaves
            weeks unseen also predict the long sequences.
        seed_count: Runs of each contender with each number of weeks.
        menu_seed_count: Runs of each recurrent contender with six dishes.
        demo_seed_count: Runs of the demo's training; 0 skips it.
        lengths: Days of the long sequences, rising.
        flat_count: Number of long sequences.
        updates_max: See `UPDATES_MAX`.
    """

    week_counts: tuple[int, ...] = (6, 12, 24, 48, 96, 192, 288, WEEK_COUNT)
    seed_count: int = 6
    menu_seed_count: int = 3
    demo_seed_count: int = 2
    lengths: tuple[int, ...] = (30, 365)
    flat_count: int = 200
    updates_max: int = UPDATES_MAX

    @property
    def most_weeks(self) -> int:
        """The largest number of training weeks that leaves some unseen."""
        return max(count for count in self.week_counts if count != WEEK_COUNT)

    def jobs(self) -> list[Job]:
        """List all jobs, the longest first."""
        demo = [Job("demo", DEMO_NAME, 0, seed) for seed in range(self.demo_seed_count)]
        menu = [
            Job("menu", contender.name, self.most_weeks, seed)
            for contender in CONTENDERS
            if contender.is_recurrent
            for seed in range(self.menu_seed_count)
        ]
        weeks = [
            Job("weeks", contender.name, week_count, seed)
            for week_count in sorted(self.week_counts, reverse=True)
            for contender in CONTENDERS
            for seed in range(self.seed_count)
        ]
        return demo + menu + weeks


def run_experiment(
    plan: Plan, process_count: int, on_done: Callable[[Job], None] | None = None
) -> list[Run]:
    """Run all jobs of a plan.

    Args:
        plan: What to run.
        process_count: Runs at the same time; 1 runs all in this process.
        on_done: Called after each job, in the order of the jobs.

    Returns:
        runs: In the order of `plan.jobs()`.

    Raises:
        ModelError: If the weather's package is missing, or the demo's training fails.
    """
    report = on_done or (lambda job: None)
    run_one = partial(run_job, plan)
    runs = []
    if process_count == 1:
        for run in map(run_one, plan.jobs()):
            runs.append(run)
            report(run.job)
        return runs
    # Spawned, not forked: a fork in the middle of torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(process_count, mp_context=context) as pool:
        # After an error or Ctrl-C, map cancels the jobs that have not started.
        for run in pool.map(run_one, plan.jobs()):
            runs.append(run)
            report(run.job)
    return runs


def run_job(plan: Plan, job: Job) -> Run:
    """Train one net and ask it everything.

    Args:
        plan: Lengths, and how long to train.
        job: What to do.

    Returns:
        run: The result.
    """
    with one_thread():
        if job.task == "demo":
            return _run_demo(plan, job)
        (contender,) = (one for one in CONTENDERS if one.name == job.contender)
        return _run_menu(plan, job, contender) if job.task == "menu" else _run(plan, job, contender)


def _run(plan: Plan, job: Job, contender: Contender) -> Run:
    """Learn some weeks of three dishes."""
    weeks = choose_weeks(job.week_count, job.seed)
    net = contender.make_net(job.seed, *cook_fields())
    updates = train(net, contender, weeks.seen, plan.updates_max)
    run = Run(job, weight_count(net), updates, seen=score(right_days(net, weeks.seen)))
    if weeks.unseen is None:
        return run
    is_right = right_days(net, weeks.unseen)  # (7, N)
    run = replace(run, unseen=score(is_right), days=_by_day(is_right))
    if not contender.is_recurrent or job.week_count != plan.most_weeks:
        return run
    return _with_long(run, plan, right_days(net, _seattle(plan)))


def _run_menu(plan: Plan, job: Job, contender: Contender) -> Run:
    """Learn as many weeks of six dishes, with guests."""
    generator = torch.Generator().manual_seed(job.seed)
    seen, unseen = (
        menu_lessons(_is_rainy(random_lessons(count, WEEK_DAYS, generator)), generator)
        for count in (job.week_count, WEEK_COUNT)
    )
    net = contender.make_net(job.seed, *menu_fields())
    updates = train(net, contender, seen, plan.updates_max)
    long = menu_lessons(_is_rainy(_seattle(plan)), torch.Generator().manual_seed(LONG_SEED))
    run = Run(
        job,
        weight_count(net),
        updates,
        seen=score(right_days(net, seen)),
        unseen=score(right_days(net, unseen)),
        unruled=int((predict(net, long) >= len(DISHES)).sum()),
    )
    return _with_long(run, plan, right_days(net, long))


def _run_demo(plan: Plan, job: Job) -> Run:
    """Train like the demo."""
    net = train_cook(job.seed)
    return _with_long(Run(job, weight_count(net), 0), plan, right_days(net, _seattle(plan)))


def score(is_right: Tensor) -> Score:
    """Count (L, N) days.

    Example:
        >>> score(torch.tensor([[True, True], [True, False]]))
        Score(days=0.75, whole=0.5)
    """
    return Score(float(is_right.float().mean()), float(is_right.all(dim=0).float().mean()))


def _seattle(plan: Plan) -> Lessons:
    """Return the long sequences: each flat has its own first day and first dish."""
    lessons = seattle_lessons(plan.flat_count, torch.Generator().manual_seed(LONG_SEED))
    day_count = max(plan.lengths)
    return Lessons(lessons.sequence[:day_count], lessons.dishes[:day_count])


def _is_rainy(lessons: Lessons) -> Tensor:
    return lessons.sequence[:, :, WEATHERS.index("rainy")] > 0  # (L, N)


def _by_day(is_right: Tensor) -> tuple[float, ...]:
    return tuple(is_right.float().mean(dim=1).tolist())


def _with_long(run: Run, plan: Plan, is_right: Tensor) -> Run:
    """Add the results of the long sequences, (L, N); a shorter one is the start of a longer one."""
    long = {length: score(is_right[:length]) for length in plan.lengths}
    return replace(run, long=long, long_days=_by_day(is_right))
