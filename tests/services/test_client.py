"""Publisher, readers and topics on a real broker."""

import threading
import time

import confluent_kafka
import pytest
from kafka import KafkaConsumer, TopicPartition

from livestep.deploy.local.ports import ReservedPort
from livestep.pipeline.clients.readers import DeadLetterReader, EventPublisher, PredictionReader
from livestep.pipeline.errors import BrokerError, ConfigError, DecodeError, MissingTopicError
from livestep.pipeline.kafka.topic_setup import create_topics, describe_topics, end_offsets, lag
from livestep.pipeline.records import Source, dead_letter_headers
from tests.support.prediction_headers import prediction_headers

MODEL = b"0123456789abcdef"

#: Generous: what is waited for comes at once.
WAIT_S = 30.0


@pytest.fixture
def producer(bootstrap_servers):
    """A transactional producer of the other client library, as in the worker."""
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": bootstrap_servers, "transactional.id": "test-client"}
    )
    producer.init_transactions()
    return producer


@pytest.fixture
def topic(create_topic, topic_names):
    # Kafka deletes by the records' own time, and those of these tests are from 1970.
    return create_topic(topic_names("predictions"), 3, retention_ms="-1")


@pytest.fixture
def closed_port():
    """A port where nothing listens."""
    port = ReservedPort()
    yield port.number
    port.release()


def send(producer, topic, numbers, *, partition=None, commit=True, key=b"k"):
    """Send predictions in one transaction; timestep, value and source offset are the number."""
    producer.begin_transaction()
    for number in numbers:
        producer.produce(
            topic,
            b'{"y":%d}' % number,
            key=key,
            partition=number % 3 if partition is None else partition,
            timestamp=1_000 + number,
            headers=prediction_headers(Source("events", 0, number).to_bytes(), number, MODEL),
        )
    producer.flush()
    if commit:
        producer.commit_transaction()
    else:
        producer.abort_transaction()


def numbers(predictions):
    return sorted(prediction.value["y"] for prediction in predictions)


# ---- EventPublisher


def read_all(bootstrap_servers, topic, count):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False)
    partitions = [
        TopicPartition(topic, index) for index in sorted(consumer.partitions_for_topic(topic))
    ]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    records = []
    deadline = time.monotonic() + WAIT_S
    while len(records) < count and time.monotonic() < deadline:
        for polled in consumer.poll(timeout_ms=500).values():
            records.extend(polled)
    consumer.close()
    return records


def test_events_arrive_with_key_value_and_time(bootstrap_servers, topic):
    with EventPublisher(bootstrap_servers, topic) as publisher:
        publisher.publish("Küche", {"weather": "rainy"}, timestamp_ms=1_234)
        publisher.publish(b"\xff", [1, 2.5])
    first, second = sorted(
        read_all(bootstrap_servers, topic, 2), key=lambda record: record.timestamp
    )
    assert (first.key, first.value, first.timestamp) == (
        "Küche".encode(),
        b'{"weather":"rainy"}',
        1_234,
    )
    assert (second.key, second.value) == (b"\xff", b'{"x":[1,2.5]}')
    assert abs(second.timestamp - time.time() * 1000) < 60_000


def test_float32_events_are_raw_numbers(bootstrap_servers, topic):
    with EventPublisher(bootstrap_servers, topic, codec="float32") as publisher:
        publisher.publish("k", [1.0, -2.0])
    (record,) = read_all(bootstrap_servers, topic, 1)
    assert record.value.hex() == "0000803f000000c0"


def test_keys_go_to_the_partitions_that_java_clients_choose(bootstrap_servers, topic):
    keys = [b"key-%d" % number for number in range(200)]
    with EventPublisher(bootstrap_servers, topic) as publisher:
        for key in keys:
            publisher.publish(key, {})
    other = confluent_kafka.Producer(
        {"bootstrap.servers": bootstrap_servers, "partitioner": "murmur2_random"}
    )
    for key in keys:
        other.produce(topic, b"other", key=key)
    other.flush()
    partitions = {}
    for record in read_all(bootstrap_servers, topic, 400):
        partitions.setdefault(record.key, set()).add(record.partition)
    assert len(partitions) == 200
    assert all(len(where) == 1 for where in partitions.values())


