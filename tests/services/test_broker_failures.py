"""One of several brokers goes away: a worker's questions about its topics go to another one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from livestep.deploy.local.jars import kafka_jars
from livestep.deploy.local.kafka_cluster import KafkaCluster
from livestep.pipeline.kafka.admin import Admin
from livestep.pipeline.kafka.topic_setup import create_topics

#: Each asks a broker that librdkafka has chosen at random: among so many some ask any of three.
ADMIN_COUNT = 9

#: Far below what a broker that is down takes until librdkafka gives it up by itself.
ANSWER_TIMEOUT_S = 8.0


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    made = KafkaCluster(kafka_jars(), tmp_path_factory.mktemp("kafka-cluster"))
    try:
        made.start()
        yield made
    finally:
        made.kill()
        made.release()


def test_what_a_topic_is_can_be_asked_while_any_one_broker_is_down(cluster: KafkaCluster) -> None:
    # Given clients that have asked, each some broker
    (outcome,) = create_topics(cluster.bootstrap_servers, ["events"], 3)
    assert outcome.problem is None, outcome
    admins = [Admin({"bootstrap.servers": cluster.bootstrap_servers}) for _ in range(ADMIN_COUNT)]
    for admin in admins:
        admin.check_topics(["events"])
        assert admin.ask(["events"], ANSWER_TIMEOUT_S).answer(ANSWER_TIMEOUT_S)["events"]
    # When any one of the brokers is killed
    cluster.brokers[1].kill()
    # Then all get an answer, from another one
    for admin in admins:
        found = admin.ask(["events"], ANSWER_TIMEOUT_S).answer(ANSWER_TIMEOUT_S)["events"]
        assert found is not None and found.partitions == 3
