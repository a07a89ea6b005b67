"""Read, write, one transaction for what one poll returned; no model: the limit of the transport.

Run as
    python -m tests.bench.pass_through BOOTSTRAP_SERVERS INPUT_TOPIC OUTPUT_TOPIC GROUP
"""

from __future__ import annotations

import sys

from confluent_kafka import Consumer, KafkaException, Producer

#: As livestep's default.
BATCH_EVENTS_MAX = 20_000

CONSUMER = {
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "max.partition.fetch.bytes": 4_194_304,
    "fetch.wait.max.ms": 50,
    "fetch.queue.backoff.ms": 5,
}

PRODUCER = {
    "linger.ms": 1,
    "batch.size": 1_000_000,
    "batch.num.messages": 100_000,
    "queue.buffering.max.messages": 1_000_000,
    "retry.backoff.ms": 5,
}


def main(bootstrap_servers: str, input_topic: str, output_topic: str, group: str) -> None:
    """Copy records until a signal ends the process."""
    servers = {"bootstrap.servers": bootstrap_servers}
    consumer = Consumer({**CONSUMER, **servers, "group.id": group})
    producer = Producer({**PRODUCER, **servers, "transactional.id": group})
    producer.init_transactions()
    consumer.subscribe([input_topic])
    while True:
        first = consumer.poll(0.1)
        if first is None:
            continue
        producer.begin_transaction()
        for record in [first, *consumer.consume(BATCH_EVENTS_MAX - 1, 0)]:
            if record.error():
                raise KafkaException(record.error())
            partition = record.partition()
            assert partition is not None, "only a message that is to be sent has no partition"
            producer.produce(output_topic, record.value(), record.key(), partition)
        producer.send_offsets_to_transaction(
            consumer.position(consumer.assignment()), consumer.consumer_group_metadata()
        )
        producer.commit_transaction()


if __name__ == "__main__":
    main(*sys.argv[1:])