def test_more_events_than_may_be_pending_all_arrive_in_order(bootstrap_servers, topic, monkeypatch):
    monkeypatch.setattr("livestep.pipeline.clients.publisher.PENDING_EVENTS_MAX", 50)
    with EventPublisher(bootstrap_servers, topic) as publisher:
        for number in range(2_000):
            publisher.publish(f"k{number % 7}", {"n": number})
            assert publisher.pending_count <= 50
    records = read_all(bootstrap_servers, topic, 2_000)
    for key in range(7):
        values = [record.value for record in records if record.key == b"k%d" % key]
        assert values == [b'{"n":%d}' % number for number in range(key, 2_000, 7)]


def test_a_refused_value_raises_an_error_with_topic_and_key(
    bootstrap_servers, create_topic, topic_names
):
    small = create_topic(topic_names(), 1, max_message_bytes="1000")
    with pytest.raises(BrokerError, match=rf"key 'flat-7'.* topic '{small}'"):
        with EventPublisher(bootstrap_servers, small) as publisher:
            publisher.publish("flat-7", {"text": "x" * 5_000})


@pytest.mark.parametrize("refused", [["b"], ["b", "c"]])
def test_the_refused_record_of_a_batch_is_reported(
    bootstrap_servers, create_topic, topic_names, refused
):
    topic = create_topic(topic_names(), 1, retention_ms="-1")
    with pytest.raises(BrokerError, match="an event of key 'b' was not delivered"):
        # One batch: nothing is sent before the end.
        with EventPublisher(bootstrap_servers, topic, linger_ms=5_000) as publisher:
            for key in "abcd":
                is_refused = key in refused
                time_ms = 1_700_000_000_000 * (1_000 if is_refused else 1)
                publisher.publish(key, {}, timestamp_ms=time_ms)
    assert end_offsets(bootstrap_servers, topic) == {0: 0}


def test_after_a_failed_delivery_every_call_raises_the_same_error(
    bootstrap_servers, create_topic, topic_names
):
    small = create_topic(topic_names(), 1, max_message_bytes="1000")
    with EventPublisher(bootstrap_servers, small) as publisher:
        publisher.publish("big", {"text": "x" * 5_000})
        with pytest.raises(BrokerError, match="'big'"):
            publisher.flush()
        with pytest.raises(BrokerError, match="'big'"):
            publisher.publish("little", {"text": "x"})
    assert end_offsets(bootstrap_servers, small) == {0: 0}


def test_an_error_in_the_block_is_not_hidden_by_one_from_closing(
    bootstrap_servers, create_topic, topic_names
):
    small = create_topic(topic_names(), 1, max_message_bytes="1000")
    with pytest.raises(ZeroDivisionError), EventPublisher(bootstrap_servers, small) as publisher:
        publisher.publish("big", {"text": "x" * 5_000})
        raise ZeroDivisionError


@pytest.mark.parametrize("client", [EventPublisher, PredictionReader, DeadLetterReader])
def test_a_missing_topic_is_one_clear_error_and_is_not_created(
    bootstrap_servers, topic_names, client
):
    missing = topic_names("missing")
    with pytest.raises(
        MissingTopicError, match=f"topic '{missing}.*' does not exist .*livestep topics create"
    ):
        client(bootstrap_servers, missing)
    assert not [name for name in describe_topics(bootstrap_servers) if name.startswith(missing)]


@pytest.mark.parametrize("client", [EventPublisher, PredictionReader, DeadLetterReader])
def test_an_unreachable_broker_is_one_clear_error_within_the_time_limit(client, closed_port):
    started_s = time.monotonic()
    with pytest.raises(BrokerError, match=f"127.0.0.1:{closed_port}.*--bootstrap-servers"):
        client(f"127.0.0.1:{closed_port}", "events", timeout_s=0.5)
    assert time.monotonic() - started_s < 10
    assert not [thread.name for thread in threading.enumerate() if "kafka-io" in thread.name]


