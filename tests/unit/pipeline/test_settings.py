"""Settings: flags, environment, limits, and what passes through to librdkafka."""

import dataclasses

import pytest

from livestep.pipeline.errors import ConfigError
from livestep.pipeline.settings import Settings

NEEDED = {"model": "m", "input_topic": "in", "output_topic": "out"}
LIMITED = [
    item for item in dataclasses.fields(Settings) if item.metadata.get("at_least") is not None
]
CHOSEN = [item for item in dataclasses.fields(Settings) if item.metadata.get("choices")]


def refused(*texts, **changes):
    with pytest.raises(ConfigError) as caught:
        Settings(**{**NEEDED, **changes})
    for text in texts:
        assert text in str(caught.value)


def test_what_is_not_given_is_derived_from_the_topics():
    settings = Settings(**NEEDED)
    assert settings.dead_letter_topic == "in.dead-letter"
    assert settings.group == "livestep.out"
    given = Settings(**NEEDED, dead_letter_topic="bad", group="mine")
    assert (given.dead_letter_topic, given.group) == ("bad", "mine")


@pytest.mark.parametrize("name", NEEDED)
def test_a_setting_without_a_default_is_asked_for_by_both_its_names(name):
    flag = "--" + name.replace("_", "-")
    refused(flag, "LIVESTEP_" + name.upper(), **{name: ""})


@pytest.mark.parametrize("item", LIMITED, ids=lambda item: item.name)
def test_a_number_outside_of_its_limits_is_refused(item):
    flag = "--" + item.name.replace("_", "-")
    limits = item.metadata["at_least"], item.metadata["at_most"]
    refused(flag, "is out of range", **{item.name: type(item.default)(limits[0] - 1)})
    refused(flag, "is out of range", **{item.name: type(item.default)(limits[1] + 1)})


@pytest.mark.parametrize("item", LIMITED, ids=lambda item: item.name)
def test_a_number_at_its_limits_is_taken(item):
    for limit in (item.metadata["at_least"], item.metadata["at_most"]):
        value = type(item.default)(limit)
        rest = {"batch_events_max": 1} if item.name == "pool_slots" else {"pool_slots": 1_000_000}
        assert getattr(Settings(**{**NEEDED, **rest, item.name: value}), item.name) == value


@pytest.mark.parametrize("item", CHOSEN, ids=lambda item: item.name)
def test_a_choice_that_there_is_not_names_those_that_there_are(item):
    refused("'maybe' is not one of", *item.metadata["choices"], **{item.name: "maybe"})
    for choice in item.metadata["choices"]:
        Settings(**NEEDED, **{item.name: choice})


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_events_max": "10"},
        {"batch_events_max": True},
        {"batch_events_max": 1.5},
        {"redis_wait_s": float("nan")},
        {"burst": 1},
        {"group": 5},
    ],
    ids=str,
)
def test_a_value_of_another_kind_is_refused(changes):
    refused("--" + next(iter(changes)).replace("_", "-"), **changes)


@pytest.mark.parametrize("name", ["a b", "ä", "a/b", "x" * 250])
def test_a_topic_that_kafka_would_not_take_is_refused(name):
    refused("is not a topic name", input_topic=name)
    refused("is not a topic name", output_topic=name)
    refused("is not a topic name", dead_letter_topic=name)


def test_a_derived_dead_letter_topic_may_be_too_long():
    refused("--dead-letter-topic", input_topic="x" * 240)


@pytest.mark.parametrize(
    "changes",
    [{"output_topic": "in"}, {"dead_letter_topic": "in"}, {"output_topic": "in.dead-letter"}],
    ids=str,
)
def test_the_three_topics_are_three(changes):
    refused("three different topics", **changes)


def test_the_pool_holds_two_batches():
    refused("--pool-slots 19", "twice", batch_events_max=10, pool_slots=19)
    Settings(**NEEDED, batch_events_max=10, pool_slots=20)


def test_the_environment_gives_settings_and_a_flag_wins():
    environment = {
        "LIVESTEP_MODEL": "m",
        "LIVESTEP_INPUT_TOPIC": "in",
        "LIVESTEP_OUTPUT_TOPIC": "out",
        "LIVESTEP_BATCH_EVENTS_MAX": "50",
        "LIVESTEP_REDIS_WAIT_S": "1.5",
        "LIVESTEP_BURST": "yes",
        "LIVESTEP_GROUP": "",
        "OTHER_GROUP": "other",
    }
    settings = Settings.from_environment(environment, input_topic="flag", group=None)
    assert settings == Settings(
        model="m",
        input_topic="flag",
        output_topic="out",
        batch_events_max=50,
        redis_wait_s=1.5,
        burst=True,
    )
    assert not Settings.from_environment({**environment, "LIVESTEP_BURST": "False"}).burst


@pytest.mark.parametrize(
    ("variable", "text", "kind"),
    [
        ("LIVESTEP_BATCH_EVENTS_MAX", "many", "an integer"),
        ("LIVESTEP_BATCH_EVENTS_MAX", "1.5", "an integer"),
        ("LIVESTEP_REDIS_WAIT_S", "long", "a number"),
        ("LIVESTEP_BURST", "perhaps", "true or false"),
    ],
)
def test_a_variable_that_cant_be_read_is_named(variable, text, kind):
    with pytest.raises(ConfigError, match=f"{variable}='{text}' is not {kind}"):
        Settings.from_environment({variable: text}, **NEEDED)


def test_the_process_environment_is_read_by_default(monkeypatch):
    monkeypatch.setenv("LIVESTEP_GROUP", "from-the-process")
    assert Settings.from_environment(**NEEDED).group == "from-the-process"


def test_kafka_options_pass_through_under_their_own_names():
    environment = {
        "LIVESTEP_KAFKA_COMPRESSION_TYPE": "lz4",
        "LIVESTEP_KAFKA_LINGER_MS": "5",
        "LIVESTEP_GROUP": "g",
    }
    settings = Settings.from_environment(environment, **NEEDED)
    assert settings.kafka_options == {"compression.type": "lz4", "linger.ms": "5"}
    assert settings.group == "g"


def test_options_may_hold_passwords_and_are_not_shown():
    settings = Settings(**NEEDED, kafka_options={"sasl.password": "secret"})
    assert "secret" not in repr(settings)
