"""What a real Redis holds while another worker writes in between the parts of a call."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from livestep.pipeline.state.store import SAVE_KEYS_MAX, RedisStore
from livestep.pipeline.state.stored_partition import StoredPartition
from livestep.pipeline.types import Offset
from tests.conftest import TopicNames


class Interrupted(Exception):
    """A worker that dies within a save."""


class Chunks(list[bytes]):
    """Records of a save; taking the chunk of a number calls a function first."""

    def __init__(self, records: list[bytes], number: int, call: Callable[[], None]) -> None:
        super().__init__(records)
        self._start, self._call = number * SAVE_KEYS_MAX, call

    def __getitem__(self, part: Any) -> Any:
        if isinstance(part, slice) and part.start == self._start:
            self._call()
        return super().__getitem__(part)


def test_another_workers_save_of_the_same_offsets_replaces_no_chunk(
    redis_url: str, redis_client: redis.Redis, topic_names: TopicNames
) -> None:
    # Given two saves of the same events, one with a key more: their chunks differ
    name = topic_names("t")
    store = RedisStore(redis_url, topic_id=name, fingerprint="aa", group="g", wait_s=10)
    store.begin(0, expected=None, applied=Offset(0), start=Offset(0), partitions=1)
    record = (8).to_bytes(8, "little") + (1).to_bytes(8, "little") + b"state"
    keys = [b"%d" % number for number in range(2 * SAVE_KEYS_MAX + 1)]

    def save(keys: list[bytes], number: int, call: Callable[[], None]) -> None:
        records = Chunks([record] * len(keys), number, call)
        store.save(0, expected=Offset(0), applied=Offset(9), keys=keys, records=records)

    def die() -> None:
        raise Interrupted

    def save_of_another_worker() -> None:
        with pytest.raises(Interrupted):
            save([b"more", *keys], 2, die)

    # When the other one's first two chunks come between ours
    save(keys, 1, save_of_another_worker)

    # Then `applied` covers nothing that is not there
    assert store.load(0, keys) == (9, [record] * len(keys))
    store.close()
    redis_client.delete(f"livestep:{{{name}:0}}:aa:g")


def test_what_another_worker_begins_within_a_description_is_not_damaged(
    redis_url: str,
    redis_client: redis.Redis,
    topic_names: TopicNames,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a store that describes a partition while another worker begins it
    name = topic_names("t")
    store, other = (
        RedisStore(redis_url, topic_id=name, fingerprint="aa", group="g", wait_s=10)
        for _ in range(2)
    )

    class Apart:
        """A pipeline whose commands arrive one by one."""

        def __init__(self) -> None:
            self._answers: list[Any] = []

        def pipeline(self, **_: Any) -> Any:
            return self

        def hlen(self, key: str) -> None:
            self._take(redis_client.hlen(key))

        def hmget(self, key: str, *fields: str) -> None:
            self._take(redis_client.hmget(key, fields))

        def execute(self, **_: Any) -> list[Any]:
            return self._answers

        def _take(self, answer: Any) -> None:
            self._answers.append(answer)
            other.begin(0, expected=None, applied=Offset(5), start=Offset(5), partitions=1)

    apart = SimpleNamespace(call=lambda command: command(Apart()))
    monkeypatch.setattr(store, "_redis", apart)

    # Then it has not begun yet, which is no more true, and `begin` will find that out
    assert store.describe([0]) == {0: None}
    assert other.describe([0]) == {0: StoredPartition(Offset(5), Offset(5), 1, has_states=False)}
    other.close()
    redis_client.delete(f"livestep:{{{name}:0}}:aa:g")
