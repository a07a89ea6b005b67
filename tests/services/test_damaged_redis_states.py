"""States that somebody has changed in a real Redis: found, named, healed by replay, or refused."""

from __future__ import annotations

import pytest
import redis
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from livestep.pipeline.errors import HistoryMissingError, StateError, StoreError
from tests.services.conftest import MakeRunning
from tests.services.running import PATIENT_SESSION_TIMEOUT_MS, Running
from tests.support.damages import FIELDS, RECORDS, Changes, Scene


def hash_name(running: Running, client: redis.Redis, partition: int = 0) -> bytes:
    """Find the partition's hash among those of all tests."""
    end = f"{running.model.fingerprint}:{running.group}"
    (name,) = client.scan_iter(f"livestep:{{*:{partition}}}:{end}")
    return bytes(name)


def scene(running: Running, client: redis.Redis, partition: int = 0) -> Scene:
    """What Redis holds of a partition, and two keys of it."""
    scope = f"{running.input_topic}/{running.group}/{running.model.fingerprint}"
    fields = client.hgetall(hash_name(running, client, partition))
    keys = sorted(name[1:] for name in fields if name.startswith(b"kkey-"))
    return Scene(fields, partition, keys[0], keys[1], running.model, scope)


def change(running: Running, client: redis.Redis, changes: Changes, partition: int = 0) -> None:
    """Change the hash of a partition as somebody else might."""
    name = hash_name(running, client, partition)
    for field, value in changes.items():
        if value is None:
            client.hdel(name, field)
        else:
            client.hset(name, field, value)


def damages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of damages; a busy machine may warn of slow brokers, too."""
    found = [r for r in caplog.records if r.name == "livestep.engine"]
    return [text for r in found if "damaged in Redis" in (text := r.getMessage())]


@pytest.fixture
def running(pipeline: MakeRunning) -> Running:
    """A topic of one partition, predicted to its end by a worker that has left."""
    running = pipeline(partitions=1)
    running.publish(200, keys=5)
    running.burst()
    return running


def test_each_kind_of_damage_is_named_and_healed(
    pipeline: MakeRunning, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a partition for each kind of damage, predicted to its end
    kinds = [*RECORDS, *FIELDS]
    running = pipeline(partitions=len(kinds))
    running.publish(2_000, keys=20 * len(kinds))
    running.burst()

    # When somebody changes all of them, and the keys come again
    said: dict[int, tuple[str, str]] = {}
    for partition, kind in enumerate(kinds):
        before = scene(running, redis_client, partition)
        place = f"{running.input_topic}/{partition}: damaged in Redis: "
        if kind in RECORDS:
            make, what = RECORDS[kind]
            changes = make(before)
            said[partition] = f"{place}the state of key {before.key!r}: ", what
        else:
            changes, harm = FIELDS[kind]
            if harm is not None:
                said[partition] = place, harm
        change(running, redis_client, changes, partition)
        running.publish_raw([(before.key, b'{"x": [1, 2, 3]}')])
    caplog.clear()
    running.burst(batch_events_max=200, pool_slots=1_000)

    # Then one line for each says which key it is and what is wrong
    lines = damages(caplog)
    for partition, (begin, what) in said.items():
        (line,) = [line for line in lines if line.startswith(begin)]
        assert what in line, kinds[partition]
    assert len(lines) == len(said), lines
    # And every prediction is right, also those that come next
    running.publish(500, keys=20 * len(kinds), seed=1)
    caplog.clear()
    running.burst()
    assert damages(caplog) == []
    running.assert_truth()


def test_what_is_changed_under_a_worker_at_work_is_healed_there(
    pipeline: MakeRunning, redis_client: redis.Redis
) -> None:
    # Given a worker with more keys than slots, which has saved what it has predicted
    running = pipeline(partitions=1)
    worker = running.start(
        batch_events_max=20, pool_slots=40, session_timeout_ms=PATIENT_SESSION_TIMEOUT_MS
    )
    running.publish(600, keys=200)
    running.wait_until_done()
    name = hash_name(running, redis_client)
    # When the state of every key is changed while it works
    for key in redis_client.hkeys(name):
        if key.startswith(b"kkey-"):
            redis_client.hset(name, key, b"damaged")
    running.publish(600, keys=200)
    running.wait_for_log(worker, "damaged in Redis: the state of key b'key-")
    running.wait_until_done()
    worker.stop(60)
    # Then all is as it would be
    running.assert_truth()


def test_a_damaged_state_whose_history_is_gone_ends_the_worker_by_exit_code_7(
    running: Running, redis_client: redis.Redis
) -> None:
    # Given a damaged state, and a log that no longer reaches back to where the states began
    before = scene(running, redis_client)
    change(running, redis_client, RECORDS["a bit of the state turned"][0](before))
    admin = AdminClient({"bootstrap.servers": running.services.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(running.input_topic, 0, 60)]).values():
        future.result(30)
    running.publish(40, keys=5, seed=1)

    # When a worker meets it, then it says what is missing and how to continue, and leaves
    worker = running.start(burst=True)
    assert worker.wait(90) == StateError.exit_code == 7
    log = worker.log_tail(10_000)
    assert f"the state of key {before.key!r}: its checksum" in log
    assert "offsets 0 to 59 are no longer in the log" in log
    assert "--accept-missing-history continues from offset 60" in log
    assert "Traceback" not in log
    with pytest.raises(HistoryMissingError):
        running.burst()

    # When that is accepted, then every event has its prediction
    running.burst(accept_missing_history=True)
    assert len(running.predictions()) == running.published


def test_a_string_under_the_name_of_our_hash_is_named(
    running: Running, redis_client: redis.Redis
) -> None:
    # Given somebody who has written a string where the states are
    name = hash_name(running, redis_client)
    redis_client.delete(name)
    redis_client.set(name, "mine")
    # When a worker starts, then it says which key that is, and touches nothing
    running.publish(10, keys=5)
    with pytest.raises(StoreError, match="is not a hash.*Delete the key") as caught:
        running.burst()
    assert name.decode() in str(caught.value)
    assert redis_client.get(name) == b"mine"
    # When it is deleted, as the error says, then the states are replayed
    redis_client.delete(name)
    running.burst()
    running.assert_truth()
