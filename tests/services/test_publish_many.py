"""`EventPublisher.publish_many` on a real broker: exact counts, order, partitions and errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from livestep import BrokerError, ConfigError, EventPublisher
from tests.conftest import CreateTopic, TopicNames
from tests.support.published import count_of, read


@pytest.fixture
def topic(create_topic: CreateTopic, topic_names: TopicNames) -> str:
    """A topic that keeps old events: Kafka deletes by the records' own time."""
    return create_topic(topic_names(), 4, retention_ms="-1")


def test_many_events_arrive_in_order_in_the_partitions_of_single_ones(
    bootstrap_servers: str, topic: str
) -> None:
    # Given events that kafka-python has sent, one by one
    keys = [f"key-{number}" for number in range(100)]
    with EventPublisher(bootstrap_servers, topic) as publisher:
        for key in keys:
            publisher.publish(key, {"n": -1})
        # When many more follow in bulk, and one at the end
        count = publisher.publish_many((keys[n % 100], {"n": n}) for n in range(30_000))
        publisher.publish(keys[7], {"n": 30_000})
    # Then each key is in one partition, in the order of the calls
    assert count == 30_000
    by_key: dict[bytes, list[bytes]] = {}
    partitions: dict[bytes, set[int]] = {}
    for partition, records in read(bootstrap_servers, topic).items():
        for key_bytes, value in records:
            by_key.setdefault(key_bytes, []).append(value)
            partitions.setdefault(key_bytes, set()).add(partition)
    assert all(len(found) == 1 for found in partitions.values())
    for number, name in enumerate(keys):
        sent = [-1, *range(number, 30_000, 100), *([30_000] if number == 7 else [])]
        assert by_key[name.encode()] == [b'{"n":%d}' % n for n in sent]


def test_a_refused_event_is_reported_with_its_number_and_the_exact_count(
    bootstrap_servers: str, topic: str
) -> None:
    def events() -> Iterator[tuple[str, dict[str, int], int]]:
        for n in range(1, 5_001):
            # Microseconds instead of milliseconds: Kafka refuses times in the future.
            yield f"key-{n % 10}", {"n": n}, 1_700_000_000_000 * (1_000 if n == 3_000 else 1)

    with EventPublisher(bootstrap_servers, topic) as publisher:
        refused = r"event 3,000 \(key 'key-0'\) .* timestamp"
        with pytest.raises(BrokerError, match=refused) as caught:
            publisher.publish_many(events())
        count = count_of(bootstrap_servers, topic)
        assert f"; {count:,} events were delivered" in str(caught.value)
        # And order can't be kept after the gap
        with pytest.raises(BrokerError, match="event 3,000"):
            publisher.publish("key-0", {"n": 0})


def test_events_before_one_that_cant_be_encoded_are_delivered(
    bootstrap_servers: str, topic: str
) -> None:
    values: list[Any] = [1.5] * 1_500 + [float("nan")] + [2.5]
    with EventPublisher(bootstrap_servers, topic) as publisher:
        with pytest.raises(ValueError, match="is nan") as caught:
            publisher.publish_many((f"key-{n}", {"x": x}) for n, x in enumerate(values))
    assert caught.value.__notes__ == ["1,500 events were delivered before it"]
    assert count_of(bootstrap_servers, topic) == 1_500


def test_an_option_without_a_counterpart_is_an_error_before_anything_is_sent(
    bootstrap_servers: str, topic: str
) -> None:
    with EventPublisher(bootstrap_servers, topic, retry_backoff_ms=50) as publisher:
        with pytest.raises(ConfigError, match="'retry_backoff_ms' is not available for bulk"):
            publisher.publish_many([("k", {"n": 1})])
    assert count_of(bootstrap_servers, topic) == 0
