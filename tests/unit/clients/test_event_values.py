"""Values of published events: by a model's fields, and raw float32 without a model."""

import json

import click
import numpy as np
import orjson
import pytest

from livestep import (
    GRU,
    Category,
    EncoderDecoder,
    Feedback,
    Generation,
    ModelError,
    Number,
    SequenceRules,
    Text,
    save_model,
)
from livestep.models.disk.model_json import read_description
from livestep.pipeline.batch.codec import codec_for
from livestep.pipeline.errors import ConfigError, DecodeError
from livestep.pipeline.publishing.columns import BadRow, EventColumns
from livestep.pipeline.publishing.files import LineError
from livestep.pipeline.publishing.limits import TopicLimits
from livestep.pipeline.publishing.setup import find_target, open_source

INPUTS = [
    Number("load"),
    Number("x", 2, optional=True),
    Category("mode", ("eco", "turbo", "7"), optional=True),
    Text("word", "abc ", 4, optional=True),
]


@pytest.fixture
def model(tmp_path):
    """A directory of a model with all kinds of inputs."""
    width = sum(field.width for field in INPUTS)
    save_model(GRU(width, 2, 1), tmp_path / "model", INPUTS, [Number("y")])
    return str(tmp_path / "model")


def records_of(text, columns, model=None, codec=None, file_format=None):
    file_format = file_format or ("jsonl" if text.startswith("{") else "csv")
    blocks = [text.encode().splitlines(keepends=True)]
    source = open_source(blocks, "file", file_format, columns, model, codec)
    return [one for batch in source.batches(TopicLimits()) for one in batch]


KEY = EventColumns(("k",))


# ---- with a model


@pytest.mark.parametrize(
    ("cell", "number"), [(".5", 0.5), ("5.", 5.0), ("+5", 5), ("00012", 12), (" 1e3 ", 1000.0)]
)
def test_a_number_field_accepts_every_decimal_form(model, cell, number):
    (record,) = records_of(f"k,load\na,{cell}\n", KEY, model)
    assert orjson.loads(record.value) == {"load": number}
    (record,) = records_of(json.dumps({"k": "a", "load": cell}), KEY, model)
    assert orjson.loads(record.value) == {"load": number}


def test_the_fields_decide_what_a_cell_is_and_other_columns_are_left_out(model):
    (record,) = records_of('k,load,unknown,mode,word,x\na,1,2,7,abc ,"[1, 2.5]"\n', KEY, model)
    assert orjson.loads(record.value) == {
        "load": 1,
        "x": [1, 2.5],
        "mode": "7",
        "word": "abc ",
    }
    (record,) = records_of("k,load,mode\na,1, eco \n", KEY, model)
    assert orjson.loads(record.value) == {"load": 1, "mode": "eco"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("NA,eco,,", "'load' is 'NA', not a number"),
        ("nan,eco,,", "'load' is 'nan', not a number"),
        ("1 000,eco,,", "not a number"),
        ("1e999,eco,,", "is too large for a float"),
        ("1e39,eco,,", "a number that float32 can't hold"),
        (",eco,,", "feature 'load' is missing"),
        ("1,fast,,", "feature 'mode' has no category 'fast'"),
        ("1,07,,", "feature 'mode' has no category '07'"),
        ("1,,abd,", "feature 'word' has no character 'd'"),
        ("1,,abcab,", "feature 'word' has 5 characters"),
        ("1,,,1", "feature 'x' must be a list of 2 numbers"),
        ("1,,,one", "'x' is 'one', not a JSON list of 2 numbers"),
        ("1,,,[1]", "feature 'x' has 1 numbers"),
    ],
)
def test_a_cell_that_its_field_does_not_accept_is_a_bad_row(model, row, reason):
    good, bad = records_of(f"k,load,mode,word,x\na,1,,,\nb,{row}\n", KEY, model)
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.key) == (3, "b")
    assert reason in bad.reason


def test_missing_texts_are_not_values_for_the_fields(model):
    columns = EventColumns(("k",), missing=("NA",))
    good, bad = records_of("k,load,mode\na,1,NA\nb,NA,eco\n", columns, model)
    assert orjson.loads(good.value) == {"load": 1}
    assert bad.reason == "feature 'load' is missing"


