"""`livestep publish`, `predictions`, `dead-letters` and `topics` on a real broker."""

import json
import os
import signal
import subprocess
import sys

import confluent_kafka
import pytest
from click.testing import CliRunner
from kafka import KafkaConsumer, TopicPartition

from livestep import GRU, save_model
from livestep.pipeline.commands.predictions import dead_letters, predictions
from livestep.pipeline.commands.publish import publish
from livestep.pipeline.commands.topics import topics
from livestep.pipeline.errors import ConfigError, EngineError
from livestep.pipeline.kafka.topic_setup import describe_topics
from livestep.pipeline.records import Source, dead_letter_headers
from tests.support.prediction_headers import prediction_headers

WAIT_S = 30.0


@pytest.fixture
def invoke(bootstrap_servers):
    """Run a command in this process; our own errors are raised."""

    def run(command, *arguments, input=None):
        environment = {"LIVESTEP_BOOTSTRAP_SERVERS": bootstrap_servers}
        result = CliRunner().invoke(command, arguments, input=input, env=environment)
        if isinstance(result.exception, EngineError):
            result.exception.result = result
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return run


@pytest.fixture
def topic(create_topic, topic_names):
    # Kafka deletes by the records' own time, and those of these tests are from 1970.
    return create_topic(topic_names(), 2, retention_ms="-1")


