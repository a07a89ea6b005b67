"""What a member that the group has removed is told: the same in memory and on Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from livestep.pipeline.engine.log import AbortedError, Log, StartAt
from livestep.pipeline.types import Offset
from tests.conftest import TopicNames
from tests.services.log_places import (
    POLL_TIMEOUT_S,
    KafkaPlace,
    Keeper,
    MemoryPlace,
    Place,
    joined,
    sent,
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


class _Interrupted(Keeper):
    """Begins where the group's commits say; something happens while it is told something."""

    def __init__(
        self, log: Log, while_told: str = "", meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self._log, self._while_told, self._meanwhile = log, while_told, meanwhile

    def assigned(self, partitions: Sequence[int]) -> dict[int, StartAt]:
        super().assigned(partitions)
        committed = self._log.committed()
        starts = {p: StartAt(committed[p][0] or Offset(0), is_paused=False) for p in partitions}
        self._interrupt()
        return starts

    def revoked(self, partitions: Sequence[int], *, is_lost: bool) -> None:
        super().revoked(partitions, is_lost=is_lost)
        self._interrupt()

    def _interrupt(self) -> None:
        if self.told and self.told[-1][0] == self._while_told:
            self._while_told = ""
            self._meanwhile()


def _polled_on(log: Log, heir: Log, keeper: Keeper, output: str) -> list[Any]:
    """Poll both until the first has come back, and give its first record then."""
    records: list[Any] = []

    def is_back() -> bool:
        found = log.poll(1, POLL_TIMEOUT_S)
        if not keeper.told:
            return False
        heir.poll(1, POLL_TIMEOUT_S)
        if keeper.told[-1][0] != "assigned" or len(keeper.told) == 1:
            for record in found:  # of what it has no longer: it can't be answered
                log.send(output, sent(b"late"))
                with pytest.raises(AbortedError):
                    log.commit({record.partition: (Offset(record.offset + 1), "late")})
        else:
            records.extend(found)
        return bool(records)

    wait_until(is_back, 60, "the member to have a partition again")
    return records


def test_a_member_that_was_removed_and_rejoins_sees_its_loss_and_starts_after_its_successor(
    place: Place,
) -> None:
    # Given a member that has lost its partitions to another, which has continued
    log, heir = place.log(), place.log("two")
    keeper = _Interrupted(log)
    joined(log, keeper)
    heir.subscribe(Keeper())
    place.lose(log, heir)
    for partition in range(2):
        place.publish(*(b"%d" % i for i in range(7)), partition=partition)
    heir.commit({0: (Offset(5), "heir"), 1: (Offset(5), "heir")})
    # When the group takes it back before it has polled
    place.take_back(log)
    first = _polled_on(log, heir, keeper, place.output)[0]
    # Then it is told of the loss before anything is assigned again
    assert keeper.told == [
        ("assigned", (0, 1)),
        ("lost", (0, 1)),
        ("assigned", (first.partition,)),
    ]
    # And it begins where the heir has stopped
    assert first.offset == 5


def test_a_member_that_is_removed_during_an_assignment_sees_its_loss_and_cannot_predict(
    place: Place,
) -> None:
    # Given a member whose listener takes its time, for longer than the group waits for it
    log, heir = place.log(), place.log("two")
    for partition in range(2):
        place.publish(*(b"%d" % i for i in range(7)), partition=partition)

    def meanwhile() -> None:
        heir.subscribe(Keeper())
        place.lose(log, heir)
        heir.commit({0: (Offset(5), "heir"), 1: (Offset(5), "heir")})
        place.take_back(log)

    keeper = _Interrupted(log, "assigned", meanwhile)
    log.subscribe(keeper)
    # When the listener is done, with a position that is out of date
    first = _polled_on(log, heir, keeper, place.output)[0]
    # Then nothing of it was answered, and what it was given is lost before it is assigned again
    assert keeper.told == [
        ("assigned", (0, 1)),
        ("lost", (0, 1)),
        ("assigned", (first.partition,)),
    ]
    assert first.offset == 5
    assert place.visible() == []


def test_a_member_that_is_lost_while_it_gives_up_a_partition_loses_the_other_one_too(
    place: Place,
) -> None:
    # Given a member with both partitions, of which another one is to get one
    log, heir = place.log(), place.log("two")

    def meanwhile() -> None:
        place.lose(log, heir)
        for partition in range(2):
            place.publish(*(b"%d" % i for i in range(7)), partition=partition)
        heir.commit({0: (Offset(5), "heir"), 1: (Offset(5), "heir")})
        place.take_back(log)

    keeper = _Interrupted(log, "revoked", meanwhile)
    joined(log, keeper)
    heir.subscribe(Keeper())
    # When the group continues without it while its listener lets go
    first = _polled_on(log, heir, keeper, place.output)[0]
    # Then the one that it has kept is lost, and nothing of it was answered
    (_, (given_up,)) = keeper.told[1]
    assert keeper.told[:2] == [("assigned", (0, 1)), ("revoked", (given_up,))]
    assert keeper.told[2:] == [("lost", (1 - given_up,)), ("assigned", (first.partition,))]
    assert first.offset == 5
    assert place.visible() == []


def test_the_group_waits_for_a_member_with_a_slow_listener(place: Place) -> None:
    # Given a member whose listener is still busy with what is assigned to it
    log, heir = place.log(), place.log("two")
    other = Keeper()

    def meanwhile() -> None:
        # When another one joins, and polls
        heir.subscribe(other)

        def has_joined() -> bool:
            heir.poll(1, POLL_TIMEOUT_S)
            return place.members() == 2

        wait_until(has_joined, 60, "the second member")
        for _ in range(5):
            heir.poll(1, POLL_TIMEOUT_S)
        # Then it gets nothing
        assert other.told == []

    keeper = _Interrupted(log, "assigned", meanwhile)
    log.subscribe(keeper)

    def is_shared() -> bool:
        log.poll(1, POLL_TIMEOUT_S)
        heir.poll(1, POLL_TIMEOUT_S)
        return len(keeper.owned) == len(other.owned) == 1

    wait_until(is_shared, 60, "one partition each")
    # Until the first one has given it up
    (moved,) = other.owned
    assert keeper.told == [("assigned", (0, 1)), ("revoked", (moved,))]
    assert other.told == [("assigned", (moved,))]