@pytest.mark.parametrize("client", [EventPublisher, PredictionReader])
def test_an_unknown_client_option_is_a_config_error(bootstrap_servers, topic, client):
    with pytest.raises(ConfigError, match="no_such_option"):
        client(bootstrap_servers, topic, no_such_option=1)


# ---- PredictionReader


def test_a_prediction_has_everything_that_its_record_has(bootstrap_servers, topic, producer):
    with PredictionReader(bootstrap_servers, topic) as reader:
        send(producer, topic, [17], partition=2)
        (prediction,) = reader.read(WAIT_S, 1)
    assert prediction.key == "k"
    assert prediction.value == {"y": 17}
    assert prediction.timestep == 17
    assert prediction.timestamp_ms == 1_017
    assert prediction.source == Source("events", 0, 17)
    assert prediction.model == "0123456789abcdef"
    assert (prediction.partition, prediction.offset) == (2, 0)


def test_a_reader_sees_all_later_records_of_every_partition_and_nothing_older(
    bootstrap_servers, topic, producer
):
    send(producer, topic, range(6))
    with PredictionReader(bootstrap_servers, topic) as reader:
        send(producer, topic, range(6, 12))
        assert numbers(reader.read(WAIT_S, 6)) == list(range(6, 12))
        assert reader.read(0.0) == []


def test_from_beginning_sees_everything(bootstrap_servers, topic, producer):
    send(producer, topic, range(6))
    with PredictionReader(bootstrap_servers, topic, from_beginning=True) as reader:
        assert numbers(reader.read(WAIT_S, 6)) == list(range(6))


def test_an_aborted_transaction_is_never_seen(bootstrap_servers, topic, producer):
    with PredictionReader(bootstrap_servers, topic, from_beginning=True) as reader:
        send(producer, topic, [0, 1, 2])
        send(producer, topic, [3, 4, 5], commit=False)
        send(producer, topic, [6, 7, 8])
        assert numbers(reader.read(WAIT_S, 6)) == [0, 1, 2, 6, 7, 8]
        assert reader.read(0.0) == []


def test_the_records_of_an_open_transaction_are_seen_once_it_commits(
    bootstrap_servers, topic, producer
):
    producer.begin_transaction()
    headers = prediction_headers(Source("events", 0, 1).to_bytes(), 1, MODEL)
    producer.produce(topic, b'{"y":1}', key=b"k", partition=0, headers=headers)
    producer.flush()
    with PredictionReader(bootstrap_servers, topic) as reader:
        assert reader.read(0.0) == []
        producer.commit_transaction()
        assert numbers(reader.read(WAIT_S, 1)) == [1]


def test_only_the_wanted_keys_are_returned(bootstrap_servers, topic, producer):
    for key in (b"a", b"b", b"c"):
        send(producer, topic, range(3), key=key)
    options = {"from_beginning": True, "keys": ["a", b"c"]}
    with PredictionReader(bootstrap_servers, topic, **options) as reader:
        keys = [prediction.key for prediction in reader.read(WAIT_S, 6)]
    assert sorted(keys) == ["a", "a", "a", "c", "c", "c"]


def test_iteration_ends_if_nothing_arrives_in_time(bootstrap_servers, topic, producer):
    send(producer, topic, range(6))
    with PredictionReader(bootstrap_servers, topic, from_beginning=True) as reader:
        assert numbers(reader.iterate(idle_timeout_s=5)) == list(range(6))


def test_iteration_continues_where_it_stopped(bootstrap_servers, topic, producer):
    send(producer, topic, range(10), partition=1)
    with PredictionReader(bootstrap_servers, topic, from_beginning=True) as reader:
        for prediction in reader:
            if prediction.timestep == 3:
                break
        assert next(iter(reader)).timestep == 4
        assert [prediction.timestep for prediction in reader.read(WAIT_S, 5)] == [5, 6, 7, 8, 9]


