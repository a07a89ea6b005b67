"""A consumer loop and Redis, one event at a time: what people write first; at least once.

States are written before the offsets are committed, so a crash steps some events twice: outputs
repeat and, unlike in all other rows, states are wrong from then on.
"""

from __future__ import annotations

import orjson
import redis
from confluent_kafka import Consumer, KafkaException, Producer
from peer import BOOTSTRAP_SERVERS, GROUP, INPUT_TOPIC, OUTPUT_TOPIC, REDIS_URL, step

#: Events between two commits.
COMMIT_EVENTS = 500


def main() -> None:
    """Predict until a signal ends the process."""
    consumer = Consumer(
        {
            "bootstrap.servers": BOOTSTRAP_SERVERS,
            "group.id": GROUP,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    producer = Producer({"bootstrap.servers": BOOTSTRAP_SERVERS, "linger.ms": 5})
    states = redis.Redis.from_url(REDIS_URL)
    consumer.subscribe([INPUT_TOPIC])
    pending_count = 0
    while True:
        record = consumer.poll(0.1)
        if record is not None:
            if record.error():
                raise KafkaException(record.error())
            name = b"%s:%s" % (GROUP.encode(), record.key())
            outputs, hidden = step(orjson.loads(record.value())["x"], states.get(name))
            states.set(name, hidden)
            producer.produce(OUTPUT_TOPIC, key=record.key(), value=orjson.dumps({"y": outputs}))
            pending_count += 1
        if pending_count and (record is None or pending_count == COMMIT_EVENTS):
            producer.flush()
            consumer.commit(asynchronous=False)
            pending_count = 0


if __name__ == "__main__":
    main()
