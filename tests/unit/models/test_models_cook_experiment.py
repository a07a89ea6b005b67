"""The cook's experiment: weeks, six dishes, nets, runs, tables and plot."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from livestep import GRU, ModelError, encode
from livestep.models.examples.cook import DISHES, WEATHERS, cook_fields, next_dish
from livestep.models.examples.cook.cook_training import Lessons
from livestep.models.examples.cook.experiment import PLOT, README, make_experiment
from livestep.models.examples.cook.experiment_nets import (
    CONTENDERS,
    Contender,
    WholeWeek,
    predict,
    right_days,
    train,
    weight_count,
    with_absence,
)
from livestep.models.examples.cook.experiment_plot import draw
from livestep.models.examples.cook.experiment_runs import Job, Plan, Run, run_experiment
from livestep.models.examples.cook.experiment_tables import (
    TABLES_END,
    TABLES_START,
    tables,
    write_readme,
)
from livestep.models.examples.cook.experiment_weeks import (
    MENU,
    UNRULED,
    WEEK_COUNT,
    WEEK_DAYS,
    all_weeks,
    choose_weeks,
    dish_after,
    menu_fields,
    menu_lessons,
)

PNG_BEGINS = b"\x89PNG\r\n\x1a\n"

#: Hardly any training: enough to produce all results.
TINY = Plan(
    week_counts=(3, 6, WEEK_COUNT),
    seed_count=2,
    menu_seed_count=1,
    demo_seed_count=0,
    lengths=(9, 12),
    flat_count=5,
    updates_max=3,
)


@pytest.fixture(scope="module")
def tiny_runs() -> list[Run]:
    return run_experiment(TINY, process_count=1)


def test_all_weeks_are_listed_once() -> None:
    # Given each weather of seven days and each dish of the day before
    lessons = all_weeks()
    expected = set()
    for weathers in itertools.product(WEATHERS, repeat=WEEK_DAYS):
        for first in DISHES:
            dishes = [first]
            for weather in weathers:
                dishes.append(next_dish(dishes[-1], weather))
            expected.add((weathers, first, tuple(dishes[1:])))

    # Then the lessons are exactly these
    assert len(expected) == WEEK_COUNT == lessons.dishes.shape[1]
    assert {_week(lessons, column) for column in range(WEEK_COUNT)} == expected


@pytest.mark.parametrize("week_count", [1, 6, 48, 288])
def test_unseen_weeks_are_never_learned_and_the_same_for_all_nets(week_count: int) -> None:
    unseen = _weeks(choose_weeks(6, seed=0).unseen)
    for seed in range(5):
        weeks = choose_weeks(week_count, seed)
        assert len(_weeks(weeks.seen)) == week_count
        assert _weeks(weeks.unseen) == unseen
        assert not _weeks(weeks.seen) & unseen
    assert len(unseen) == 96


def test_a_larger_choice_of_weeks_contains_the_smaller_and_another_seed_chooses_others() -> None:
    few, many = (_weeks(choose_weeks(count, seed=3).seen) for count in (12, 48))
    assert few < many
    assert few != _weeks(choose_weeks(12, seed=4).seen)
    assert choose_weeks(WEEK_COUNT, seed=0).unseen is None


@pytest.mark.parametrize("week_count", [0, 289, 383, 385])
def test_more_weeks_than_are_left_cannot_be_chosen(week_count: int) -> None:
    with pytest.raises(ValueError, match=f"choose 1 to 288 weeks, or all 384; not {week_count}"):
        choose_weeks(week_count, seed=0)


def test_the_fully_connected_net_has_17_inputs_and_21_outputs_and_refuses_other_lengths() -> None:
    net = WholeWeek(8)
    assert (net.input_size, net.output_size) == (17, 21)
    assert net.unroll(all_weeks().sequence).shape == (7, WEEK_COUNT, 3)
    for day_count in (6, 8, 30, 365):
        with pytest.raises(ValueError, match=f"accepts 7 days, not {day_count}"):
            net.unroll(torch.zeros(day_count, 2, 5))


def test_the_fully_connected_net_uses_each_of_its_inputs() -> None:
    # Given a week, and the same week with another weather on one day or another first dish
    torch.manual_seed(0)
    net = WholeWeek(8)
    sequence = all_weeks().sequence[:, :1].repeat(1, 9, 1)  # (7, 9, 5)
    for day in range(WEEK_DAYS):
        sequence[day, 1 + day, : len(WEATHERS)] = sequence[day, 1 + day, : len(WEATHERS)].flip(0)
    sequence[0, 8, len(WEATHERS) :] = sequence[0, 8, len(WEATHERS) :].roll(1)

    # Then no two outputs are equal
    outputs = net.unroll(sequence).transpose(0, 1).flatten(1)  # (9, 21)
    assert len(torch.unique(outputs.detach(), dim=0)) == 9


@pytest.mark.parametrize("contender", CONTENDERS[1:], ids=lambda contender: contender.name)
@pytest.mark.parametrize("day_count", [1, 30])
def test_recurrent_nets_accept_any_length(contender: Contender, day_count: int) -> None:
    net = contender.make_net(0, *cook_fields())
    sequence = torch.zeros(day_count, 4, 5)
    sequence[0, :, 2] = 1.0
    lessons = Lessons(sequence, torch.zeros(day_count, 4, dtype=torch.int64))
    dishes = predict(net, lessons)
    assert dishes.shape == (day_count, 4)
    assert set(dishes.flatten().tolist()) <= {0, 1, 2}


def test_all_contenders_have_about_the_same_number_of_weights() -> None:
    counts = [weight_count(contender.make_net(0, *cook_fields())) for contender in CONTENDERS]
    assert max(counts) < 1.05 * min(counts)


def test_nets_are_seeded_and_keep_torchs_global_generator() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    for contender in CONTENDERS:
        torch.manual_seed(7)
        first, again, other = (contender.make_net(seed, *cook_fields()) for seed in (1, 1, 2))
        assert torch.equal(torch.rand(1), expected)
        for one, equal, different in zip(
            first.parameters(), again.parameters(), other.parameters(), strict=True
        ):
            assert torch.equal(one, equal)
            assert not torch.equal(one, different)


def test_a_dish_in_an_event_is_kept_and_all_others_become_absent() -> None:
    # Given days, some with yesterday's dish
    lessons = menu_lessons(torch.zeros(40, 30, dtype=torch.bool), _generator(1))
    told = lessons.sequence[:, :, 2:]
    is_told = told.sum(dim=-1) == 1
    assert 0 < int(is_told[1:].sum()) < is_told[1:].numel()

    # When absence is marked, then the given dishes are kept
    absent = with_absence(lessons.sequence)[:, :, 2:]
    assert torch.equal(absent[is_told], told[is_told])
    assert bool(absent[~is_told].isnan().all())


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_each_contender_learns_a_few_weeks_by_heart(contender: Contender) -> None:
    weeks = choose_weeks(6, seed=0)
    net = contender.make_net(0, *cook_fields())
    updates = train(net, contender, weeks.seen)
    assert 10 < updates < 2_000
    assert bool(right_days(net, weeks.seen).all())
    assert weeks.unseen is not None
    assert not bool(right_days(net, weeks.unseen).all())


def test_training_ends_at_its_limit() -> None:
    contender = Contender("GRU", GRU, 25)
    net = contender.make_net(0, *cook_fields())
    assert train(net, contender, choose_weeks(6, seed=0).seen, updates_max=4) == 4


def test_after_a_dish_without_a_rule_the_cook_starts_over_with_dish_1() -> None:
    assert MENU == ("1", "2", "3", "4", "5", "6")
    for weather in WEATHERS:
        assert [dish_after(dish, weather) for dish in UNRULED] == ["1", "1", "1"]
        for dish in DISHES:
            assert dish_after(dish, weather) == next_dish(dish, weather)
    for yesterday, weather in (("7", "sunny"), ("5", "snow")):
        with pytest.raises(ValueError, match="no rule"):
            dish_after(yesterday, weather)  # type: ignore[arg-type]


def test_lessons_of_six_dishes_equal_the_encoded_events() -> None:
    # Given weather of both kinds, and guests
    is_rainy = torch.rand(60, 8, generator=_generator(0)) < 0.5
    lessons = menu_lessons(is_rainy, _generator(1))
    told_dishes = set()
    for flat in range(8):
        # When the events are rebuilt and the rule is applied to them one by one
        events, dishes, dish = [], [], ""
        for row in lessons.sequence[:, flat]:
            weather = WEATHERS[int(row[:2].argmax())]
            event: dict[str, str] = {"weather": weather}
            if row[2:].any():
                event["yesterday"] = dish = MENU[int(row[2:].argmax())]
                told_dishes.add(dish)
            events.append(event)
            dish = dish_after(dish, weather)
            dishes.append(dish)

        # Then both are the same, and the weather is the given one
        assert "yesterday" in events[0]
        assert (encode(menu_fields()[0], events) == lessons.sequence[:, flat].numpy()).all()
        assert [MENU[dish] for dish in lessons.dishes[:, flat].tolist()] == dishes
        rainy = [event["weather"] == "rainy" for event in events]
        assert rainy == is_rainy[:, flat].tolist()
    assert told_dishes >= set(UNRULED)
    assert set(lessons.dishes.flatten().tolist()) == {0, 1, 2}


def test_a_plan_lists_each_job_once_and_only_recurrent_nets_for_six_dishes() -> None:
    jobs = Plan().jobs()
    assert len(set(jobs)) == len(jobs)
    assert {job.contender for job in jobs if job.task == "menu"} == {
        contender.name for contender in CONTENDERS[1:]
    }
    assert Plan().most_weeks == 288


def test_each_run_has_the_results_that_its_job_allows(tiny_runs: list[Run]) -> None:
    assert [run.job for run in tiny_runs] == TINY.jobs()
    for run in tiny_runs:
        job = run.job
        is_longest = job.week_count == TINY.most_weeks and job.contender != "fully connected"
        assert set(run.long) == (set(TINY.lengths) if is_longest else set())
        assert len(run.long_days) == (12 if is_longest else 0)
        assert (run.unseen is None) == (job.week_count == WEEK_COUNT)
        assert run.seen is not None
        if run.unseen and job.task == "weeks":
            assert run.unseen.days == pytest.approx(sum(run.days) / WEEK_DAYS)


def test_runs_are_the_same_again_and_in_other_processes(tiny_runs: list[Run]) -> None:
    done: list[Job] = []
    assert run_experiment(TINY, process_count=2, on_done=done.append) == tiny_runs
    assert done == TINY.jobs()


def test_the_tables_are_well_formed_and_made_from_the_results(tiny_runs: list[Run]) -> None:
    text = tables(tiny_runs, TINY, "The last line.")
    found = list(_tables(text))
    assert [len(rows) for rows in found] == [6, 6, 6, 6, 5]
    for rows in found:
        assert len({len(row) for row in rows}) == 1
        assert all(all(row) for row in rows)
    assert [row[0] for row in found[0]] == [contender.name for contender in CONTENDERS]
    assert found[3][0][-4:] == ["can't"] * 4
    assert text.endswith("The last line.")


def test_a_different_result_changes_only_its_cells(tiny_runs: list[Run]) -> None:
    # Given one run of one contender, changed to be right on each unseen day
    index, run = next(
        (index, run)
        for index, run in enumerate(tiny_runs)
        if run.job.task == "weeks" and run.job.contender == "LSTM" and run.job.week_count == 3
    )
    changed = list(tiny_runs)
    perfect = type(run.unseen)(1.0, 1.0) if run.unseen else None
    changed[index] = Run(run.job, run.weights, run.updates, run.seen, perfect, run.days)

    # Then its cells change, and no others
    before, after = (list(_tables(tables(runs, TINY, ""))) for runs in (tiny_runs, changed))
    differing = [
        (table_index, row_index, column)
        for table_index, rows in enumerate(before)
        for row_index, row in enumerate(rows)
        for column, cell in enumerate(row)
        if cell != after[table_index][row_index][column]
    ]
    assert differing == [(0, 5, 1), (1, 5, 1)]
    assert "100)" in after[0][5][1]


def test_only_the_text_between_the_markers_is_replaced(tmp_path: Path) -> None:
    readme = tmp_path / README
    readme.write_text(f"Before.\n{TABLES_START}\nold\n{TABLES_END}\nAfter.\n")
    write_readme(readme, "new \\1")
    write_readme(readme, "new \\1")
    assert readme.read_text() == f"Before.\n{TABLES_START}\nnew \\1\n{TABLES_END}\nAfter.\n"


def test_a_readme_without_markers_is_refused_and_not_changed(tmp_path: Path) -> None:
    readme = tmp_path / README
    readme.write_text("My own.\n")
    with pytest.raises(ModelError, match="no place for the tables"):
        write_readme(readme, "new")
    assert readme.read_text() == "My own.\n"


def test_an_experiment_writes_its_tables_and_its_plot(tmp_path: Path) -> None:
    output = StringIO()
    plan = Plan((3, 6), 1, 1, 0, lengths=(9,), flat_count=5, updates_max=3)
    make_experiment(plan, tmp_path, 1, Console(file=output, width=200))
    text = (tmp_path / README).read_text()
    assert TABLES_START in text and TABLES_END in text
    assert [len(rows) for rows in _tables(text)] == [6, 6, 6, 6, 5]
    assert re.search(
        r"in at most 3 updates: 17 nets did not reach it. 17 nets in \d+ s; each of 1 ",
        text,
    )
    assert (tmp_path / PLOT).read_bytes().startswith(PNG_BEGINS)
    assert "2/2" in output.getvalue() and "RNN fed back, free running" in output.getvalue()
    assert {path.name for path in tmp_path.iterdir()} == {README, PLOT}


def test_equal_results_draw_an_equal_plot_and_different_results_a_different_one(
    tiny_runs: list[Run], tmp_path: Path
) -> None:
    for name, runs in (("a", tiny_runs), ("b", tiny_runs)):
        draw(runs, TINY, tmp_path / name)
    others = [
        Run(run.job, run.weights, run.updates, run.seen, run.seen, run.days[::-1], run.long)
        for run in tiny_runs
    ]
    draw(others, TINY, tmp_path / "c")
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_missing_matplotlib_is_named_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "livestep.models.examples.cook.experiment_plot.find_spec", lambda name: None
    )
    with pytest.raises(ModelError, match=r"matplotlib: pip install 'livestep\[experiment\]'"):
        make_experiment(Plan(), tmp_path, 1, Console(file=StringIO()))
    assert list(tmp_path.iterdir()) == []


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _week(lessons: Lessons, column: int) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Decode one week: its weather, the dish before, its dishes."""
    rows = lessons.sequence[:, column]
    weathers = tuple(WEATHERS[int(row[:2].argmax())] for row in rows)
    dishes = tuple(DISHES[dish] for dish in lessons.dishes[:, column].tolist())
    return weathers, DISHES[int(rows[0, 2:].argmax())], dishes


def _weeks(lessons: Lessons | None) -> set[tuple[tuple[str, ...], str, tuple[str, ...]]]:
    assert lessons is not None
    return {_week(lessons, column) for column in range(lessons.dishes.shape[1])}


def _tables(text: str) -> Iterator[list[list[str]]]:
    """Parse the rows of each Markdown table, without the head."""
    for block in re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()]
        assert all(re.fullmatch("-+", cell) for cell in rows[1])
        yield rows[2:]