def published(bootstrap_servers, topic, count):
    """Read events as (key, value, time), in the order of time."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False)
    partitions = [TopicPartition(topic, index) for index in range(2)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    records = []
    while len(records) < count:
        polled = consumer.poll(timeout_ms=WAIT_S * 1000)
        assert polled, f"only {len(records)} of {count} events came"
        for some in polled.values():
            records.extend(some)
    consumer.close()
    return [
        (record.key, json.loads(record.value), record.timestamp)
        for record in sorted(records, key=lambda record: record.timestamp)
    ]


# ---- publish


def test_a_csv_file_is_published(invoke, bootstrap_servers, topic, tmp_path):
    file = tmp_path / "days.csv"
    file.write_text("flat,when,weather,degrees\na,1000,rainy,7.5\nb,2000,sunny,\n")
    result = invoke(publish, str(file), "--topic", topic, "--key", "flat", "--timestamp", "when")
    assert published(bootstrap_servers, topic, 2) == [
        (b"a", {"weather": "rainy", "degrees": 7.5}, 1_000),
        (b"b", {"weather": "sunny"}, 2_000),
    ]
    assert result.stdout == ""
    assert f"published 2 events to topic '{topic}'" in result.stderr


def test_json_lines_are_published_from_standard_input(invoke, bootstrap_servers, topic):
    lines = '{"flat":7,"x":[1,2],"t":5}\n{"flat":8,"x":[3,4],"t":6}\n'
    arguments = ["-", "--format", "jsonl", "--topic", topic, "--key", "flat", "--timestamp", "t"]
    invoke(publish, *arguments, input=lines)
    assert published(bootstrap_servers, topic, 2) == [
        (b"7", {"x": [1, 2]}, 5),
        (b"8", {"x": [3, 4]}, 6),
    ]


def test_a_bad_line_is_reported_and_the_lines_before_it_are_sent(
    invoke, bootstrap_servers, topic, tmp_path
):
    file = tmp_path / "days.csv"
    file.write_text("flat,a\nk,1\nk,2\nk\nk,4\n")
    with pytest.raises(EngineError, match=r"days.csv, line 4: 1 cells") as caught:
        invoke(publish, str(file), "--topic", topic, "--key", "flat")
    assert "published 2 events" in caught.value.result.stderr
    assert [value for _, value, _ in published(bootstrap_servers, topic, 2)] == [
        {"a": 1},
        {"a": 2},
    ]


def test_an_invalid_vector_is_reported_with_its_line(invoke, topic, tmp_path):
    file = tmp_path / "days.csv"
    file.write_text("flat,a,b\nk,1,2\nk,1,rainy\n")
    options = ["--topic", topic, "--key", "flat", "--codec", "float32"]
    with pytest.raises(EngineError, match=r"line 3 \(key 'k'\): 'b' is 'rainy', not a number"):
        invoke(publish, str(file), *options)


def test_a_rate_is_kept(invoke, topic, tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr("livestep.pipeline.publishing.interrupts.time.sleep", slept.append)
    file = tmp_path / "days.csv"
    file.write_text("flat,a\n" + "k,1\n" * 4)
    invoke(publish, str(file), "--topic", topic, "--key", "flat", "--rate", "0.01")
    # Sleeping was skipped, so each event waits for all of the events before it.
    assert slept == pytest.approx([100.0, 200.0, 300.0], abs=WAIT_S)


def test_publishing_to_a_missing_topic_is_a_config_error(invoke, topic_names, tmp_path):
    file = tmp_path / "days.csv"
    file.write_text("flat,a\n")
    with pytest.raises(ConfigError, match="livestep topics create"):
        invoke(publish, str(file), "--topic", topic_names("missing"), "--key", "flat")


# ---- predictions and dead-letters


def put(bootstrap_servers, topic, count, key="k"):
    """Write predictions."""
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap_servers})
    for number in range(count):
        headers = prediction_headers(Source("events", 0, number).to_bytes(), number, b"abc")
        producer.produce(
            topic, b'{"y":%d}' % number, key=key, partition=0, timestamp=9, headers=headers
        )
    assert producer.flush(WAIT_S) == 0


def test_predictions_are_one_json_line_each(invoke, bootstrap_servers, topic):
    put(bootstrap_servers, topic, 3)
    result = invoke(predictions, "--topic", topic, "--from-beginning", "--max", "2")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {
            "key": "k",
            "timestep": number,
            "value": {"y": number},
            "timestamp_ms": 9,
            "source": f"events/0/{number}",
            "model": "abc",
            "partition": 0,
            "offset": number,
        }
        for number in range(2)
    ]


def test_predictions_of_some_keys_are_followed_until_nothing_arrives(
    invoke, bootstrap_servers, topic
):
    for key in ("a", "b", b"\xff"):
        put(bootstrap_servers, topic, 2, key)
    options = ["--key", "a", "--from-beginning", "--idle-timeout", "5"]
    result = invoke(predictions, "--topic", topic, *options)
    assert [json.loads(line)["key"] for line in result.stdout.splitlines()] == ["a", "a"]
    result = invoke(predictions, "--topic", topic, *options[2:])
    assert json.loads(result.stdout.splitlines()[-1])["key"] == "\\xff"


def test_dead_letters_are_one_json_line_each(invoke, bootstrap_servers, topic, create_topic):
    create_topic(f"{topic}.dead-letter", 1, retention_ms="-1")
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap_servers})
    headers = dead_letter_headers([("trace", b"\xff")], "not-json", "not JSON", Source(topic, 0, 3))
    producer.produce(f"{topic}.dead-letter", b"{\xff", timestamp=9, headers=headers)
    assert producer.flush(WAIT_S) == 0
    result = invoke(dead_letters, "--topic", topic, "--from-beginning", "--max", "1")
    assert json.loads(result.stdout) == {
        "key": None,
        "reason": "not-json",
        "detail": "not JSON",
        "value": "{\\xff",
        "headers": {"trace": "\\xff"},
        "timestamp_ms": 9,
        "source": f"{topic}/0/3",
        "partition": 0,
        "offset": 0,
    }


@pytest.fixture
def follower(bootstrap_servers, topic):
    """`livestep predictions` as its own process, which has printed one line."""
    put(bootstrap_servers, topic, 1)
    program = "from livestep.pipeline.cli import main; main()"
    command = [sys.executable, "-c", program, "predictions", "--topic", topic, "--from-beginning"]
    command += ["--bootstrap-servers", bootstrap_servers]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert '"timestep":0' in process.stdout.readline()
        yield process
        process.kill()


def test_ctrl_c_ends_following_quietly(follower):
    follower.send_signal(signal.SIGINT)
    assert follower.wait(WAIT_S) == 130
    assert follower.stderr.read().strip() == ""


def test_a_closed_pipe_ends_following_quietly(follower, bootstrap_servers, topic):
    follower.stdout.close()
    put(bootstrap_servers, topic, 5)
    assert follower.wait(WAIT_S) == 141
    assert follower.stderr.read() == ""


def run_livestep(bootstrap_servers, redirection, *arguments):
    """Run the command line in a shell with redirected output."""
    command = f'"$0" -m livestep.pipeline.cli "$@" {redirection}\nexit ${{PIPESTATUS[0]}}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, *arguments],
        env={**os.environ, "LIVESTEP_BOOTSTRAP_SERVERS": bootstrap_servers},
        capture_output=True,
        text=True,
        timeout=WAIT_S * 2,
    )


@pytest.mark.parametrize(
    ("redirection", "why"),
    [(">/dev/full", "No space left on device"), (">&-", "it is closed")],
)
def test_predictions_that_cant_be_written_are_one_line_and_exit_code_11(
    bootstrap_servers, topic, redirection, why
):
    put(bootstrap_servers, topic, 3)
    for command in (["predictions", "--topic", topic, "--from-beginning"], ["topics", "list"]):
        done = run_livestep(bootstrap_servers, redirection, *command)
        assert done.returncode == 11, done.stderr
        assert done.stderr == f"error: standard output can't be written: {why}\n"


def test_the_first_lines_of_predictions_can_be_taken(bootstrap_servers, topic):
    put(bootstrap_servers, topic, 20_000)
    options = ["--topic", topic, "--from-beginning", "--max", "20000"]
    done = run_livestep(bootstrap_servers, "| head -n 1", "predictions", *options)
    assert (done.returncode, done.stderr) == (141, "")
    assert json.loads(done.stdout)["timestep"] == 0


@pytest.mark.parametrize(
    ("value", "codec", "hint"),
    [(b'{"y":12}', "float32", "--codec json"), (b"\0\0\x80?", "json", "--codec float32")],
)
def test_predictions_of_the_other_codec_are_a_config_error_with_a_hint(
    invoke, bootstrap_servers, topic, value, codec, hint
):
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap_servers})
    headers = prediction_headers(Source("events", 0, 0).to_bytes(), 0, b"abc")
    producer.produce(topic, value, key="k", timestamp=9, headers=headers)
    assert producer.flush(WAIT_S) == 0
    with pytest.raises(ConfigError, match=hint):
        invoke(predictions, "--topic", topic, "--from-beginning", "--codec", codec)


def test_a_topic_without_predictions_or_dead_letters_is_a_config_error(
    invoke, bootstrap_servers, topic, create_topic
):
    create_topic(f"{topic}.dead-letter", 1, retention_ms="-1")
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap_servers})
    for name in (topic, f"{topic}.dead-letter"):
        producer.produce(name, b'{"x":1}', key="k", timestamp=9)
    assert producer.flush(WAIT_S) == 0
    with pytest.raises(ConfigError, match=f"'{topic}' has a record that is not a worker's pred"):
        invoke(predictions, "--topic", topic, "--from-beginning")
    with pytest.raises(ConfigError, match="has a record that is not a worker's dead letter"):
        invoke(dead_letters, "--topic", topic, "--from-beginning")


def test_for_the_name_of_a_dead_letter_topic_the_error_has_the_input_topic(invoke, topic):
    with pytest.raises(ConfigError, match=f"the name of the input topic, '{topic}'$"):
        invoke(dead_letters, "--topic", f"{topic}.dead-letter")


def test_following_a_missing_topic_is_a_config_error(invoke, topic_names):
    for command in (predictions, dead_letters):
        with pytest.raises(ConfigError, match="livestep topics create"):
            invoke(command, "--topic", topic_names("missing"))


def test_publishing_needs_no_standard_output(bootstrap_servers, topic, tmp_path):
    file = tmp_path / "days.csv"
    file.write_text("flat,a\nk,1\n")
    for redirection in (">&-", ">/dev/full", "2>&-", "2>/dev/full"):
        options = ["--topic", topic, "--key", "flat"]
        done = run_livestep(bootstrap_servers, redirection, "publish", str(file), *options)
        assert done.returncode == 0, done.stderr
    assert len(published(bootstrap_servers, topic, 4)) == 4


def test_a_client_that_is_connected_to_a_broker_loads_no_torch(bootstrap_servers, topic, tmp_path):
    put(bootstrap_servers, topic, 1)
    file = tmp_path / "days.jsonl"
    file.write_text('{"k": "a", "x": 1}\n')
    save_model(GRU(1, 2, 1), tmp_path / "model")
    publish_options = ["publish", str(file), "--topic", topic, "--key", "k"]
    for command, unwanted in (
        (["topics", "list"], {"torch", "faust", "confluent_kafka"}),
        (publish_options, {"torch", "faust", "kafka"}),
        ([*publish_options, "--model", str(tmp_path / "model")], {"torch", "faust", "kafka"}),
        (
            ["predictions", "--topic", topic, "--from-beginning", "--max", "1"],
            {"torch", "faust", "confluent_kafka"},
        ),
    ):
        code = (
            "import sys\nfrom livestep.pipeline.cli import cli\n"
            f"cli({command!r}, standalone_mode=False)\n"
            f"assert not {unwanted!r} & set(sys.modules)\nprint('looked')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "LIVESTEP_BOOTSTRAP_SERVERS": bootstrap_servers},
            capture_output=True,
            text=True,
            timeout=WAIT_S * 2,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("looked\n")


# ---- topics


def test_topics_are_created_with_their_dead_letter_topics(invoke, bootstrap_servers, topic_names):
    name = topic_names()
    options = ["--partitions", "3", "--with-dead-letter", "--config", "retention.ms=-1"]
    result = invoke(topics, "create", name, *options)
    assert result.stdout == (
        f"created  {name}  partitions 3\ncreated  {name}.dead-letter  partitions 3\n"
    )
    assert invoke(topics, "create", name, "--partitions", "3").stdout.startswith("exists")
    assert invoke(topics, "create", name, *options).stdout.count("exists  ") == 2
    listed = invoke(topics, "list").stdout
    assert f"{name}.dead-letter  partitions 3  replication-factor 1\n" in listed


def test_a_topic_that_exists_with_another_setting_is_an_error(
    invoke, bootstrap_servers, create_topic, topic_names
):
    # Given a topic that deletes old events, and a user who wants one that keeps them
    name = create_topic(topic_names(), 3, retention_ms="1000000")
    options = ["--partitions", "3", "--config", "retention.ms=-1"]
    with pytest.raises(ConfigError, match="it exists with retention.ms=1000000") as caught:
        invoke(topics, "create", name, *options)
    assert f"--alter --topic {name} --add-config retention.ms=-1" in str(caught.value)
    # Without the setting, or with the current one, there is no error
    assert invoke(topics, "create", name, "--partitions", "3").stdout.startswith("exists")
    options[-1] = "retention.ms=1000000"
    assert invoke(topics, "create", name, *options).stdout.startswith("exists")


def test_a_different_number_of_partitions_is_an_error_and_other_topics_are_created(
    invoke, bootstrap_servers, topic, topic_names
):
    new = topic_names("new")
    with pytest.raises(ConfigError, match=f"'{topic}': it exists with 2 partitions, not 3"):
        invoke(topics, "create", topic, new, "--partitions", "3")
    assert describe_topics(bootstrap_servers, [new])[new].partition_count == 3
