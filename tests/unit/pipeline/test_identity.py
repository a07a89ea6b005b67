"""Worker ids: the same after a restart, and no two at once on one host."""

import socket
import sys
import uuid

import pytest

from livestep.pipeline.process.identity import WorkerId


@pytest.fixture
def group():
    return f"group-{uuid.uuid4().hex}"


def test_a_name_that_is_given_is_taken(group):
    worker = WorkerId(group, "pod-3")
    assert worker.name == "pod-3"
    worker.close()


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_each_worker_has_the_lowest_number_that_is_free_on_its_host(group):
    # Given three workers of a group, and one of another
    workers = [WorkerId(group) for _ in range(3)]
    other = WorkerId(group + "-other")
    host = socket.gethostname()
    assert [worker.name for worker in workers] == [f"{host}-0", f"{host}-1", f"{host}-2"]
    assert other.name == f"{host}-0"
    # When the second ends, then the next one has its name
    workers[1].close()
    workers[1] = WorkerId(group)
    assert workers[1].name == f"{host}-1"
    for worker in [*workers, other]:
        worker.close()


def test_elsewhere_the_process_id_distinguishes_workers(group, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("os.getpid", lambda: 4711)
    worker = WorkerId(group)
    assert worker.name == f"{socket.gethostname()}-4711"
    worker.close()
