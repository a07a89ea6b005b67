"""The broker in memory has Kafka's rules; and a user's model runs with no services."""

import numpy as np
import orjson
import pytest
import torch

from livestep import GRU, MemoryBroker, Number, SequenceRules, encode, predict_in_memory
from livestep.pipeline.engine.log import AbortedError
from livestep.pipeline.errors import DecodeError, FencedError
from livestep.pipeline.memory.memory_broker import MemoryGroup
from tests.support.world import loaded, small_model


@pytest.fixture
def broker():
    return MemoryBroker({"out": 2})


def outgoing(value, partition=0):
    return [(b"k", value, partition, 0, [])]


def values(broker):
    return [record.value() for record in broker.records("out")]


def test_what_is_sent_is_read_after_the_commit_only(broker):
    producer = broker.producer("a")
    producer.send("out", outgoing(b"1"))
    assert values(broker) == []
    producer.end(is_committed=True)
    assert values(broker) == [b"1"]


def test_an_aborted_transaction_is_never_read_and_leaves_gaps_in_the_offsets(broker):
    producer = broker.producer("a")
    for value, is_committed in ((b"1", True), (b"2", False), (b"3", True)):
        producer.send("out", outgoing(value))
        producer.end(is_committed=is_committed)
    # Each transaction's marker has an offset, too.
    assert [(r.offset(), r.value()) for r in broker.records("out")] == [(0, b"1"), (4, b"3")]
    assert broker.bounds("out", 0) == (0, 6)
    assert broker.read("out", 0, 1) == ([broker.records("out")[1]], 6)


def test_an_open_transaction_holds_back_the_records_after_it(broker):
    first, second = broker.producer("a"), broker.producer("b")
    first.send("out", outgoing(b"open"))
    second.send("out", outgoing(b"done") + outgoing(b"elsewhere", 1))
    second.end(is_committed=True)
    assert values(broker) == [b"elsewhere"]
    first.end(is_committed=True)
    assert values(broker) == [b"open", b"done", b"elsewhere"]


def test_the_newer_producer_of_an_id_fences_the_older_and_aborts_what_it_has_open(broker):
    old = broker.producer("a")
    old.send("out", outgoing(b"old"))
    new = broker.producer("a")
    with pytest.raises(FencedError):
        old.end(is_committed=True)
    with pytest.raises(FencedError):
        old.send("out", outgoing(b"again"))
    new.send("out", outgoing(b"new"))
    new.end(is_committed=True)
    assert values(broker) == [b"new"]


def test_at_most_so_many_records_are_read(broker):
    for value in (b"1", b"2", b"3"):
        broker.publish("out", b"k", value, partition=0)
    records, position = broker.read("out", 0, 0, 2)
    assert ([record.value() for record in records], position) == ([b"1", b"2"], 2)


def test_a_key_always_goes_to_the_same_partition(broker):
    places = {broker.publish("out", b"key", b"1").partition for _ in range(5)}
    assert len(places) == 1


def test_a_member_that_missed_a_rebalance_commits_nothing():
    group = MemoryGroup()
    group.rebalance({"a": [0], "b": [1]})
    group.commit(1, {0: (5, "")})
    group.rebalance({"b": [0, 1]})
    with pytest.raises(AbortedError, match="generation 1"):
        group.commit(1, {0: (9, "")})
    assert group.offsets == {0: (5, "")}


@pytest.mark.parametrize("partitions", [1, 3])
@pytest.mark.parametrize("batch_events_max", [1, 7, 1_000])
def test_a_users_model_predicts_in_memory_as_it_does_offline(partitions, batch_events_max):
    # Given events of three keys, in turn
    model = small_model()
    events = [("abc"[i % 3], {"x": [i / 10, -i / 7]}) for i in range(40)]
    # When the real engine predicts them
    found = predict_in_memory(
        model, events, partitions=partitions, batch_events_max=batch_events_max
    )
    # Then they come in the order of the events, and are what the unroll of each key says
    assert [prediction.key for prediction in found] == [key for key, _ in events]
    for key in "abc":
        own = [prediction for prediction in found if prediction.key == key]
        offline = model.unroll_events([event for other, event in events if other == key])
        assert [prediction.timestep for prediction in own] == list(range(len(own)))
        assert (
            np.float32([p.value["y"] for p in own]).tolist()
            == np.float32([o["y"] for o in offline]).tolist()
        )


def test_events_may_be_bytes_and_raw_float32():
    torch.manual_seed(0)
    model = loaded(GRU(2, 4, 3), codec="float32")
    row = encode([Number("x", 2)], [{"x": [1, 2]}])
    as_bytes, as_mapping = predict_in_memory(
        model, [(b"a", row.astype("<f4").tobytes()), ("b", {"x": np.array([1, 2])})]
    )
    assert as_bytes.value == as_mapping.value
    assert np.array_equal(np.float32(as_bytes.value), model.unroll_rows(row)[0])
    assert as_bytes.model == model.fingerprint


@pytest.mark.parametrize("codec", ["json", "float32"])
def test_marks_among_the_members_are_answered_as_offline_in_either_codec(codec):
    # Given sequences that end with an event, with a bare mark, and with nulls next to the mark
    fields = (Number("x", 2, optional=True),)
    model = small_model(codec=codec, inputs=fields, rules=SequenceRules("many-to-one"))
    events = [
        {"x": [1, 2]},
        {"x": [0.5, -1], "end": True},
        {"x": [3, 1], "start": True},
        {"x": None, "end": True},
        {"x": [0.1, 0.2]},
        {"end": True},
    ]
    # When the engine answers them
    found = predict_in_memory(model, [("k", event) for event in events])
    # Then each mark means what it means offline: nulls are not stepped
    expected = model.answer_events(events, "k")
    assert [(p.source.offset, p.timestep) for p in found] == [(1, 1), (3, 0), (5, 0)]
    assert [(a["event"], a["timestep"]) for a in expected] == [(1, 1), (3, 0), (5, 0)]
    values = [p.value["y"] if codec == "json" else p.value[0] for p in found]
    assert np.array_equal(np.float32(values), np.float32([a["value"]["y"] for a in expected]))


def test_no_events_make_no_predictions():
    assert predict_in_memory(small_model(), []) == []


@pytest.mark.parametrize("codec", ["json", "float32"])
def test_an_event_that_a_worker_would_put_aside_is_an_error_that_names_it(codec):
    model = small_model(codec=codec)
    good = {"x": [1, 2]}
    with pytest.raises(DecodeError, match="event 1: ") as caught:
        predict_in_memory(model, [("a", good), ("b", b"12345"), ("a", good), ("c", b"12")])
    assert caught.value.reason == ("not-an-object" if codec == "json" else "not-float32")
    with pytest.raises(DecodeError, match="wrong-length"):
        predict_in_memory(model, [("a", {"x": [1]})])
    assert orjson.loads(b"12345") == 12345
