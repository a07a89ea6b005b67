"""Each kind of record gets the outcome that the table states, and harms no neighbour: in memory."""

from __future__ import annotations

import pytest

from livestep.pipeline.columns import log_records
from livestep.pipeline.columns.log_records import Message
from livestep.pipeline.engine.engine import Work
from livestep.pipeline.records import DEAD_LETTER_REASON_HEADER, Source, read_dead_letter_headers
from tests.hostile.hostile_records import KINDS, PREDICTED, TAKEN, VALUE_BYTES_MAX, records_of
from tests.support.world import DEAD, INPUT, OUTPUT, World, loaded


@pytest.mark.parametrize("name", KINDS)
def test_each_record_has_its_outcome_among_unharmed_neighbours(name: str) -> None:
    # Given each record of the table between good ones
    kind = KINDS[name]
    options = {"codec": "json", **kind.options}
    for side in ("inputs", "outputs"):
        options[side] = tuple(options[side])
    world = World(loaded(kind.net(), **options), partitions=1)
    expected: dict[Source, str] = {}
    names: dict[Source, str] = {}
    for row, is_row in records_of(kind):
        place = world.broker.publish(
            INPUT,
            row.key,
            row.value,
            partition=0,
            timestamp_ms=row.timestamp_ms,
            headers=list(row.headers),
        )
        expected[place] = row.outcome
        names[place] = row.name if is_row else f"a neighbour of {row.name}"

    # When a worker meets them, many in one batch
    world.run_to_end(batch_events_max=50, pool_slots=200, value_bytes_max=VALUE_BYTES_MAX)

    # Then dead letters are just those that the table states, each with its reason
    found = {}
    for letter in world.broker.records(DEAD):
        reason, detail, source, _ = read_dead_letter_headers(letter.headers() or [])
        found[source] = reason
        assert 0 < len(detail) < 1_000, names[source]
    wanted = {p: outcome for p, outcome in expected.items() if outcome not in (PREDICTED, TAKEN)}
    assert {names[p]: r for p, r in found.items()} == {names[p]: r for p, r in wanted.items()}
    assert found == wanted

    # And all others are answered as if the bad ones had not been there
    report = world.report()
    assert report.is_clean, report
    assert report.events == len(expected)
    assert report.predictions >= sum(o == PREDICTED for o in expected.values()) // 2


def test_a_record_that_fits_no_dead_letter_is_one_without_what_is_too_long() -> None:
    # Given records whose value, key or headers are as long as Kafka takes them by default
    world = World(partitions=1)
    long = b"z" * 1_048_300
    for key, value, headers in (
        (b"k", long, []),
        (long, b"short", []),
        (b"k", b"{", [("trace", long)]),
        (b"k", b"{" * 600_000, [("trace", b"y" * 500_000)]),
    ):
        world.broker.publish(INPUT, key, value, partition=0, headers=headers)
    world.publish("k", {"x": [1, 2]})

    # When a worker puts them aside
    world.run_to_end()

    # Then each lacks the longest of its parts, and states which
    letters = [
        (one.key(), one.value(), *read_dead_letter_headers(one.headers() or [])[1::2])
        for one in world.broker.records(DEAD)
    ]
    assert [(key, value, own) for key, value, _, own in letters] == [
        (b"k", None, ()),
        (None, b"short", ()),
        (b"k", b"{", ()),
        (b"k", None, (("trace", b"y" * 500_000),)),
    ]
    for (_, _, detail, _), part in zip(letters, ["value", "key", "headers", "value"], strict=True):
        assert detail.endswith(f"; omitted because it is too long: {part}")
    assert len(world.broker.records(OUTPUT)) == 1


class _Unreadable(Message):
    """A record whose headers can't be read, as confluent-kafka gives it; all else is a record's."""

    def __init__(self, record: Message, cause: Exception | None) -> None:
        self._cause = cause
        for name in ("partition", "offset", "key", "value", "timestamp"):
            setattr(self, name, getattr(record, name))

    def headers(self) -> None:
        raise SystemError("returned a result with an exception set") from self._cause


def test_a_header_whose_name_is_not_utf_8_is_a_dead_letter_without_headers() -> None:
    # Given a batch with such a record, between good ones
    world = World(partitions=1)
    for _ in range(3):
        world.publish("k", {"x": [1, 2]})
    engine = world.start()
    assert engine.poll(0) is not None
    cause = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    messages: list[Message] = [*world.broker.records(INPUT)]
    messages[1] = _Unreadable(messages[1], cause)

    # When it is run
    engine.run(Work(log_records.records_of(INPUT, messages), is_replay=False))
    engine.drain()

    # Then it alone is put aside, and the neighbours are predicted
    (letter,) = world.broker.records(DEAD)
    headers = dict(letter.headers() or [])
    assert headers[DEAD_LETTER_REASON_HEADER] == b"bad-header"
    assert len(headers) == 3
    assert world.report().is_clean and len(world.broker.records(OUTPUT)) == 2


def test_another_error_of_the_client_is_not_taken_for_a_bad_record() -> None:
    world = World(partitions=1)
    world.publish("k", {"x": [1, 2]})
    (record,) = world.broker.records(INPUT)
    with pytest.raises(SystemError):
        log_records.records_of(INPUT, [_Unreadable(record, None)])
