"""Each state of Kafka and Redis in the table of hostile input ends a worker as the table says."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import redis
from confluent_kafka.admin import AdminClient

from tests.hostile.service_states import STATES, Row, State
from tests.services.conftest import MakeRunning


@pytest.mark.parametrize("row", STATES, ids=lambda row: row.name)
def test_the_worker_leaves_with_what_is_wrong(
    row: Row, pipeline: MakeRunning, redis_client: redis.Redis
) -> None:
    # Given a pipeline, which has worked if that matters, and the state
    running = pipeline()
    if row.has_history:
        running.publish(100, keys=10)
        running.burst()
    admin = AdminClient({"bootstrap.servers": running.services.bootstrap_servers})
    with ExitStack() as undo:
        changes = row.make(State(running, redis_client, admin, undo))

        # When a worker starts, then it leaves with the table's error, and tells no secret
        with pytest.raises(row.error, match=row.message) as raised:
            running.burst(**changes)
    assert type(raised.value) is row.error
    assert "open-sesame" not in str(raised.value)
