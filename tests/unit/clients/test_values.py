"""Values as the publisher encodes them and the readers decode them."""

import numpy as np
import orjson
import pytest

from livestep.pipeline.clients.event_encoding import encode_float32, encode_json, mark_headers
from livestep.pipeline.clients.readers import decode_float32, decode_json
from livestep.pipeline.errors import DecodeError


def test_plain_numbers_become_the_member_x_in_json():
    assert encode_json([1, 2.5]) == b'{"x":[1,2.5]}'
    assert encode_json(np.array([1.0, 2.5])) == b'{"x":[1.0,2.5]}'


def test_a_json_event_may_contain_numpy_arrays():
    event = {"x": np.array([1.0, 2.5], np.float32), "weather": "rainy"}
    assert orjson.loads(encode_json(event)) == {"x": [1.0, 2.5], "weather": "rainy"}


@pytest.mark.parametrize(
    "event",
    [
        {"a": 1.0, "b": float("nan")},
        {"x": [1.0, float("inf")]},
        {"x": np.array([1.0, np.nan], np.float32)},
        [float("-inf")],
    ],
)
def test_a_number_that_json_does_not_support_is_refused_and_not_sent_as_null(event):
    with pytest.raises(ValueError, match="which JSON does not support"):
        encode_json(event)


def test_a_json_event_may_contain_null():
    assert encode_json({"dish": None}) == b'{"dish":null}'


def test_a_vector_survives_the_round_trip_through_little_endian_float32():
    value = encode_float32([1.0, -2.0, 0.1])
    assert value == np.array([1.0, -2.0, 0.1], "<f4").tobytes()
    assert decode_float32(value) == pytest.approx((1.0, -2.0, 0.1))


@pytest.mark.parametrize("vector", [[float("nan")], [1e39], [float("inf")]])
def test_a_vector_with_a_number_beyond_float32_is_refused(vector):
    with pytest.raises(ValueError, match="beyond float32"):
        encode_float32(vector)


@pytest.mark.parametrize("event", [{"x": 1.0}, [[1.0], [2.0]], 1.0])
def test_codec_float32_refuses_anything_but_a_vector(event):
    with pytest.raises(TypeError):
        encode_float32(event)


def test_a_prediction_that_is_not_json_is_reported():
    with pytest.raises(DecodeError, match="is not JSON"):
        decode_json(b"{")


def test_bytes_that_are_not_a_whole_number_of_float32_values_are_reported():
    with pytest.raises(DecodeError, match="5 bytes"):
        decode_float32(b"12345")


def test_json_is_not_decoded_as_float32():
    with pytest.raises(DecodeError, match="is JSON, not float32"):
        decode_float32(b'{"y":12}')
    assert len(decode_float32(b'{"y}')) == 1


def test_numbers_for_the_feedback_to_fill_in_are_nan_and_no_others_may_be():
    assert np.isnan(np.frombuffer(encode_float32([1.0, None, None]), "<f4")).tolist() == [
        False,
        True,
        True,
    ]
    with pytest.raises(ValueError, match="NaN or beyond"):
        encode_float32([None, float("nan")])


def test_marks_are_headers_and_an_unset_mark_has_no_header():
    assert mark_headers() == []
    assert mark_headers(start=True) == [("sequence", b"start")]
    assert mark_headers(end=True, steps_max=1) == [("sequence", b"end"), ("steps-max", b"1")]
    for steps_max in (0, -1, True):
        with pytest.raises(ValueError, match="steps_max"):
            mark_headers(steps_max=steps_max)
