"""The rules of the log about its topics: deleted, created again, given more partitions.

The same assertions on the log in memory and on Kafka, as in `test_log`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from livestep.pipeline.engine.log import Log
from livestep.pipeline.errors import (
    BrokerError,
    HistoryMissingError,
    PartitionsChangedError,
    TopicReplacedError,
)
from livestep.pipeline.types import Offset
from tests.conftest import TopicNames
from tests.services.log_places import (
    PARTITIONS,
    POLL_TIMEOUT_S,
    KafkaPlace,
    Keeper,
    MemoryPlace,
    Place,
    joined,
    poll_until,
    sent,
    values,
)
from tests.support.helpers import wait_until


@pytest.fixture
def kafka(bootstrap_servers: str, topic_names: TopicNames) -> Iterator[KafkaPlace]:
    made = KafkaPlace(bootstrap_servers, topic_names("log"))
    yield made
    made.close()


@pytest.fixture(params=["memory", "kafka"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = MemoryPlace() if request.param == "memory" else request.getfixturevalue("kafka")
    return found


def at_five(place: Place, **changes: Any) -> Log:
    """Make a log that has committed five records of partition 0."""
    log = place.log(**changes)
    joined(log)
    place.publish(*(b"%d" % i for i in range(5)))
    poll_until(log, 5)
    log.commit({0: (Offset(5), "five")})
    return log


def poll_on(log: Log) -> Callable[[], bool]:
    """Return a function that polls until something is raised."""

    def poll() -> bool:
        assert not log.poll(10, POLL_TIMEOUT_S)
        return False

    return poll


def answer(place: Place, log: Log, count: int) -> None:
    """Poll so many records of partition 0, send and commit."""
    found = poll_until(log, count)
    log.send(place.output, sent(b"answer"))
    log.commit({0: (Offset(found[-1].offset + 1), "late")})


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_what_was_polled_of_a_topic_created_again_is_not_committed(
    place: Place, guarantee: str
) -> None:
    # Given a log at offset 5, and a topic of the same name that already has more
    log = at_five(place, guarantee=guarantee)
    place.recreate(place.input)
    place.publish(*(b"new %d" % i for i in range(8)))
    # When what it polls there is answered, then nothing of that happens
    with pytest.raises(TopicReplacedError, match=r"created again.*restart begins with the new"):
        answer(place, log, 3)
    assert place.visible() == []
    # And the next one reads another topic, of which nothing is committed
    following = place.log("two")
    assert following.topic_id != log.topic_id
    assert following.committed()[0][0] in (None, 5)


def test_a_topic_created_again_that_is_still_shorter_is_named_as_the_cause(place: Place) -> None:
    log = at_five(place)
    place.recreate(place.input)
    place.publish(b"new")
    with pytest.raises(TopicReplacedError, match="created again"):
        wait_until(poll_on(log), 60, "the cause")


def test_an_idle_log_notices_that_its_topic_was_created_again(place: Place) -> None:
    log = at_five(place)
    place.recreate(place.input)
    with pytest.raises(TopicReplacedError, match="created again"):
        wait_until(poll_on(log), 60, "the cause")


def test_a_topic_created_again_is_seen_before_its_offsets_are_read(place: Place) -> None:
    log = at_five(place)
    place.recreate(place.input)
    with pytest.raises(TopicReplacedError):
        log.check_topic()


def test_a_deleted_topic_is_named_as_the_cause(kafka: KafkaPlace) -> None:
    """On Kafka alone: in memory a topic is deleted and created in one call."""
    log = at_five(kafka)
    kafka.delete(kafka.input)
    with pytest.raises(TopicReplacedError, match="was deleted while this worker"):
        wait_until(poll_on(log), 60, "the cause")


def test_records_that_retention_deletes_before_they_are_read_are_named(kafka: KafkaPlace) -> None:
    """On Kafka alone: the log in memory reads on at the first record that is there."""
    log = kafka.log()
    joined(log)
    log.pause(0)
    kafka.publish(*(b"%d" % i for i in range(5)))
    kafka.delete_records(0, before=3)
    log.rewind({0: Offset(1)})
    log.resume(0)
    with pytest.raises(HistoryMissingError, match="to read is 1, but the log has 3 to 5"):
        wait_until(poll_on(log), 60, "the cause")


def test_nothing_is_committed_when_partitions_were_added_after_the_poll(place: Place) -> None:
    log = place.log()
    joined(log, Keeper(partitions_max=PARTITIONS))
    place.publish(b"0")
    assert values(poll_until(log, 1)) == [b"0"]
    place.add_partitions(3)
    place.publish(b"moved", partition=1)
    with pytest.raises(PartitionsChangedError):
        answer(place, log, 1)
    assert place.visible() == []
    assert log.partitions == PARTITIONS


def test_an_idle_log_notices_that_partitions_were_added(place: Place) -> None:
    log = place.log()
    joined(log, Keeper(partitions_max=PARTITIONS))
    place.add_partitions(3)
    place.publish(b"unseen", partition=2)
    with pytest.raises(PartitionsChangedError):
        wait_until(poll_on(log), 60, "the new partition")


def test_new_partitions_are_taken_where_the_listener_allows_it(place: Place) -> None:
    log = place.log()
    keeper = joined(log)
    place.add_partitions(3)
    place.publish(b"new", partition=2)
    assert [(r.partition, r.value) for r in poll_until(log, 1)] == [(2, b"new")]
    assert (keeper.counts, keeper.owned, log.partitions) == ([3], {0, 1, 2}, 3)


def test_the_end_is_not_reached_while_a_new_partition_waits_to_be_taken(place: Place) -> None:
    # Given a burst that has read what it knows of
    place.publish(b"0")
    log = place.log(burst=True)
    log.subscribe(Keeper())
    found = poll_until(log, 1)
    # When a partition is added that has a record
    place.add_partitions(3)
    place.publish(b"new", partition=2)
    # Then the end comes after that

    def is_over() -> bool:
        found.extend(log.poll(10, POLL_TIMEOUT_S))
        return log.is_at_end

    wait_until(is_over, 60, "the end")
    assert values(found) == [b"0", b"new"]
    log.commit({0: (Offset(1), ""), 2: (Offset(1), "")})
    assert log.lag() == 0


def test_an_output_topic_created_again_is_logged_and_written_to(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    log = place.log()
    joined(log)
    place.recreate(place.output)
    told = f"topic {place.output} was deleted and created again"
    wait_until(lambda: log.poll(1, POLL_TIMEOUT_S) or told in caplog.text, 60, "the warning")
    log.send(place.output, sent(b"1"))
    log.commit({})
    wait_until(lambda: place.visible() == [b"1"], 60, "the record")
    assert caplog.text.count(told) == 1


def test_an_output_topic_with_fewer_partitions_than_before_ends_the_log(place: Place) -> None:
    log = place.log()
    joined(log)
    place.recreate(place.output, partitions=1)
    with pytest.raises(BrokerError, match="has 1 partitions now, and had 2"):
        wait_until(poll_on(log), 60, "the error")


def test_a_deleted_output_topic_is_logged_and_named_when_something_is_sent(
    kafka: KafkaPlace, caplog: pytest.LogCaptureFixture
) -> None:
    """On Kafka alone, as above."""
    log = kafka.log()
    joined(log)
    kafka.delete(kafka.output)
    told = f"topic {kafka.output} was deleted"
    wait_until(lambda: log.poll(1, POLL_TIMEOUT_S) or told in caplog.text, 60, "the warning")
    with pytest.raises(BrokerError, match=f"topics create {kafka.output}"):
        log.send(kafka.output, sent(b"1"))


def test_a_deleted_output_topic_is_named_also_before_anybody_has_looked(kafka: KafkaPlace) -> None:
    """On Kafka alone, as above."""
    log = kafka.log(session_timeout_ms=2_000)
    joined(log)
    kafka.delete(kafka.output)
    with pytest.raises(BrokerError, match=f"topics create {kafka.output}"):
        log.send(kafka.output, sent(b"1"))
        log.commit({})


def test_settings_of_a_topic_are_read(place: Place) -> None:
    log = place.log()
    assert log.topic_setting(place.input, "retention.ms") == "604800000"
    assert log.topic_setting(place.input, "cleanup.policy") == "delete"