def test_a_worker_accepts_what_is_published_for_its_model(model):
    """The checks are the worker's own, so nothing that passes them is a dead letter."""
    codec = codec_for(read_description(model))
    texts = ["1", ".5", "+5", "00012", "NA", "", "1e38", "1e39", "x"]
    rows = [
        f"{load},{mode},{word}"
        for load in texts
        for mode in ("eco", "7", "07", "", " eco ")
        for word in ("", "abc", "abd")
    ]
    text = "k,load,mode,word\n" + "".join(f"a,{row}\n" for row in rows)
    records = records_of(text, KEY, model)
    taken = [record for record in records if not isinstance(record, BadRow)]
    assert 0 < len(taken) < len(records)
    decoded = [codec.decode(record.value) for record in taken]
    assert np.isfinite(codec.to_arrays(decoded)[0]).all()
    # And refused events would be dead letters
    for row, record in zip(rows, records, strict=True):
        if isinstance(record, BadRow):
            load, mode, word = row.split(",")
            event = {"load": load, "mode": mode, "word": word}
            with pytest.raises(DecodeError):
                codec.decode(orjson.dumps(event))


def test_a_missing_input_is_reported_before_anything_is_sent(model):
    with pytest.raises(
        LineError, match="column 'load', an input of the model, is missing; the file has k, mode"
    ):
        records_of("k,mode\na,eco\n", KEY, model)
    with pytest.raises(click.UsageError, match="--columns lacks 'load'"):
        records_of("k,load,mode\n", EventColumns(("k",), values=("mode",)), model)


def test_columns_restrict_the_inputs_of_a_model(model):
    columns = EventColumns(("k",), values=("load",))
    (record,) = records_of("k,load,mode\na,1,fast\n", columns, model)
    assert orjson.loads(record.value) == {"load": 1}


def test_columns_that_are_not_inputs_are_reported(model):
    blocks = [[b"k,load,mode,time,start\n"]]
    source = open_source(blocks, "f", "csv", EventColumns(("k",), timestamp="time"), model, None)
    assert source.note == "not inputs of the model, left out: start"


def test_a_key_or_a_time_can_be_an_input_as_well(tmp_path):
    fields = [Category("k", ("a", "b")), Number("t")]
    save_model(GRU(3, 2, 1), tmp_path, fields, [Number("y")])
    columns = EventColumns(("k",), timestamp="t")
    (record,) = records_of("k,t\na,5\n", columns, str(tmp_path))
    assert (record.key, record.timestamp_ms) == (b"a", 5)
    assert orjson.loads(record.value) == {"k": "a", "t": 5}
    columns = EventColumns(("k",), forget="gone")
    (record,) = records_of("k,t,gone\na,,true\n", columns, str(tmp_path))
    assert record.value is None


def test_the_models_codec_and_the_order_of_its_inputs_are_used(tmp_path):
    fields = [Number("load"), Number("temp"), Category("mode", ("eco", "turbo"), optional=True)]
    rules = SequenceRules(feedback=(Feedback("mode", "mode"),))
    outputs = [Category("mode", ("eco", "turbo"))]
    save_model(GRU(4, 2, 2), tmp_path, fields, outputs, "float32", rules=rules)
    text = '{"k":"a","load":1,"temp":9,"mode":"eco"}\n{"k":"b","temp":9,"load":1}'
    records = records_of(text, KEY, str(tmp_path))
    values = [np.frombuffer(record.value, "<f4").tolist() for record in records]
    assert values[0] == [1, 9, 1, 0]
    assert values[1][:2] == [1, 9]
    assert np.isnan(values[1][2:]).all()  # for the feedback to fill in
    with pytest.raises(click.UsageError, match="--codec json, but the model's codec is float32"):
        records_of(text, KEY, str(tmp_path), "json")


def test_marks_are_checked_by_the_models_rules(tmp_path, model):
    rules = SequenceRules(
        "encode-decode", (Feedback("c", "c"),), Generation(5, stop_output="c", stop_value="z")
    )
    fields = [Category("letter", ("a", "b")), Category("c", ("y", "z"), optional=True)]
    net = EncoderDecoder(2, 2, 4, 2)
    save_model(net, tmp_path / "generates", fields, [Category("c", ("y", "z"))], rules=rules)
    columns = EventColumns(("k",), has_marks=True)
    text = "k,letter,load,steps_max\na,a,1,5\na,b,1,6\n"
    good, bad = records_of(text, columns, str(tmp_path / "generates"))
    assert good.headers == [("steps-max", b"5")]
    assert "'steps_max' is 6, but this model generates at most 5" in bad.reason
    assert "this model does not generate" in records_of(text, columns, model)[0].reason


