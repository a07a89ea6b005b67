"""The cook's rule, the weather, and the net that learns the rule."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest
import torch

from livestep import ModelError, VanillaRNN, check_model, encode, load_model, save_model
from livestep.models.examples.cook import (
    DISHES,
    Flat,
    cook_fields,
    flat_days,
    make_flats,
    next_dish,
    seattle_weather,
    train_cook,
)
from livestep.models.examples.cook import (
    cook_training as training,
)
from livestep.models.examples.cook.cook_training import examine, make_lessons, random_lessons

Reports = list[tuple[float, str]]


@pytest.fixture(scope="module")
def trained() -> tuple[VanillaRNN, Reports]:
    reports: Reports = []
    model = train_cook(seed=0, on_progress=lambda fraction, text: reports.append((fraction, text)))
    return model, reports


@pytest.mark.parametrize(
    ("weather", "rule"), [("sunny", ("12", "23", "31")), ("rainy", ("13", "21", "32"))]
)
def test_the_rule_matches_the_story(weather: str, rule: tuple[str, ...]) -> None:
    assert [yesterday + next_dish(yesterday, weather) for yesterday in DISHES] == list(rule)


@pytest.mark.parametrize(("yesterday", "weather"), [("4", "sunny"), ("1", "snow")])
def test_there_is_no_rule_for_other_dishes_or_weather(yesterday: str, weather: str) -> None:
    with pytest.raises(ValueError, match="no rule"):
        next_dish(yesterday, weather)


def test_the_weather_has_every_day_of_four_years_in_seattle() -> None:
    days = [day for day, _ in seattle_weather()]
    assert days == [date(2012, 1, 1) + timedelta(days=index) for index in range(1461)]
    kinds = [kind for _, kind in seattle_weather()]
    assert (kinds.count("sunny"), kinds.count("rainy")) == (714, 747)


def test_a_missing_weather_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livestep.models.package_data.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="vega_datasets"):
        seattle_weather()


def test_only_the_first_event_of_a_flat_has_yesterdays_dish() -> None:
    weather = seattle_weather()
    flat = Flat("flat-000", first_day=100, first_dish="3")
    days = flat_days(flat, 30, weather)
    assert [day.date for day in days] == [day for day, _ in weather[100:130]]
    assert days[0].event == {"weather": weather[100][1], "yesterday": "3"}
    assert all(day.event.keys() == {"weather"} for day in days[1:])
    dishes = [flat.first_dish, *(day.dish for day in days)]
    for yesterday, dish, day in zip(dishes, dishes[1:], days, strict=False):
        assert dish == next_dish(yesterday, day.event["weather"])


def test_flats_are_seeded_and_start_early_enough_for_their_days() -> None:
    weather = seattle_weather()
    flats = make_flats(300, seed=1, day_count=1460, weather=weather)
    assert flats == make_flats(300, seed=1, day_count=1460, weather=weather)
    assert flats != make_flats(300, seed=2, day_count=1460, weather=weather)
    assert len({flat.key for flat in flats}) == 300
    assert {flat.first_day for flat in flats} == {0, 1}
    assert {flat.first_dish for flat in flats} == set(DISHES)
    assert all(len(flat_days(flat, 1460, weather)) == 1460 for flat in flats)
    with pytest.raises(ValueError, match="from 1 to 1461, not 1462"):
        make_flats(1, seed=1, day_count=1462, weather=weather)


def test_lessons_equal_the_encoded_events() -> None:
    weather = seattle_weather()
    flats = make_flats(5, seed=1, day_count=40, weather=weather)
    days = [flat_days(flat, 40, weather) for flat in flats]
    is_rainy = torch.tensor([[day.event["weather"] == "rainy" for day in of] for of in days]).T
    first_dishes = torch.tensor([DISHES.index(flat.first_dish) for flat in flats])
    lessons = make_lessons(is_rainy, first_dishes)
    for index, of_flat in enumerate(days):
        rows = encode(cook_fields()[0], [day.event for day in of_flat])
        assert (lessons.sequence[:, index].numpy() == rows).all()
        dishes = [DISHES[dish] for dish in lessons.dishes[:, index].tolist()]
        assert dishes == [day.dish for day in of_flat]


def test_the_trained_net_is_right_for_thousands_of_days(
    trained: tuple[VanillaRNN, Reports],
) -> None:
    model, _ = trained
    exam = examine(model, random_lessons(100, 5_000, torch.Generator().manual_seed(12345)))
    assert exam.wrong_count == 0
    assert exam.least_sure > 0.9


def test_the_trained_net_is_right_in_every_flat_after_saving_and_loading(
    trained: tuple[VanillaRNN, Reports], tmp_path: object
) -> None:
    model, _ = trained
    save_model(model, f"{tmp_path}/cook", *cook_fields())
    loaded = load_model(f"{tmp_path}/cook")
    weather = seattle_weather()
    for flat in make_flats(10, seed=3, day_count=1_400, weather=weather):
        days = flat_days(flat, 1_400, weather)
        predictions = loaded.unroll_events([day.event for day in days])
        assert [each["dish"]["label"] for each in predictions] == [day.dish for day in days]


def test_the_trained_net_keeps_the_contract(trained: tuple[VanillaRNN, Reports]) -> None:
    check_model(trained[0])


def test_progress_rises_to_one(trained: tuple[VanillaRNN, Reports]) -> None:
    _, reports = trained
    fractions = [fraction for fraction, _ in reports]
    assert fractions == sorted(fractions)
    assert 0 < fractions[0] < 0.1
    assert fractions[-1] == 1.0
    assert all(text for _, text in reports)


def test_a_net_that_does_not_learn_is_an_error_not_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "BATCHES_MAX", 3)
    with pytest.raises(ModelError, match="seed: .*after 3 batches"):
        train_cook(seed=0)


def test_training_is_seeded_and_keeps_torchs_global_generator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given an exam that every net passes, so that training is short
    monkeypatch.setattr(training, "FIRST_DAYS", training.LAST_DAYS)
    monkeypatch.setattr(training, "EXAMINE_EVERY", 3)
    monkeypatch.setattr(training, "EXAM_FLATS", 1)
    monkeypatch.setattr(training, "EXAM_DAYS", 1)
    monkeypatch.setattr(training.Exam, "is_passed", True)
    torch.manual_seed(7)
    expected = torch.rand(1)

    # When the same seed is trained twice, from different global seeds
    torch.manual_seed(7)
    weights = [train_cook(seed=5).state_dict() for _ in range(2)]

    # Then the nets are equal, and the global generator has not moved
    assert torch.equal(torch.rand(1), expected)
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(
        train_cook(seed=6).state_dict()["head.weight"], weights[0]["head.weight"]
    )
