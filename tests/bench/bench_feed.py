"""Publish events at a steady rate, in a process of its own, and note when each was sent.

    python -m tests.bench.bench_feed BOOTSTRAP_SERVERS TOPIC RECORDS_FILE EVENTS_PER_S TIMES_FILE

RECORDS_FILE is a msgpack list of [key, value]; TIMES_FILE becomes a numpy array of time.time() for
each record, taken just before the producer is called.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from tests.support.rig.kafka_clients import flush, make_producer, paced

#: Between two bursts: shorter than what is measured, long enough to leave the processor.
PACE_S = 0.001

#: The producer waits this long for company, as a client that wants low latency does.
LINGER_MS = 1


def main(bootstrap_servers: str, topic: str, records_path: str, rate: str, times_path: str) -> None:
    """Publish all records, then write when each was sent."""
    records = msgspec.msgpack.decode(
        Path(records_path).read_bytes(), type=list[tuple[bytes, bytes]]
    )
    producer = make_producer(bootstrap_servers, **{"linger.ms": LINGER_MS})
    producer.list_topics(topic)
    sent_at = np.zeros(len(records))
    gc.disable()
    count = 0
    for due in paced(float(rate), PACE_S):
        for index in range(count, min(count + due, len(records))):
            key, value = records[index]
            sent_at[index] = time.time()
            producer.produce(topic, value=value, key=key)
        count += due
        producer.poll(0)
        if count >= len(records):
            break
    flush(producer)
    np.save(times_path, sent_at)


if __name__ == "__main__":
    main(*sys.argv[1:])
