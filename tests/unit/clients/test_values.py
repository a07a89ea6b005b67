"""Values as publisher and readers write and read them."""

import numpy as np
import orjson
import pytest

from livestep.pipeline.clients.event_encoding import encode_float32, encode_json, mark_headers
from livestep.pipeline.clients.readers import decode_float32, decode_json
from livestep.pipeline.errors import DecodeError


def test_plain_numbers_become_the_member_x_in_json():
    assert encode_json([1, 2.5]) == b'{"x":[1,2.5]}'
    assert encode_json(np.array([1.0, 2.5])) == b'{"x":[1.0,2.5]}'


def test_arrays_of_numpy_may_stand_in_a_json_event():
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
def test_a_number_that_json_does_not_have_is_refused_and_not_sent_as_null(event):
    with pytest.raises(ValueError, match="JSON has no such number"):
        encode_json(event)


def test_null_may_stand_in_a_json_event():
    assert encode_json({"dish": None}) == b'{"dish":null}'


def test_a_vector_becomes_little_endian_float32_and_comes_back():
    value = encode_float32([1.0, -2.0, 0.1])
    assert value == np.array([1.0, -2.0, 0.1], "<f4").tobytes()
    assert decode_float32(value) == pytest.approx((1.0, -2.0, 0.1))


@pytest.mark.parametrize("vector", [[float("nan")], [1e39], [float("inf")]])
def test_a_vector_with_a_number_beyond_float32_is_refused(vector):
    with pytest.raises(ValueError, match="beyond float32"):
        encode_float32(vector)


@pytest.mark.parametrize("event", [{"x": 1.0}, [[1.0], [2.0]], 1.0])
def test_what_is_no_vector_is_refused_by_codec_float32(event):
    with pytest.raises(TypeError):
        encode_float32(event)


def test_a_prediction_that_is_no_json_is_named():
    with pytest.raises(DecodeError, match="no JSON"):
        decode_json(b"{")


def test_bytes_that_are_no_whole_number_of_float32_are_named():
    with pytest.raises(DecodeError, match="5 bytes"):
        decode_float32(b"12345")


def test_json_is_not_read_as_float32():
    with pytest.raises(DecodeError, match="is JSON, not float32"):
        decode_float32(b'{"y":12}')
    assert len(decode_float32(b'{"y}')) == 1


def test_numbers_left_to_the_feedback_are_nan_and_no_other_number_may_be():
    assert np.isnan(np.frombuffer(encode_float32([1.0, None, None]), "<f4")).tolist() == [
        False,
        True,
        True,
    ]
    with pytest.raises(ValueError, match="NaN or beyond"):
        encode_float32([None, float("nan")])


def test_marks_are_headers_and_a_mark_that_is_not_set_is_none():
    assert mark_headers() == []
    assert mark_headers(start=True) == [("sequence", b"start")]
    assert mark_headers(end=True, steps_max=1) == [("sequence", b"end"), ("steps-max", b"1")]
    for steps_max in (0, -1, True):
        with pytest.raises(ValueError, match="steps_max"):
            mark_headers(steps_max=steps_max)
