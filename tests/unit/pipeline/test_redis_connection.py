"""Which client a connection to a Redis Cluster uses next; the rest is tested on real servers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import RedisClusterException

from livestep.pipeline.state import redis_connection
from livestep.pipeline.state.redis_connection import RedisConnection


class Client:
    """A client of a cluster of one node."""

    def __init__(self) -> None:
        self.idle = 1
        pool = SimpleNamespace(disconnect=self._disconnect)
        self._node = SimpleNamespace(redis_connection=SimpleNamespace(connection_pool=pool))

    def get_nodes(self) -> list[Any]:
        return [self._node, SimpleNamespace(redis_connection=None)]

    def _disconnect(self, *, inuse_connections: bool) -> None:
        assert not inuse_connections  # another thread may wait for an answer
        self.idle = 0


def test_a_thread_that_fails_late_leaves_the_client_that_another_has_made_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given two threads on one client whose nodes are all gone
    made: list[Client] = []

    def make_client(*_: Any) -> Client:
        made.append(Client())
        return made[-1]

    monkeypatch.setattr(redis_connection, "make_client", make_client)
    connection = RedisConnection("redis+cluster://127.0.0.1:1", wait_s=5)

    def fail_on_the_first(client: Client) -> int:
        if client is made[0]:
            raise RedisClusterException("gone")
        return made.index(client)

    def fail_late(client: Client) -> int:
        if client is made[0]:
            # While this one waits for its answer, the other one has got a new client
            assert connection.call(fail_on_the_first) == 1
            raise RedisClusterException("gone")
        return made.index(client)

    # When the slower one fails, too, then both continue with the new one, and the old one is let go
    assert connection.call(fail_late) == 1
    assert [client.idle for client in made] == [0, 1]
