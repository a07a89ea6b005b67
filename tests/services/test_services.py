"""The services that everything else stands on: they start, come back, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer

from livestep.deploy.local.child_process import ChildProcess, ServiceError
from livestep.deploy.local.redis_server import RedisServer
from livestep.deploy.local.services import LocalServices, local_services
from tests.conftest import CreateTopic, TopicNames
from tests.support.helpers import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def services(own_services: LocalServices) -> LocalServices:
    """Kafka and Redis of this module's own, since its tests kill them."""
    return own_services


@pytest.fixture(scope="module")
def bootstrap_servers(services: LocalServices) -> str:
    """Address of that Kafka."""
    return services.bootstrap_servers


@pytest.fixture(scope="module")
def redis_url(services: LocalServices) -> str:
    """Address of that Redis."""
    return services.redis_url


def send(services: LocalServices, topic: str, value: bytes) -> None:
    """Write one record in one transaction."""
    producer = Producer(
        {
            "bootstrap.servers": services.bootstrap_servers,
            "transactional.id": f"test-{topic}",
            "log_level": 0,
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, value)
    producer.commit_transaction(30)


def read_values(services: LocalServices, topic: str, count: int) -> list[bytes]:
    """Read `count` committed records of partition 0 with a group of their own."""
    consumer = Consumer(
        {
            "bootstrap.servers": services.bootstrap_servers,
            "group.id": f"test-{topic}",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    values: list[bytes] = []

    def is_read() -> bool:
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            values.append(message.value())
        return len(values) >= count

    try:
        wait_until(is_read)
    finally:
        consumer.close()
    return values


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def port_of(address: str) -> int:
    return int(address.removesuffix("/0").rsplit(":", 1)[1])


def is_alive(pid: int) -> bool:
    """Whether the process exists; a zombie that waits for its parent does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_kafka_comes_back_at_the_same_address_with_the_same_records(
    services: LocalServices, create_topic: CreateTopic, topic_names: TopicNames, end: str
) -> None:
    # Given a committed record
    topic = create_topic(topic_names(), 1)
    address = services.bootstrap_servers
    send(services, topic, b"before")
    # When the broker ends and starts again
    getattr(services.kafka, end)()
    assert not is_listening(port_of(address))
    services.kafka.start()
    send(services, topic, b"after")
    # Then the record is there, and new ones can be written
    assert services.bootstrap_servers == address
    assert read_values(services, topic, 2) == [b"before", b"after"]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_redis_comes_back_at_the_same_address_with_every_acknowledged_write(
    services: LocalServices, redis_client: redis.Redis, topic_names: TopicNames, end: str
) -> None:
    keys = [f"{topic_names()}:{index}" for index in range(100)]
    for key in keys:
        redis_client.set(key, b"value")
    getattr(services.redis, end)()
    services.redis.start()
    assert redis_client.exists(*keys) == len(keys)


def test_a_paused_service_answers_nothing_until_it_is_resumed(services: LocalServices) -> None:
    services.redis.pause()
    try:
        assert services.redis.is_running
        assert not services.redis.is_ready()
    finally:
        services.redis.resume()
    assert services.redis.is_ready()


def test_a_service_restarted_by_a_thread_outlives_that_thread(services: LocalServices) -> None:
    services.redis.kill()
    thread = threading.Thread(target=services.redis.start)
    thread.start()
    thread.join()
    assert services.redis.is_running
    assert services.redis.is_ready()


def test_the_port_of_a_stopped_service_is_given_to_nobody_else(services: LocalServices) -> None:
    port = port_of(services.redis_url)
    services.redis.stop()
    try:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
    finally:
        services.redis.start()


def test_two_sets_of_services_below_one_directory_do_not_meet(services: LocalServices) -> None:
    directory = services.redis.log_path.parents[2]
    with local_services(directory) as other:
        addresses = [*services.environment.values(), *other.environment.values()]
        assert len(set(addresses)) == 4
        assert other.redis.log_path.parents[2] == directory
    assert not other.redis.log_path.exists()
    assert services.redis.log_path.exists()
    assert services.kafka.is_ready()
    assert services.redis.is_ready()


def test_nothing_stays_behind_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), local_services(tmp_path) as own:
        own.kafka.pause()
        raise ZeroDivisionError
    assert not own.kafka.is_running
    assert not own.redis.is_running
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def foreground(tmp_path: Path) -> Iterator[ChildProcess]:
    """`python -m livestep.deploy.local.services`, as `make services` runs it."""
    process = ChildProcess(
        "make services",
        [sys.executable, "-m", "livestep.deploy.local.services", "--directory", str(tmp_path)],
        tmp_path / "services.log",
        environment={"PYTHONPATH": str(ROOT)},
    )
    process.start()
    yield process
    process.kill()


def addresses_of(process: ChildProcess) -> dict[str, str]:
    """Wait for the two lines with the addresses."""

    def exports() -> dict[str, str]:
        assert process.is_running, process.log_tail()
        lines = process.log_tail().splitlines()
        found = dict(line[7:].split("=", 1) for line in lines if line.startswith("export "))
        return found if len(found) == 2 else {}

    return wait_until(exports, 60)


def children_of(pid: int) -> list[int]:
    command = ["ps", "-o", "pid=", "--ppid", str(pid)]
    return [int(word) for word in subprocess.check_output(command, text=True).split()]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_services_in_the_foreground_leave_no_process_and_no_port(
    foreground: ChildProcess, end: signal.Signals
) -> None:
    # Given both running
    addresses = addresses_of(foreground)
    children = children_of(foreground.pid)
    assert len(children) == 2
    # When the process that started them ends, in whichever way
    os.kill(foreground.pid, end)
    foreground.wait(30)
    # Then nothing is left of them
    wait_until(lambda: not any(is_alive(pid) for pid in children), 10)
    wait_until(lambda: not any(is_listening(port_of(address)) for address in addresses.values()))


def test_a_service_that_cannot_start_reports_why(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.command.append("--no-such-option")
    with pytest.raises(ServiceError, match=r"(?s)Redis ended with exit status 1 .*FATAL"):
        server.start()
    server.release()
