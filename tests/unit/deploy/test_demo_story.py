"""The demo's events, and the judgement of a prediction by the rules alone."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import orjson
import pytest

from livestep.deploy.demo.demo_story import SLOW_DAYS, Story, event_time_ms
from livestep.models.examples.cook import DISHES, next_dish
from tests.support.worker_records import Answer


@pytest.fixture(scope="module")
def story() -> Story:
    return Story.make(flat_count=12, day_count=40, seed=3)


def prediction(story: Story, key: str, index: int, dish: str | None = None) -> Answer:
    """A record that names the right dish, or `dish`."""
    day = story.days[key][index]
    value = {"dish": {"label": dish or day.dish, "probabilities": {}}}
    return Answer(key.encode(), orjson.dumps(value), event_time_ms(day.date), [])


def test_slow_and_fast_part_together_are_each_flats_days_in_order(story: Story) -> None:
    told = [(story.slow_flat, day) for day in story.slow_part()] + list(story.fast_part())
    assert len(story.slow_part()) == SLOW_DAYS
    assert len(told) == story.event_count == 12 * 40
    for key, days in story.days.items():
        assert [day for told_key, day in told if told_key == key] == days


def test_flats_are_interleaved_by_day(story: Story) -> None:
    last = [key for key, _ in story.fast_part()][-24:]
    assert last == [*story.days, *story.days]


def test_only_the_first_event_of_a_flat_says_what_was_cooked(story: Story) -> None:
    for days in story.days.values():
        assert "yesterday" in days[0].event
        assert all(day.event.keys() == {"weather"} for day in days[1:])


def test_the_right_dish_is_no_fault(story: Story) -> None:
    for key, days in story.days.items():
        assert all(story.wrong_dish(prediction(story, key, i)) is None for i in range(len(days)))


def test_another_dish_is_a_fault_that_names_flat_and_day(story: Story) -> None:
    day = story.days["flat-004"][7]
    other = next_dish(day.dish, "sunny")
    fault = story.wrong_dish(prediction(story, "flat-004", 7, other))
    assert fault == f"flat-004 on {day.date}: {other}, not {day.dish}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": b"flat-999"}, "no dish of the story"),
        ({"key": None}, "no dish of the story"),
        ({"value": None}, "no dish of the story"),
        ({"value": b"{"}, "no dish of the story"),
        ({"value": b'{"dish":"1"}'}, "no dish of the story"),
    ],
)
def test_what_is_no_prediction_of_the_story_is_a_fault(
    story: Story, change: dict[str, object], words: str
) -> None:
    fault = story.wrong_dish(prediction(story, "flat-000", 0).but(**change))
    assert fault is not None
    assert words in fault


@pytest.mark.parametrize("days", [-1, 40])
def test_a_day_before_the_first_or_after_the_last_is_a_fault(story: Story, days: int) -> None:
    date = story.days["flat-000"][0].date + timedelta(days=days)
    record = dataclasses.replace(prediction(story, "flat-000", 0), timestamp=event_time_ms(date))
    assert story.wrong_dish(record) is not None


def test_the_same_seed_tells_the_same_story() -> None:
    assert Story.make(10, 30, seed=1) == Story.make(10, 30, seed=1)
    assert Story.make(10, 30, seed=1) != Story.make(10, 30, seed=2)


def test_all_dishes_are_cooked(story: Story) -> None:
    assert {day.dish for days in story.days.values() for day in days} == set(DISHES)
