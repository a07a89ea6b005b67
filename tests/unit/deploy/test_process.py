"""Child processes, ports and Kafka's jars: the parts of the services that run without them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from livestep.deploy.local.child_process import (
    ChildProcess,
    Service,
    ServiceError,
    orderly_termination,
)
from livestep.deploy.local.jars import POM, kafka_jars, kafka_version
from livestep.deploy.local.ports import ReservedPort
from tests.support.helpers import wait_until

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ChildProcess]:
    """A program that would run for a minute."""
    process = ChildProcess("sleeper", ["sleep", "60"], tmp_path / "sleeper.log")
    yield process
    process.kill()


def test_a_child_can_be_stopped_and_restarted(sleeper: ChildProcess) -> None:
    sleeper.start()
    first_pid = sleeper.pid
    sleeper.start()
    assert sleeper.pid == first_pid, "a running child is left alone"
    sleeper.stop()
    assert sleeper.exit_code == -signal.SIGTERM
    sleeper.start()
    assert sleeper.is_running
    assert sleeper.pid != first_pid


def test_a_child_that_ignores_sigterm_is_killed_after_the_timeout(tmp_path: Path) -> None:
    script = "trap '' TERM; echo ready; while true; do sleep 0.1; done"
    stubborn = ChildProcess("stubborn", ["sh", "-c", script], tmp_path / "log")
    stubborn.start()
    wait_until(lambda: "ready" in stubborn.log_tail())
    stubborn.stop(timeout_s=0.3)
    assert stubborn.exit_code == -signal.SIGKILL


def test_a_paused_child_can_be_stopped(sleeper: ChildProcess) -> None:
    sleeper.start()
    sleeper.pause()
    sleeper.stop()
    assert sleeper.exit_code == -signal.SIGTERM


def test_a_child_has_its_own_session(sleeper: ChildProcess) -> None:
    sleeper.start()
    assert os.getsid(sleeper.pid) != os.getsid(0), "Ctrl-C in our terminal would reach it"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has PR_SET_PDEATHSIG")
def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    # Given a parent with a child
    script = f"""
from pathlib import Path
from livestep.deploy.local.child_process import ChildProcess
child = ChildProcess("child", ["sleep", "60"], Path({str(tmp_path)!r}) / "child.log")
child.start()
print(child.pid, flush=True)
child.wait(60)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child_pid = int(parent.stdout.readline())
        # When the parent gets a signal that no program can handle
        parent.kill()
    # Then the child has ended; the process that inherits it may not have reaped it yet
    status = Path(f"/proc/{child_pid}/stat")
    wait_until(lambda: not status.exists() or ") Z " in status.read_text(), 10)


def test_a_program_that_does_not_exist_is_named_in_the_log(tmp_path: Path) -> None:
    missing = ChildProcess("missing", ["no-such-program"], tmp_path / "log")
    missing.start()
    assert missing.wait(10) == 1
    assert missing.log_tail() == "no-such-program: No such file or directory"


class NeverReady(Service):
    """A server that starts and does not answer."""

    start_timeout_s = 0.2

    def is_ready(self) -> bool:
        """Never."""
        return False


def test_a_service_that_does_not_answer_is_killed_and_its_log_is_shown(tmp_path: Path) -> None:
    silent = NeverReady("silent", ["sh", "-c", "echo loading; sleep 60"], tmp_path / "log")
    with pytest.raises(ServiceError, match=r"(?s)silent did not answer within 0.2 s.*loading"):
        silent.start()
    assert not silent.is_running


def test_a_service_that_ends_at_once_is_not_waited_for(tmp_path: Path) -> None:
    broken = NeverReady("broken", ["sh", "-c", "echo bad option; exit 3"], tmp_path / "log")
    broken.start_timeout_s = 60
    with pytest.raises(ServiceError, match=r"(?s)broken ended with exit status 3.*bad option"):
        broken.start()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a port can't be kept")
def test_a_reserved_port_is_open_to_its_service_only() -> None:
    port = ReservedPort()
    address = ("127.0.0.1", port.number)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(address)
    with socket.create_server(address) as server:  # sets SO_REUSEADDR, as Java and Redis do
        with socket.create_connection(address):
            server.accept()[0].close()
    port.release()


def test_sigterm_ends_a_block_as_ctrl_c_does() -> None:
    cleaned_up = False
    with pytest.raises(KeyboardInterrupt), orderly_termination():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleaned_up = True
    assert cleaned_up


def fake_maven(folder: Path, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "mvn").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "mvn").chmod(0o755)


FETCH = 'for last; do :; done; touch "${last#-DoutputDirectory=}/kafka.jar"; echo "$$" >> "$CALLS"'


def test_kafka_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_maven(tmp_path / "bin", FETCH)
    calls = tmp_path / "calls"
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("CALLS", str(calls))
    cache = tmp_path / "cache"
    jars = kafka_jars(cache)
    assert kafka_jars(cache) == jars == cache / f"kafka-{kafka_version()}"
    assert sorted(path.name for path in jars.iterdir()) == ["kafka.jar", POM.name]
    assert len(calls.read_text().splitlines()) == 1


def test_kafka_is_fetched_again_when_the_pom_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_maven(tmp_path / "bin", FETCH)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    jars = kafka_jars(tmp_path / "cache")
    (jars / POM.name).write_text("an older one")
    kafka_jars(tmp_path / "cache")
    assert (jars / POM.name).read_bytes() == POM.read_bytes()
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


def test_a_failed_fetch_shows_the_errors_of_maven_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_maven(tmp_path / "bin", "echo '[ERROR] Could not transfer artifact'; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    with pytest.raises(ServiceError, match=r"(?s)Check the network.*Could not transfer artifact"):
        kafka_jars(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
