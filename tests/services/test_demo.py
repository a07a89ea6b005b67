"""A small demo: it succeeds, and nothing remains, however it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from livestep.deploy.local.child_process import ChildProcess
from tests.support.helpers import wait_until

ROOT = Path(__file__).resolve().parents[2]

#: Training, Kafka, two workers and a takeover; ten times as fast on an idle machine.
DEMO_TIMEOUT_S = 240.0

pytestmark = [
    pytest.mark.timeout(DEMO_TIMEOUT_S + 60),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc"),
]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[ChildProcess]:
    """`python -m livestep.deploy.demo`, as `make demo` runs it, with its data in tmp_path/data."""
    flags = ["--flats", "20", "--days", "60", "--directory", str(tmp_path / "data")]
    process = ChildProcess(
        "demo",
        [sys.executable, "-m", "livestep.deploy.demo", *flags],
        tmp_path / "demo.log",
        environment={"PYTHONPATH": str(ROOT)},
    )
    yield process
    process.kill()


def printed(demo: ChildProcess) -> str:
    return demo.log_tail(1_000)


def processes_of(directory: Path) -> list[int]:
    """All processes that run in a folder, or have it on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = command_line(int(process.name))
            if str(directory) in words or str(directory) in os.readlink(process / "cwd"):
                found.append(int(process.name))
        except OSError:
            continue  # It has just ended.
    return found


def workers_of(demo: ChildProcess) -> list[int]:
    return [
        pid
        for pid in processes_of(demo.log_path.parent / "data")
        if "livestep.pipeline.cli" in command_line(pid)
    ]


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    return ""


def ports_of(demo: ChildProcess) -> list[int]:
    """Ports of Kafka and Redis, from the line that prints them."""
    found = re.search(r"Kafka \S+ \(127\.0\.0\.1:(\d+)\).*:(\d+)/0\)", printed(demo))
    assert found, printed(demo)
    return [int(found[1]), int(found[2])]


def listening_ports() -> set[int]:
    """All ports of this machine on which any program listens."""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A":  # TCP_LISTEN
                    ports.add(int(words[1].rpartition(":")[2], 16))
    return ports


def assert_nothing_is_left(demo: ChildProcess) -> None:
    data = demo.log_path.parent / "data"
    wait_until(lambda: not processes_of(data), 10, "the end of the demo's processes")
    assert not data.exists()
    assert not listening_ports() & set(ports_of(demo))


def interrupt(demo: ChildProcess) -> None:
    """Press Ctrl-C in its terminal: the signal goes to the whole group."""
    os.killpg(demo.pid, signal.SIGINT)


def test_the_demo_ends_with_all_counts_at_zero_and_leaves_nothing(demo: ChildProcess) -> None:
    demo.start()
    code = demo.wait(DEMO_TIMEOUT_S)
    text = printed(demo)
    assert code == 0, text
    # All acts are there
    assert len(re.findall(r"-> dish \d +[\d.]+% sure  right +[\d.]+ ms", text)) == 21
    assert "both predict" in text
    assert "kill -9" in text
    assert "worker 2 has partitions 0, 1, 2, 3" in text
    # Each count is 0
    for name in ("lost", "repeated", "out of order", "offline unroll", "from the rules"):
        assert re.search(rf"{name} +│ +0 │", text), name
    for name in ("events", "predictions"):
        assert re.search(rf"{name} +│ +1,200 │", text), name
    assert_nothing_is_left(demo)


def test_ctrl_c_ends_the_demo_without_a_stack_trace_even_if_pressed_twice(
    demo: ChildProcess,
) -> None:
    # Given all its processes: Kafka, Redis and two workers
    demo.start()
    moment = "worker 2 .* is starting"
    wait_until(
        lambda: re.search(moment, printed(demo)) or not demo.is_running, DEMO_TIMEOUT_S, moment
    )
    # When Ctrl-C is pressed
    interrupt(demo)
    # A second Ctrl-C arrives during the clean-up, which starts with the workers.
    wait_until(lambda: not workers_of(demo), 60, "the end of the workers")
    with contextlib.suppress(ProcessLookupError):  # It may have been faster.
        interrupt(demo)
    # Then it prints that it was interrupted, and exits
    assert demo.wait(60) == 130, printed(demo)
    assert "Traceback" not in printed(demo)
    assert printed(demo).splitlines()[-1] == "interrupted: everything is stopped and removed"
    assert_nothing_is_left(demo)


def test_a_worker_that_cannot_start_is_a_one_line_error_and_leaves_nothing(
    demo: ChildProcess,
) -> None:
    demo.environment["LIVESTEP_KAFKA_NO_SUCH_OPTION"] = "1"
    demo.start()
    assert demo.wait(DEMO_TIMEOUT_S) == 1
    last = printed(demo).splitlines()[-1]
    assert re.fullmatch(
        r"error: worker 1 ended with exit status 3: error: .*no\.such\.option.*", last
    )
    assert "Traceback" not in printed(demo)
    assert_nothing_is_left(demo)
