"""The rules of the log: the same assertions on the one in memory and on Kafka."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition

from livestep.pipeline.engine.log import AbortedError, StartAt
from livestep.pipeline.errors import FencedError
from livestep.pipeline.types import Offset
from tests.conftest import TopicNames
from tests.services.log_places import (
    POLL_TIMEOUT_S,
    SESSION_TIMEOUT_MS_MIN,
    KafkaPlace,
    Keeper,
    MemoryPlace,
    Place,
    joined,
    poll_until,
    read_replay,
    sent,
    values,
)
from tests.support.helpers import wait_until


@pytest.fixture(params=["memory", "kafka"])
def place(request: pytest.FixtureRequest, topic_names: TopicNames) -> Iterator[Place]:
    if request.param == "memory":
        yield MemoryPlace()
        return
    made = KafkaPlace(request.getfixturevalue("bootstrap_servers"), topic_names("log"))
    yield made
    made.close()


def test_poll_returns_records_in_order_up_to_its_limit(place: Place) -> None:
    log = place.log()
    joined(log)
    place.publish(*(b"%d" % i for i in range(7)))
    found = poll_until(log, 7, records_max=3)
    assert [(r.offset, r.value) for r in found] == [(i, b"%d" % i) for i in range(7)]
    assert {(r.topic, r.partition, r.key) for r in found} == {(place.input, 0, b"k")}


@pytest.mark.parametrize("is_committed", [True, False])
def test_an_open_transaction_holds_back_the_records_after_it(
    place: Place, is_committed: bool
) -> None:
    # Given a record of an open transaction with one behind it, and one in another partition
    log, writer = place.log(), place.writer()
    joined(log)
    writer.send(b"open")
    place.publish(b"behind")
    place.publish(b"elsewhere", partition=1)
    # When it is polled, then only what stands elsewhere comes
    assert values(poll_until(log, 1)) == [b"elsewhere"]
    assert not log.poll(10, POLL_TIMEOUT_S)
    # When the transaction ends, then what it has committed comes before what stands behind it
    writer.end(is_committed=is_committed)
    expected = [b"open", b"behind"] if is_committed else [b"behind"]
    assert values(poll_until(log, len(expected))) == expected


def test_markers_and_aborted_records_leave_gaps_in_the_offsets(place: Place) -> None:
    log, writer = place.log(), place.writer()
    joined(log)
    place.publish(b"plain")
    for value, is_committed in ((b"committed", True), (b"aborted", False)):
        writer.send(value)
        writer.end(is_committed=is_committed)
    place.publish(b"last")
    found = poll_until(log, 3)
    assert [(r.offset, r.value) for r in found] == [
        (0, b"plain"),
        (1, b"committed"),
        (5, b"last"),
    ]
    assert log.bounds(0) == (0, 6)


def test_what_is_sent_and_its_offsets_are_committed_together(place: Place) -> None:
    log = place.log()
    joined(log)
    assert log.committed() == {0: (None, ""), 1: (None, "")}
    # Given a record that is sent
    log.send(place.output, sent(b"1"))
    # Then nobody sees it before the commit, and then it and the offset with its metadata
    assert place.visible() == []
    log.commit({0: (Offset(3), "mark"), 1: (Offset(0), "")})
    assert log.committed() == {0: (3, "mark"), 1: (0, "")}
    wait_until(lambda: place.visible() == [b"1"], 60, "the committed record")


def test_offsets_are_committed_also_without_records(place: Place) -> None:
    log = place.log()
    joined(log)
    log.commit({1: (Offset(5), "five")})
    log.commit({1: (Offset(6), "six")})
    assert log.committed() == {0: (None, ""), 1: (6, "six")}
    assert place.visible() == []


def test_key_value_headers_and_time_arrive_as_they_were_sent(place: Place) -> None:
    log = place.log()
    joined(log)
    records: list[Any] = [
        (b"\x00key", None, 0, 12_345, [("a", b"\xff"), ("a", "text"), ("b", None)]),
        (None, b"", 0, 1, []),
    ]
    log.send(place.input, records)
    log.commit({})
    one, two = poll_until(log, 2)
    assert (one.key, one.value, one.timestamp_ms) == (b"\x00key", None, 12_345)
    assert one.headers == [("a", b"\xff"), ("a", b"text"), ("b", None)]
    assert (two.key, two.value, two.headers) == (None, b"", [])


def test_a_log_that_closes_aborts_what_it_has_open(place: Place) -> None:
    log = place.log()
    joined(log)
    log.send(place.output, sent(b"open"))
    place.close_log(log)
    place.publish(b"after it", topic=place.output)
    # Its mark, which ends the transaction for readers, may be written after the answer.
    wait_until(lambda: place.visible() == [b"after it"], 60, "the end of what was open")


def test_a_commit_after_a_rebalance_that_was_not_noticed_is_refused(place: Place) -> None:
    # Given a member that has lost its partitions to another, and doesn't know
    log = place.log()
    keeper = joined(log)
    heir = place.log("two")
    heir.subscribe(Keeper())
    place.lose(log, heir)
    assert keeper.owned == {0, 1}
    # When it commits, then nothing of it happens
    log.send(place.output, sent(b"late"))
    with pytest.raises(AbortedError):
        log.commit({0: (Offset(7), "late")})
    assert heir.committed()[0] == (None, "")
    # And the heir's commit does
    heir.send(place.output, sent(b"heir"))
    heir.commit({0: (Offset(1), "heir")})
    assert heir.committed()[0] == (1, "heir")
    wait_until(lambda: place.visible() == [b"heir"], 60, "the heir's record")
    # And the member is told of its loss when it polls
    wait_until(lambda: log.poll(1, POLL_TIMEOUT_S) or keeper.told[1:], 60, "the loss")
    assert keeper.told[1] == ("lost", (0, 1))


def test_a_newer_log_of_the_same_worker_fences_the_older(place: Place) -> None:
    old = place.log("same")
    joined(old)
    old.send(place.output, sent(b"old"))
    new, keeper = place.log("same"), Keeper()
    new.subscribe(keeper)
    with pytest.raises(FencedError):
        old.commit({0: (Offset(1), "old")})
    assert new.committed()[0] == (None, "")
    # And once its place in the group is free, too, the newer one continues
    place.close_log(old)
    wait_until(lambda: new.poll(1, POLL_TIMEOUT_S) or len(keeper.owned) == 2, 60, "the partitions")
    new.send(place.output, sent(b"new"))
    new.commit({})
    wait_until(lambda: place.visible() == [b"new"], 60, "the newer one's record")


def test_a_transaction_that_stays_open_for_too_long_is_aborted_and_its_log_fenced(
    place: Place,
) -> None:
    log = place.log(session_timeout_ms=SESSION_TIMEOUT_MS_MIN)
    joined(log)
    log.send(place.output, sent(b"slow"))
    place.let_time_out(log)
    with pytest.raises(FencedError):
        log.commit({0: (Offset(1), "slow")})
    place.publish(b"last", topic=place.output)
    assert b"slow" not in place.visible()


def test_at_least_once_shows_what_is_sent_before_its_commit(place: Place) -> None:
    log = place.log(guarantee="at-least-once")
    joined(log)
    log.send(place.output, sent(b"1"))
    wait_until(lambda: place.visible() == [b"1"], 60, "the record")
    assert log.committed()[0] == (None, "")
    log.commit({0: (Offset(1), "mark")})
    assert log.committed()[0] == (1, "mark")


def test_rewound_partitions_are_read_again(place: Place) -> None:
    log = place.log()
    joined(log)
    place.publish(b"0", b"1", b"2")
    place.publish(b"other", partition=1)
    poll_until(log, 4)
    log.rewind({0: Offset(1)})
    assert values(poll_until(log, 2)) == [b"1", b"2"]
    assert not log.poll(10, POLL_TIMEOUT_S)


def test_a_partition_of_another_is_not_rewound(place: Place) -> None:
    log = place.log()
    joined(log)
    log.rewind({5: Offset(1)})
    place.publish(b"0")
    assert values(poll_until(log, 1)) == [b"0"]


def test_paused_partitions_are_left_out_until_they_are_resumed(place: Place) -> None:
    log = place.log()
    joined(log)
    log.pause(0)
    place.publish(b"paused")
    place.publish(b"1", b"2", partition=1)
    assert values(poll_until(log, 2)) == [b"1", b"2"]
    assert not log.poll(10, POLL_TIMEOUT_S)
    log.resume(0)
    assert values(poll_until(log, 1)) == [b"paused"]


def test_a_partition_starts_where_the_listener_says_and_can_start_paused(place: Place) -> None:
    log = place.log()
    place.publish(b"0", b"1", b"2")
    place.publish(b"a", b"b", partition=1)
    log.subscribe(
        Keeper(p0=StartAt(Offset(2), is_paused=True), p1=StartAt(Offset(1), is_paused=False))
    )
    assert values(poll_until(log, 1)) == [b"b"]
    assert not log.poll(10, POLL_TIMEOUT_S)
    log.resume(0)
    assert values(poll_until(log, 1)) == [b"2"]


def test_bounds_follow_what_is_written_and_what_is_deleted(place: Place) -> None:
    log = place.log()
    joined(log)
    assert log.bounds(0) == (0, 0)
    place.publish(b"0", b"1", b"2", b"3", b"4")
    assert log.bounds(0) == (0, 5)
    place.delete_records(0, before=3)
    assert log.bounds(0) == (3, 5)
    assert log.bounds(1) == (0, 0)


def test_bounds_end_before_the_first_open_transaction(place: Place) -> None:
    log, writer = place.log(), place.writer()
    joined(log)
    place.publish(b"0")
    writer.send(b"open")
    place.publish(b"behind")
    assert log.bounds(0) == (0, 1)
    writer.end(is_committed=True)
    assert log.bounds(0) == (0, 4)


def test_a_replay_reads_its_part_and_is_done_also_behind_trailing_markers(place: Place) -> None:
    # Given a partition that ends with an aborted record and its marker
    log, writer = place.log(), place.writer()
    joined(log)
    place.publish(b"0", b"1")
    for value, is_committed in ((b"2", True), (b"aborted", False)):
        writer.send(value)
        writer.end(is_committed=is_committed)
    assert log.bounds(0) == (0, 6)
    # Then a replay up to there gives committed records, and is done; so is a part of it
    assert read_replay(log, 0, 6) == [b"0", b"1", b"2"]
    assert read_replay(log, 1, 6, records_max=1) == [b"1", b"2"]
    assert read_replay(log, 0, 2) == [b"0", b"1"]
    assert read_replay(log, 3, 6) == []
    assert read_replay(log, 2, 2) == []
    # And the group's own position has not moved
    assert values(poll_until(log, 3)) == [b"0", b"1", b"2"]


def test_a_replay_begins_at_what_the_log_still_has(place: Place) -> None:
    log = place.log()
    joined(log)
    place.publish(b"0", b"1", b"2", b"3")
    place.delete_records(0, before=2)
    assert read_replay(log, 2, 4) == [b"2", b"3"]


def test_members_share_the_partitions_and_take_over_from_one_that_leaves(place: Place) -> None:
    # Given a member that has all partitions
    first, second = place.log("one"), place.log("two")
    keeper, other = joined(first), Keeper()
    assert keeper.told == [("assigned", (0, 1))]
    # When a second one joins
    second.subscribe(other)

    def poll_both() -> None:
        first.poll(1, POLL_TIMEOUT_S)
        second.poll(1, POLL_TIMEOUT_S)

    def is_shared() -> bool:
        poll_both()
        return len(keeper.owned) == len(other.owned) == 1

    wait_until(is_shared, 60, "one partition each")
    # Then one partition moves: it is revoked here before it is assigned there
    (moved,) = other.owned
    assert keeper.owned == {0, 1} - {moved}
    assert keeper.told == [("assigned", (0, 1)), ("revoked", (moved,))]
    assert other.told == [("assigned", (moved,))]
    # When the first one leaves
    place.close_log(first)
    # Then it is told what it gives up, and the second one has all
    assert keeper.told[-1] == ("revoked", (1 - moved,))
    wait_until(lambda: second.poll(1, POLL_TIMEOUT_S) or other.owned == {0, 1}, 60, "both")
    assert other.told == [("assigned", (moved,)), ("assigned", (1 - moved,))]


def test_the_end_is_reached_when_all_is_read_and_left_when_something_comes(place: Place) -> None:
    place.publish(b"0", b"1")
    log = place.log(burst=True)
    log.subscribe(Keeper())
    assert values(poll_until(log, 2)) == [b"0", b"1"]
    wait_until(lambda: log.poll(10, POLL_TIMEOUT_S) or log.is_at_end, 60, "the end")
    log.rewind({0: Offset(0)})
    assert not log.is_at_end
    poll_until(log, 2)
    wait_until(lambda: log.poll(10, POLL_TIMEOUT_S) or log.is_at_end, 60, "the end again")


def test_lag_counts_what_is_not_done(place: Place) -> None:
    place.publish(b"0", b"1", b"2", b"3", b"4")
    log = place.log()
    log.subscribe(Keeper())
    poll_until(log, 1, records_max=1)
    log.commit({0: (Offset(1), "")})
    assert log.lag() == 4
    poll_until(log, 4)
    log.commit({0: (Offset(5), "")})
    assert log.lag() == 0


def test_new_partitions_are_seen_when_the_topic_is_checked(place: Place) -> None:
    log = place.log()
    joined(log)
    assert (log.partitions, sorted(log.committed())) == (2, [0, 1])
    place.add_partitions(3)

    def has_grown() -> bool:
        log.check_topic()
        return log.partitions == 3

    wait_until(has_grown, 60, "the new partition")
    assert sorted(log.committed()) == [0, 1, 2]


def test_committed_waits_for_a_transaction_that_could_still_move_the_offsets(
    bootstrap_servers: str, topic_names: TopicNames
) -> None:
    """On Kafka alone: in memory a commit is one call, and nothing is ever between its halves."""
    place = KafkaPlace(bootstrap_servers, topic_names("log"))
    try:
        # Given a log, and a client of its group with offsets in an open transaction
        log = place.log()
        joined(log)
        client = Producer(
            {"bootstrap.servers": bootstrap_servers, "transactional.id": f"{place.input}.other"}
        )
        client.init_transactions(30)
        client.begin_transaction()
        group = log._consumer.consumer_group_metadata()  # noqa: SLF001
        client.send_offsets_to_transaction([TopicPartition(place.input, 0, 9)], group, 30)
        # When the log is asked for what is committed
        found: list[Any] = []
        asking = threading.Thread(target=lambda: found.append(log.committed()))
        asking.start()
        asking.join(0.5)
        assert asking.is_alive() and not found
        # Then the answer comes with the end of the transaction, and has its offset
        client.commit_transaction(30)
        asking.join(30)
        assert found == [{0: (9, ""), 1: (None, "")}]
    finally:
        place.close()