def test_rows_with_marks_only_may_lack_required_inputs(model):
    columns = EventColumns(("k",), has_marks=True)
    for text in ("k,load,end\na,,true\n", '{"k":"a","load":null,"end":true}'):
        (record,) = records_of(text, columns, model)
        assert (record.value, record.headers) == (b"", [("sequence", b"end")])


def test_a_mark_without_the_option_is_refused_with_a_model_too(model):
    (row,) = records_of("k,load,end\na,1,true\n", KEY, model)
    assert "--marks" in row.reason
    (record,) = records_of("k,load,end\na,1,2024-05-01\n", KEY, model)
    assert orjson.loads(record.value) == {"load": 1}


def test_marks_with_the_name_of_an_input_are_wrong_usage(tmp_path):
    save_model(GRU(1, 2, 1), tmp_path, [Number("start")], [Number("y")], "float32")
    with pytest.raises(click.UsageError, match="has an input 'start'"):
        records_of("k,start\na,1\n", EventColumns(("k",), has_marks=True), str(tmp_path))
    (record,) = records_of("k,start\na,1\n", KEY, str(tmp_path))
    assert np.frombuffer(record.value, "<f4").tolist() == [1]


def test_a_directory_without_a_model_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match="no such directory"):
        records_of("k,load\n", KEY, str(tmp_path / "nothing"))


def test_an_option_that_the_exact_count_depends_on_cant_be_changed(monkeypatch):
    monkeypatch.setenv("LIVESTEP_KAFKA_TRANSACTIONAL_ID", "mine")
    with pytest.raises(ConfigError, match="transactional.id is set by Livestep"):
        find_target("127.0.0.1:1", "topic")


# ---- float32 without a model


def vectors_of(text, columns=KEY):
    return [
        record.reason if isinstance(record, BadRow) else np.frombuffer(record.value, "<f4").tolist()
        for record in records_of(text, columns, codec="float32")
    ]


def test_the_first_event_sets_the_order_of_the_numbers():
    text = '{"m":"a","load":1,"temp":9}\n{"m":"b","temp":9,"load":1}\n{"temp":[1,2],"m":"c"}'
    first, second, third = vectors_of(text, EventColumns(("m",)))
    assert first == second == [1, 9]
    assert third == "'load' is missing: --codec float32 needs every number, in the order load, temp"


def test_columns_set_the_order_of_the_numbers():
    columns = EventColumns(("k",), values=("b", "a"))
    assert vectors_of("k,a,b,c\nx,1,2,3\n", columns) == [[2, 1]]
    assert vectors_of('{"k":"x","a":1,"b":2,"c":3}', columns) == [[2, 1]]


def test_an_empty_cell_is_a_missing_number_and_the_others_keep_their_places():
    good, bad = vectors_of("k,a,b\nx,1,2\nx,,2\n")
    assert good == [1, 2]
    assert bad.startswith("'a' is missing")


def test_a_member_that_the_first_event_lacks_is_an_error():
    good, bad = vectors_of('{"k":"x","a":1}\n{"k":"x","a":1,"b":2}')
    assert good == [1]
    assert bad == "'b' is not among the numbers of the first event: a"


def test_lists_have_the_length_of_the_first_event():
    good, alike, bad, other = vectors_of(
        '{"k":"x","a":[1,2],"b":3}\n{"k":"x","b":3,"a":[1,2]}\n{"k":"x","a":[1],"b":3}\n'
        '{"k":"x","a":1,"b":3}'
    )
    assert good == alike == [1, 2, 3]
    assert bad == other == "'a' has more or fewer elements than in the first event"


def test_a_bad_first_event_sets_no_order():
    bad, good = vectors_of('{"k":"x","b":"rainy","a":1}\n{"k":"x","a":1,"b":2}')
    assert bad == "'b' is 'rainy', not a number"
    assert good == [1, 2]


@pytest.mark.parametrize("value", ["true", "{}", "[[1]]", '["1"]', "1e39"])
def test_what_is_not_a_number_is_refused(value):
    (bad,) = vectors_of(f'{{"k":"x","a":{value}}}')
    assert isinstance(bad, str)


def test_null_in_json_is_filled_in_by_the_feedback():
    (vector,) = vectors_of('{"k":"x","a":null,"b":2}')
    assert np.isnan(vector[0])
    assert vector[1] == 2


def test_numbers_may_have_leading_zeros_if_all_columns_are_numbers():
    assert vectors_of("k,a\nx,007\n") == [[7]]
