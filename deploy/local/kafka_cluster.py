"""Three real Kafka brokers on this machine; each record is replicated to all of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from livestep.deploy.local.kafka_broker import SHORT_RUN, KafkaBroker

#: Each broker is also a controller, so two of them are a majority of both.
BROKER_COUNT = 3

#: Three brokers start on a small machine that also runs workers and load.
JAVA_OPTIONS = ("-Xmx384m", *SHORT_RUN)

#: Acknowledged records are on at least two brokers, so one may be lost; this includes Kafka's own
#: topics.
DURABILITY = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}


class KafkaCluster:
    """Brokers that elect their controllers and replicate each other's partitions.

    Args:
        jars: Folder with Kafka's jars, see `deploy.local.jars.kafka_jars`.
        directory: An existing, separate folder; each broker gets one below it.

    Attributes:
        brokers: Each can be stopped, killed, paused and restarted alone. Settings may be added
            until the first start.

    Source:
        https://kafka.apache.org/documentation/#kraft_deployment
    """

    def __init__(self, jars: Path, directory: Path) -> None:
        self.brokers: list[KafkaBroker] = []
        for number in range(1, BROKER_COUNT + 1):
            folder = directory / f"broker-{number}"
            folder.mkdir()
            name = f"Kafka {number}"
            self.brokers.append(KafkaBroker(jars, folder, name=name, java_options=JAVA_OPTIONS))
        # Known only once all brokers have their ports.
        voters = ",".join(
            f"{number}@{broker.controller_address}"
            for number, broker in enumerate(self.brokers, start=1)
        )
        for number, broker in enumerate(self.brokers, start=1):
            broker.settings.update(
                {"node.id": str(number), "controller.quorum.voters": voters, **DURABILITY}
            )

    @property
    def bootstrap_servers(self) -> str:
        """Addresses for clients, in the form of Kafka's setting."""
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    def start(self) -> None:
        """Start all brokers and wait until each answers.

        Raises:
            ServiceError: If one does not; has the end of its log.
        """
        # No broker is ready before there is a quorum.
        start_together(self.brokers)

    def kill(self) -> None:
        """Kill all brokers."""
        for broker in self.brokers:
            broker.kill()

    def release(self) -> None:
        """Release the ports; it can't be restarted."""
        for broker in self.brokers:
            broker.release()


def start_together(brokers: Sequence[KafkaBroker]) -> None:
    """Start brokers at the same time.

    Raises:
        ServiceError: If one does not answer.
    """
    with ThreadPoolExecutor(len(brokers)) as threads:
        for started in [threads.submit(broker.start) for broker in brokers]:
            started.result()
