"""The experiment's runs: each trains one net and asks it everything.

All contenders learn from weeks only, also those that are asked for a year afterwards. The demo's
training, which is longer and harder, is asked beside them.

A run depends on its job alone, so the same jobs give the same results on the same machine, in
whatever order and in however many processes they run.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from livestep.models.examples.cook.cook_story import WEATHERS, cook_fields
from livestep.models.examples.cook.cook_training import (
    Lessons,
    random_lessons,
    seattle_lessons,
    train_cook,
)
from livestep.models.examples.cook.experiment_menu import menu_fields, menu_lessons, unruled_count
from livestep.models.examples.cook.experiment_nets import (
    CONTENDERS,
    WEEK_COUNT,
    WEEK_DAYS,
    Contender,
    FullyConnected,
    choose_weeks,
    find_contender,
    weight_count,
)
from livestep.models.examples.cook.experiment_training import (
    UPDATES_MAX,
    predict,
    right_days,
    train,
)
from livestep.models.seeding import one_thread

#: Of the long sequences in Seattle, which no net learns from; the same for all.
LONG_SEED = 365

#: What the bars and the results call the two jobs that are no contender with three dishes.
DEMO_NAME, MENU_NAME = "RNN, the demo's training", "all six dishes"

Task = Literal["weeks", "menu", "demo"]


class Score(NamedTuple):
    """How much came out right.

    Attributes:
        days: Share of single days, from 0 to 1.
        whole: Share of sequences that were right from the first day to the last.
    """

    days: float
    whole: float


class Job(NamedTuple):
    """What one run does.

    Attributes:
        task: Three dishes, six, or the demo's training.
        contender: The name of one.
        week_count: Weeks to learn from.
        seed: Of weights and choice of weeks.
    """

    task: Task
    contender: str
    week_count: int
    seed: int

    @property
    def title(self) -> str:
        """What a progress bar calls it."""
        return MENU_NAME if self.task == "menu" else self.contender


@dataclass(frozen=True)
class Run:
    """What came out of one job.

    Attributes:
        job: The job.
        weights: How many the net has.
        updates: Optimiser steps until the weeks were learnt, or the most there may be; 0 for the
            demo's training.
        seen: On the weeks that it learnt from; None for the demo's training, which sees no week
            twice.
        unseen: On weeks that it never saw; None if it learnt from all.
        days: Share right on each day of the unseen weeks, Monday first.
        long: By length in days, in Seattle's weather; empty if the net can't take other lengths.
        long_days: Share right on each day of the longest ones.
        unruled: Days, out of the longest ones, for which a dish without a rule was named.
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
    """What is run.

    Attributes:
        week_counts: Numbers of training weeks, rising; the last that leaves weeks unseen is the one
            whose nets are asked for long sequences.
        seed_count: Runs of each contender with each number of weeks.
        menu_seed_count: Runs of each recurrent contender with six dishes.
        demo_seed_count: Runs of the demo's training; 0 leaves it out.
        lengths: Days of the long sequences, rising.
        flat_count: How many long sequences.
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
        """List all jobs, those that take longest first."""
        demo: list[Job] = [Job("demo", DEMO_NAME, 0, seed) for seed in range(self.demo_seed_count)]
        menu: list[Job] = [
            Job("menu", contender.name, self.most_weeks, seed)
            for contender in CONTENDERS
            if contender.kind is not FullyConnected
            for seed in range(self.menu_seed_count)
        ]
        weeks: list[Job] = [
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
        process_count: How many at once; 1 runs them in this process.
        on_done: Called after each job, in the order in which they end.

    Returns:
        runs: In the order of `plan.jobs()`.

    Raises:
        ModelError: If the weather's package is not installed, or the demo's training fails.
    """
    report = on_done or (lambda job: None)
    jobs = plan.jobs()
    run_by_job: dict[Job, Run] = {}
    for job, run in each_run(plan, jobs, process_count):
        run_by_job[job] = run
        report(job)
    return [run_by_job[job] for job in jobs]


def each_run(plan: Plan, jobs: Sequence[Job], process_count: int) -> Iterator[tuple[Job, Run]]:
    """Run some jobs of a plan.

    Args:
        plan: As for `run_job`.
        jobs: What to do.
        process_count: As for `run_experiment`.

    Yields:
        job: One of the jobs, as it ends.
        run: What came out of it.
    """
    if process_count == 1:
        for job in jobs:
            yield job, run_job(plan, job)
        return
    # Spawned, not forked: a fork in the middle of torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(process_count, mp_context=context) as pool:
        try:
            job_by_future = {pool.submit(run_job, plan, job): job for job in jobs}
            for future in as_completed(job_by_future):
                yield job_by_future[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def run_job(plan: Plan, job: Job) -> Run:
    """Train one net and ask it everything.

    Args:
        plan: Lengths, and how long to train.
        job: What to do.

    Returns:
        run: What came out.
    """
    with one_thread():
        if job.task == "demo":
            return _run_demo(plan, job)
        contender = find_contender(job.contender)
        return _run_menu(plan, job, contender) if job.task == "menu" else _run(plan, job, contender)


def _run(plan: Plan, job: Job, contender: Contender) -> Run:
    """Learn some weeks of three dishes."""
    weeks = choose_weeks(job.week_count, job.seed)
    net = contender.make_net(job.seed, *cook_fields())
    updates = train(net, contender, weeks.seen, plan.updates_max)
    is_seen_right = right_days(net, weeks.seen)
    run = Run(job, weight_count(net), updates, seen=score(is_seen_right))
    if weeks.unseen is None:
        return run
    is_right = right_days(net, weeks.unseen)  # (7, N)
    run = replace(run, unseen=score(is_right), days=_by_day(is_right))
    if contender.kind is FullyConnected or job.week_count != plan.most_weeks:
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
        score(right_days(net, seen)),
        score(right_days(net, unseen)),
        unruled=unruled_count(predict(net, long)),
    )
    return _with_long(run, plan, right_days(net, long))


def _run_demo(plan: Plan, job: Job) -> Run:
    """Train as the demo does."""
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
    """Give the long sequences: each flat has a first day and a first dish of its own."""
    lessons = seattle_lessons(plan.flat_count, torch.Generator().manual_seed(LONG_SEED))
    day_count = max(plan.lengths)
    return Lessons(lessons.sequence[:day_count], lessons.dishes[:day_count])


def _is_rainy(lessons: Lessons) -> Tensor:
    return lessons.sequence[:, :, WEATHERS.index("rainy")] > 0  # (L, N)


def _by_day(is_right: Tensor) -> tuple[float, ...]:
    return tuple(is_right.float().mean(dim=1).tolist())


def _with_long(run: Run, plan: Plan, is_right: Tensor) -> Run:
    """Add what came of the long sequences, (L, N); a shorter one is the beginning of a longer."""
    long = {length: score(is_right[:length]) for length in plan.lengths}
    return replace(run, long=long, long_days=_by_day(is_right))