def test_a_group_continues_after_the_records_that_it_has_read(
    bootstrap_servers, topic, topic_names, producer
):
    group = topic_names("group")
    send(producer, topic, range(10), partition=1)
    options = {"from_beginning": True, "group": group}
    with PredictionReader(bootstrap_servers, topic, **options) as reader:
        assert numbers(reader.read(WAIT_S, 4)) == [0, 1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        with PredictionReader(bootstrap_servers, topic, **options) as reader:
            assert numbers(reader.read(WAIT_S, 3)) == [4, 5, 6]
            raise ZeroDivisionError
    with PredictionReader(bootstrap_servers, topic, **options) as reader:
        assert numbers(reader.read(WAIT_S, 6)) == [4, 5, 6, 7, 8, 9]


def test_float32_predictions_are_tuples(bootstrap_servers, topic, producer):
    with PredictionReader(bootstrap_servers, topic, codec="float32") as reader:
        producer.begin_transaction()
        headers = prediction_headers(Source("events", 0, 1).to_bytes(), 1, MODEL)
        value = bytes.fromhex("0000803f000000c0")
        producer.produce(topic, value, key=b"k", partition=0, headers=headers)
        producer.commit_transaction()
        (prediction,) = reader.read(WAIT_S, 1)
    assert prediction.value == (1.0, -2.0)


def test_a_foreign_record_is_reported_and_the_reader_can_continue(
    bootstrap_servers, topic, producer
):
    with PredictionReader(bootstrap_servers, topic, from_beginning=True) as reader:
        producer.begin_transaction()
        producer.produce(topic, b"hello", key=b"k", partition=0)
        producer.commit_transaction()
        send(producer, topic, [1], partition=0)
        with pytest.raises(DecodeError, match=f"{topic}/0/0: header 'source' is missing"):
            reader.read(WAIT_S, 1)
        assert numbers(reader.read(WAIT_S, 1)) == [1]


# ---- DeadLetterReader


def test_dead_letters_have_the_reason_and_the_original_record(
    bootstrap_servers, create_topic, topic_names, producer
):
    events = topic_names("events")
    create_topic(f"{events}.dead-letter", 2, retention_ms="-1")
    source = Source(events, 1, 5)
    with DeadLetterReader(bootstrap_servers, events) as reader:
        producer.begin_transaction()
        headers = dead_letter_headers(
            [("trace", b"7")], "not-json", "the value is not JSON", source
        )
        producer.produce(f"{events}.dead-letter", b"\xff{", timestamp=77, headers=headers)
        producer.commit_transaction()
        (letter,) = reader.read(WAIT_S, 1)
    assert (letter.key, letter.value, letter.timestamp_ms) == (None, b"\xff{", 77)
    assert (letter.reason, letter.detail) == ("not-json", "the value is not JSON")
    assert letter.source == source
    assert letter.headers == (("trace", b"7"),)


# ---- topics


def test_topics_are_created_once_and_existing_ones_are_reported(bootstrap_servers, topic_names):
    name, bad = topic_names(), "no/name"
    first, second = create_topics(bootstrap_servers, [name, bad], 3)
    assert (first.is_new, first.problem) == (True, None)
    assert "invalid" in second.problem
    (again,) = create_topics(bootstrap_servers, [name], 3)
    assert (again.is_new, again.problem) == (False, None)
    (other,) = create_topics(bootstrap_servers, [name], 5)
    assert "exists with 3 partitions, not 5" in other.problem
    assert describe_topics(bootstrap_servers, [name])[name].partition_count == 3


def test_ends_and_lag_count_offsets(bootstrap_servers, topic, topic_names, producer):
    send(producer, topic, range(3), partition=1)
    assert end_offsets(bootstrap_servers, topic) == {0: 0, 1: 4, 2: 0}
    group = topic_names("group")
    assert lag(bootstrap_servers, group, topic) == {0: 0, 1: 4, 2: 0}
    with PredictionReader(bootstrap_servers, topic, group=group, from_beginning=True) as reader:
        reader.read(WAIT_S, 2)
    assert lag(bootstrap_servers, group, topic) == {0: 0, 1: 2, 2: 0}


def test_an_open_transaction_holds_back_the_committed_end(bootstrap_servers, topic, producer):
    producer.begin_transaction()
    producer.produce(topic, b"x", key=b"k", partition=0)
    producer.flush()
    assert end_offsets(bootstrap_servers, topic)[0] == 0
    assert end_offsets(bootstrap_servers, topic, is_committed=False)[0] == 1
    producer.abort_transaction()
