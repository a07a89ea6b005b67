"""Headers and sources: what the worker writes is what the clients read."""

import pytest

from livestep.pipeline.errors import DecodeError
from livestep.pipeline.records import (
    Source,
    dead_letter_headers,
    key_bytes,
    key_text,
    read_dead_letter_headers,
    read_prediction_headers,
)
from tests.support.prediction_headers import answer_headers, prediction_headers

SOURCE = Source("events", 3, 1041)


def test_a_source_survives_the_round_trip_through_bytes():
    assert Source.from_bytes(SOURCE.to_bytes()) == SOURCE


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"events",
        b"events/1",
        b"events/1/2/3",
        b"/1/2",
        b"events/-1/2",
        b"events/ 1/2",
        b"events/01/2",
        b"events/1/x",
        b"events/1_0/2",
        b"\xff/1/2",
    ],
)
def test_invalid_bytes_of_a_source_are_refused(value):
    with pytest.raises(DecodeError):
        Source.from_bytes(value)


def test_the_headers_of_a_prediction_survive_the_round_trip():
    headers = prediction_headers(SOURCE.to_bytes(), 17, b"0123456789abcdef")
    assert headers[1] == ("timestep", b"17")
    found = read_prediction_headers(headers)
    assert found == (SOURCE, 17, "0123456789abcdef", None, None, None)


def test_optional_headers_of_a_prediction_survive_the_round_trip():
    headers = prediction_headers(SOURCE.to_bytes(), 17, b"0123456789abcdef")
    generated = read_prediction_headers(headers + answer_headers(3, 2, is_by_gap=True))
    assert (generated.step, generated.finish, generated.ended_by) == (3, "steps-max", "session-gap")
    assert answer_headers(-1, 0, is_by_gap=False) == []
    assert answer_headers(0, 0, is_by_gap=False) == [("step", b"0")]


def test_a_step_that_is_not_a_number_is_refused():
    headers = prediction_headers(SOURCE.to_bytes(), 17, b"m")
    with pytest.raises(DecodeError, match="step"):
        read_prediction_headers([*headers, ("step", b"-1")])


@pytest.mark.parametrize("missing", ["source", "timestep", "model"])
def test_a_prediction_without_one_of_its_headers_is_refused_by_name(missing):
    headers = [
        item for item in prediction_headers(SOURCE.to_bytes(), 0, b"m") if item[0] != missing
    ]
    with pytest.raises(DecodeError, match=missing):
        read_prediction_headers(headers)


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"x"])
def test_a_timestep_that_is_not_a_count_is_refused(value):
    headers = [("source", b"events/0/1"), ("timestep", value), ("model", b"m")]
    with pytest.raises(DecodeError, match="timestep"):
        read_prediction_headers(headers)


def test_a_dead_letter_keeps_the_headers_of_the_record():
    own = [("trace", b"1"), ("trace", b"2"), ("empty", None)]
    headers = dead_letter_headers(own, "not-json", "the value is not JSON", SOURCE)
    reason, detail, source, rest = read_dead_letter_headers(headers)
    assert (reason, detail, source) == ("not-json", "the value is not JSON", SOURCE)
    assert list(rest) == own


def test_a_dead_letter_of_a_prediction_distinguishes_both_sources():
    own = prediction_headers(Source("weather", 0, 5).to_bytes(), 2, b"m")
    headers = dead_letter_headers(own, "wrong-kind", "a string", SOURCE)
    _, _, source, rest = read_dead_letter_headers(headers)
    assert source == SOURCE
    assert list(rest) == own


def test_a_record_without_headers_can_become_a_dead_letter():
    headers = dead_letter_headers(None, "no-key", "it has no key", SOURCE)
    assert read_dead_letter_headers(headers)[3] == ()


@pytest.mark.parametrize("key", [b"flat-7", "Küche".encode(), b"\xff\x00\x80", b""])
def test_any_key_survives_the_round_trip_through_text(key):
    assert key_bytes(key_text(key)) == key


@pytest.mark.parametrize("name", ["timestep", "step"])
def test_a_number_with_too_many_digits_is_refused(name: str) -> None:
    headers = {"source": b"events/0/1", "timestep": b"7", "model": b"aa", name: b"9" * 5_000}
    with pytest.raises(DecodeError, match="not a decimal number"):
        read_prediction_headers(list(headers.items()))
