"""Memory of a livestep worker while keys grow past its pool, and of one live key."""

from __future__ import annotations

import subprocess
import sys
import time

import msgspec
import redis
from confluent_kafka import Producer

from tests.bench.bench import Bench, ContestantError
from tests.bench.contestants import CONTESTANTS, REPOSITORY
from tests.bench.dataset import HIDDEN_SIZE, values_of
from tests.bench.pool_memory import PoolMemory
from tests.bench.reader import OutputReader, Outputs
from tests.bench.results import Memory
from tests.support.rig.kafka_clients import make_producer
from tests.support.rig.machine import sample_process

#: The worker's pool and batch in this measurement.
POOL_SLOTS = 20_000
BATCH_EVENTS_MAX = 5_000

#: Memory is read after each of these multiples of the pool.
POOLS = (1, 2, 4, 8)

#: How long one step may take, and the rest after it, in which the last saves are written.
STEP_TIMEOUT_S = 60.0
REST_S = 1.5

TOPIC = "memory"


def measure(bench: Bench) -> Memory:
    """Give a worker ever more keys, one event each, and look at its memory and at Redis.

    Raises:
        ContestantError: If the worker does not keep up.
    """
    contestant = next(one for one in CONTESTANTS if one.row == "livestep-exactly-once")
    bench.create_input(TOPIC)
    flags = ["--pool-slots", str(POOL_SLOTS), "--batch-events-max", str(BATCH_EVENTS_MAX)]
    producer = make_producer(bench.services.bootstrap_servers, **{"linger.ms": 50})
    values = values_of(bench.logs[0].utterances.features, contestant.codec)
    rss_mb_by_keys: dict[int, int] = {}
    outputs = Outputs()
    with (
        bench.contest(contestant, TOPIC, *flags) as contest,
        OutputReader(contest.run.bootstrap_servers, contest.run.output_topic, 0.01) as reader,
        bench.progress.task("memory, keys", POOLS[-1] * POOL_SLOTS) as update,
    ):
        for pools in POOLS:
            key_count = pools * POOL_SLOTS
            publish_keys(producer, len(outputs), key_count, values)
            deadline = time.monotonic() + STEP_TIMEOUT_S
            while len(outputs) < key_count and time.monotonic() < deadline:
                reader.look(outputs)
                update(len(outputs))
            if len(outputs) < key_count:
                raise ContestantError(f"memory: {len(outputs)} of {key_count} outputs")
            time.sleep(REST_S)
            rss_mb_by_keys[key_count] = round(sample_process(contest.child.pid).rss_mb)
        bytes_a_key, record_bytes = redis_memory(contest.run.redis_url)
    pool = pool_memory()
    found = Memory(
        state_bytes=HIDDEN_SIZE * 4,
        pool_slots=POOL_SLOTS,
        rss_mb_by_keys=rss_mb_by_keys,
        redis_bytes_a_key=bytes_a_key,
        redis_record_bytes=record_bytes,
        pool_array_bytes_a_key=pool.array_bytes_a_key,
        pool_total_bytes_a_key=pool.total_bytes_a_key,
    )
    bench.progress.say(f"memory: {found}")
    return found


def publish_keys(producer: Producer, first: int, end: int, values: list[bytes]) -> None:
    """Publish one event for each of the keys from `first` to before `end`."""
    for index in range(first, end):
        producer.produce(TOPIC, values[index % len(values)], b"memory-%010d" % index)
        producer.poll(0)
    producer.flush()


def redis_memory(url: str) -> tuple[int, int]:
    """Look at the hashes of states in Redis.

    Returns:
        bytes_a_key: Of Redis' own count, for each key's state.
        record_bytes: Of one state's record.
    """
    total_bytes = state_count = record_bytes = 0
    with redis.Redis.from_url(url) as client:
        for name in client.scan_iter(b"livestep:*", _type="HASH"):
            total_bytes += client.memory_usage(name, samples=0) or 0
            states = (field for field, _ in client.hscan_iter(name) if field.startswith(b"kmemory"))
            fields = list(states)
            state_count += len(fields)
            record_bytes = max(record_bytes, client.hstrlen(name, fields[0]) if fields else 0)
    return round(total_bytes / max(state_count, 1)), record_bytes


def pool_memory() -> PoolMemory:
    """Fill a pool in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.pool_memory"],
        cwd=REPOSITORY, capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ContestantError(f"pool_memory: {done.stderr.decode(errors='replace')[-500:]}")
    return msgspec.json.decode(done.stdout, type=PoolMemory)
