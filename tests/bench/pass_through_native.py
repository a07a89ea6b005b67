"""Read, write, one transaction for each poll, with the native loops: the limit of the transport.

Run as
    python -m tests.bench.pass_through_native BOOTSTRAP_SERVERS INPUT_TOPIC OUTPUT_TOPIC GROUP
"""

from __future__ import annotations

import sys
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from livestep.pipeline.kafka.native_client import native_handle
from livestep.pipeline.kafka.polling import open_reader
from livestep.pipeline.native import native
from tests.bench.pass_through import BATCH_EVENTS_MAX, CONSUMER, PRODUCER


def main(bootstrap_servers: str, input_topic: str, output_topic: str, group: str) -> None:
    """Copy records until a signal ends the process."""
    assert native is not None, "the native loops are not built"
    servers = {"bootstrap.servers": bootstrap_servers}
    consumer = Consumer({**CONSUMER, **servers, "group.id": group})
    producer = Producer({**PRODUCER, **servers, "transactional.id": group})
    reader = open_reader(consumer, input_topic)
    sender = native.TopicSender(native_handle(producer), output_topic)

    def assigned(_: Any, places: list[TopicPartition]) -> None:
        for place in places:
            reader.add(place.partition)

    producer.init_transactions()
    consumer.subscribe([input_topic], on_assign=assigned)
    while True:
        records, notices = reader.poll(BATCH_EVENTS_MAX, 0.1)
        for notice in notices:
            raise KafkaException(notice.error)
        if not len(records):
            continue
        producer.begin_transaction()
        sent, code = sender.send(
            0,
            keys=records.keys,
            values=records.values,
            partitions=records.partitions,
            timestamps_ms=records.timestamps_ms,
            headers=[],
        )
        assert sent == len(records), f"error {code}"
        ends = records.ends()
        producer.send_offsets_to_transaction(
            [TopicPartition(input_topic, p, end) for p, end in ends.items()],
            consumer.consumer_group_metadata(),
        )
        producer.commit_transaction()


if __name__ == "__main__":
    main(*sys.argv[1:])
